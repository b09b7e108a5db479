"""The long-running commands: `driftline serve`, `stream`, `archive`, `monitor` and, beside them, `dead-letters`."""
