"""Files and objects, and the formats that Driftline keeps in them.

- `objects`: one door to local files and gs://; values and the drift history as JSON.
- `texts`: finds, checks and reads the users' texts.
- `dataset`: embeddings datasets, their partitions and windows.

`texts` and `dataset` build on `objects` and know nothing of each other.
"""
