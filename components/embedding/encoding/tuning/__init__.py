"""The fastest tuning on this machine: measured once, remembered by machine, model and precision."""
