"""Seeded sampling of the two datasets, and reading them as one pooled sample."""
