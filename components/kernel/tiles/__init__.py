"""How it is computed: the kernel matrix tile by tile, on CPUs, GPUs and whatever XLA knows."""
