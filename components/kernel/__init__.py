"""The kernel engine: kernel functions, the median heuristic, the block plan, labellings and sums over tiles."""
