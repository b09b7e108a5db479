"""Embeddings datasets: written, read, checked and described; their partitions and windows."""
