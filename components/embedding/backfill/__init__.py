"""Texts to an embeddings dataset: planned, embedded in parts that survive any kill, verified, described."""
