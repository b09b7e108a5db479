"""Principal component analysis in one pass over mergeable sums."""
