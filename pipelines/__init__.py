"""Pipelines that wire components, and the ways to run them: compiled for a cluster, on this machine, by command."""
