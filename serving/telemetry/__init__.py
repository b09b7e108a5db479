"""What a running process tells of itself: health, Prometheus metrics, traces."""
