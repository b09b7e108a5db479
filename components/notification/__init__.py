"""Reactions to drift: an event sent to a receiver, and a run that fails."""
