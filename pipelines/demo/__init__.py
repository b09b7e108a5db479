"""The streaming demonstration: every part of the streaming side on this machine, on real film reviews."""
