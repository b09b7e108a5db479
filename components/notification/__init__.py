"""What follows from drift: an event sent to whoever should know, or a run that fails."""
