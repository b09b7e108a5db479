"""Telemetry of a running process: health, Prometheus metrics, traces."""
