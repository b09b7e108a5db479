"""The users' texts: found, checked and read from Parquet, JSON lines and CSV."""
