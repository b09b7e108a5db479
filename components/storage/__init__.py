r"""Files and objects, and the formats that Driftline keeps in them.

- `objects`: one door to local files and gs://, `objects.store`; values and the drift history as JSON; owned objects.
- `texts`: the users' texts, found, scanned once and read in slices by `texts.reading`.
- `dataset`: embeddings datasets, read by `dataset.reader`, written by `dataset.writer`; their partitions and windows.

`texts` and `dataset` build on `objects` and know nothing of each other.

A dataset is written shard by shard, and is there once its manifest is:

>>> import tempfile
>>> import pyarrow as pa
>>> from driftline.components.storage.dataset.manifest import Manifest
>>> from driftline.components.storage.dataset.reader import EmbeddingsDataset
>>> from driftline.components.storage.dataset.writer import write_manifest, write_shard
>>> folder = tempfile.TemporaryDirectory()  # or gs://bucket/path
>>> rows = pa.record_batch({"id": ["a", "b", "c"], "embedding": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]})
>>> shard = write_shard(folder.name, "part-00000.parquet", [rows], dimension=2, dtype="float32", key="example")
>>> write_manifest(folder.name, Manifest("a-model", "its revision", 2, True, "float32", (), (shard,)))
>>> dataset = EmbeddingsDataset.open(folder.name)
>>> dataset.rows, dataset.dimension
(3, 2)
>>> for batch in dataset.batches(batch_rows=2):
...     print(batch.ids, batch.embeddings.shape)
['a', 'b'] (2, 2)
['c'] (1, 2)

Texts are scanned once, with every rule applied, and then read:

>>> from driftline.components.storage.objects import store
>>> from driftline.components.storage.texts.reading import read_texts, scan_texts
>>> from driftline.components.storage.texts.selection import TextSelection
>>> uri = store.join(folder.name, "texts.jsonl")
>>> store.write_bytes(uri, b'{"id": 1, "text": "good", "stars": 5}\n{"id": 2, "text": "bad", "stars": 1}\n')
>>> selection = TextSelection(where=("stars >= 4",))
>>> (source,) = scan_texts([uri], selection=selection)
>>> source.rows, source.texts
(2, 1)
>>> [batch.to_pylist() for batch in read_texts(source, selection=selection)]
[[{'id': '1', 'text': 'good', 'stars': 5}]]
>>> folder.cleanup()
"""
