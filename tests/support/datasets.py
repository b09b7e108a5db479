"""Small embeddings datasets and texts for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from driftline.components.storage.dataset.manifest import Manifest
from driftline.components.storage.dataset.writer import write_manifest, write_shard
from driftline.components.storage.objects.store import join


def write_embeddings(
    uri: str,
    vectors: np.ndarray,
    *,
    texts: Sequence[str] | None = None,
    carried: Mapping[str, Sequence[Any]] | None = None,
    model: str = "tiny",
    revision: str = "r1",
    normalized: bool = False,
    rows_per_shard: int = 1000,
    prefix: str = "id",
) -> str:
    """Write vectors (rows, d) as an embeddings dataset and return its URI.

    Args:
        uri: its folder.
        vectors: (rows, d).
        texts: what the column ``text`` carries; no such column where there are none.
        carried: other columns.
        model, revision, normalized: as the manifest has them.
        rows_per_shard: rows of a file.
        prefix: of the ids, before the row's number.
    """
    others = {**({} if texts is None else {"text": texts}), **(carried or {})}
    shards = []
    for start in range(0, len(vectors), rows_per_shard):
        part = np.ascontiguousarray(vectors[start : start + rows_per_shard], np.float32)
        columns = {
            "id": pa.array([f"{prefix}-{start + k}" for k in range(len(part))]),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1]),
        }
        for column, values in others.items():
            columns[column] = pa.array(list(values[start : start + rows_per_shard]))
        name = f"part-{start:06d}.parquet"
        batch = pa.record_batch(columns)
        shards.append(write_shard(uri, name, [batch], dimension=part.shape[1], dtype="float32", key=join(uri, name)))
    manifest = Manifest(
        model,
        revision,
        vectors.shape[1],
        normalized=normalized,
        dtype="float32",
        columns=tuple(others),
        shards=tuple(shards),
    )
    write_manifest(uri, manifest)
    return uri


def write_texts(path: Path, texts: Sequence[str], prefix: str = "t", **extra: Sequence[str]) -> Path:
    """Write texts as JSONL with ids and any further columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            record = {"id": f"{prefix}{number}", "text": text} | {
                name: column[number] for name, column in extra.items()
            }
            file.write(json.dumps(record) + "\n")
    return path
