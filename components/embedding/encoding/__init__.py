"""Texts to vectors: the encoder, and the models it loads."""
