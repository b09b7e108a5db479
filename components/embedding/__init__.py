"""The encoder, and the backfill that turns texts into an embeddings dataset."""
