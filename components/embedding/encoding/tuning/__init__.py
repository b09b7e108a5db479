"""Which tuning is the fastest on this machine: measured once, remembered by machine, model and precision."""
