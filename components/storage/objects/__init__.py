"""One door to files and objects: opened, created, listed and removed, whether local or gs://."""
