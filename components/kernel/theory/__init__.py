"""The mathematics: kernels, distances, bandwidths, permutations, random features. It knows nothing of tiles."""
