"""What all commands share: options made of described settings, groups of commands, and how a command ends."""
