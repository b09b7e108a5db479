"""The execution: sums over the kernel matrix, tile by tile, on CPUs, GPUs and any device that XLA knows."""
