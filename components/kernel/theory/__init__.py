"""What is computed: kernels, bandwidths, permutations, random features. NumPy and JAX, no tiles."""
