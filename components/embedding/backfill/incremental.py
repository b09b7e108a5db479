"""What an incremental run has to do: which texts are new, which rows of the dataset are to be left out.

Ids and texts are compared by their BLAKE2b digests, of 128 and 64 bits: no dataset is large enough for two to agree by
chance. Memory: 56 bytes for each text of the input at most, and 16 for each row of the dataset that the input names
too; the dataset itself is streamed.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.storage.dataset.deletion_vectors import read_deletes
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.texts.arrow_types import type_from_name, type_name
from driftline.components.storage.texts.reading import (
    TextColumns,
    TextSelection,
    TextSource,
    read_texts,
    read_tombstones,
)

_ID_BYTES: Final = 16
_TEXT_BYTES: Final = 8
_ROWS_AT_ONCE: Final = 8192

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What sets an input apart from a dataset.

    Attributes:
        wanted: for each source whether each of its kept texts is to be embedded: its id is new, or its text changed.
        deletes: for each shard all rows to leave out, those left out before included, ascending.
        replaced: rows to leave out from now on since their texts changed.
        removed: rows to leave out from now on since the input holds their ids with a null text.
        unknown: ids with a null text that the dataset does not have.
    """

    wanted: list[NDArray[np.bool_]]
    deletes: dict[str, Rows]
    replaced: int
    removed: int
    unknown: int


def compare(
    dataset: EmbeddingsDataset, sources: Sequence[TextSource], columns: TextColumns, selection: TextSelection
) -> Changes:
    """Compare texts with a dataset.

    A row stays where the input does not name its id, or holds the same text with it; carried columns are not compared.

    Args:
        dataset: what is there.
        sources: the input, as scanned.
        columns: the names of its id and text columns.
        selection: the rows of it that are taken.

    Raises:
        DataError: a file or a shard is not what it was, or is damaged.
        StorageError: one cannot be read.
    """
    ids, texts = _digests(sources, columns, selection)
    kept = len(texts)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    wanted = np.ones(kept, np.bool_)
    rows, places = _named(dataset, ids, order)
    removed = rows[places >= kept]
    rows, places = rows[places < kept], places[places < kept]
    same = _texts_of(dataset, rows) == texts[places]
    wanted[places[same]] = False
    replaced = rows[~same]
    return Changes(
        wanted=np.split(wanted, np.cumsum([source.texts for source in sources])[:-1]),
        deletes=_left_out(dataset, np.sort(np.concatenate([removed, replaced]))),
        replaced=len(replaced),
        removed=len(removed),
        unknown=len(ids) - kept - len(removed),
    )


def _digests(
    sources: Sequence[TextSource], columns: TextColumns, selection: TextSelection
) -> tuple[NDArray[np.bytes_], NDArray[np.uint64]]:
    """Return digests of the input's ids, those of null texts last, and of its texts."""
    no_carried = pa.schema([])
    ids: list[NDArray[np.bytes_]] = []
    texts: list[NDArray[np.bytes_]] = []
    for source in sources:
        for batch in read_texts(source, columns, selection=selection, batch_rows=_ROWS_AT_ONCE, schema=no_carried):
            ids.append(_hashed(batch.column("id"), _ID_BYTES))
            texts.append(_hashed(batch.column("text"), _TEXT_BYTES))
    ids += [
        _hashed(tombstones, _ID_BYTES)
        for source in sources
        for tombstones in read_tombstones(source, columns, selection=selection)
    ]
    return _joined(ids, _ID_BYTES), _joined(texts, _TEXT_BYTES).view(np.uint64)


def _hashed(values: pa.Array, size: int) -> NDArray[np.bytes_]:
    digests = b"".join(hashlib.blake2b(value.encode(), digest_size=size).digest() for value in values.to_pylist())
    return np.frombuffer(digests, f"S{size}")


def _joined(parts: list[NDArray[np.bytes_]], size: int) -> NDArray[np.bytes_]:
    return np.concatenate([np.empty(0, f"S{size}"), *parts])


def _named(dataset: EmbeddingsDataset, ids: NDArray[np.bytes_], order: Rows) -> tuple[Rows, Rows]:
    """Return the dataset's rows whose ids the input has, ascending, and the place of each in the input.

    Args:
        dataset: what is there.
        ids: digests of the input's ids, sorted.
        order: the place of each of them in the input.
    """
    rows: list[Rows] = [np.empty(0, np.int64)]
    places: list[Rows] = [np.empty(0, np.int64)]
    if len(ids):
        for batch in dataset.batches(("id",), batch_rows=_ROWS_AT_ONCE):
            found = _hashed(batch.table.column("id").combine_chunks(), _ID_BYTES)
            at = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
            named = ids[at] == found
            rows.append(batch.rows[named])
            places.append(order[at[named]])
    return np.concatenate(rows), np.concatenate(places)


def _texts_of(dataset: EmbeddingsDataset, rows: Rows) -> NDArray[np.uint64]:
    """Return the digests of the texts in some of the dataset's rows."""
    found = [
        _hashed(batch.table.column("text").combine_chunks(), _TEXT_BYTES)
        for batch in dataset.batches(("text",), rows, _ROWS_AT_ONCE)
    ]
    return _joined(found, _TEXT_BYTES).view(np.uint64)


def _left_out(dataset: EmbeddingsDataset, rows: Rows) -> dict[str, Rows]:
    """Add some of the dataset's rows to those that are left out already, as rows of shards."""
    before = read_deletes(dataset.uri, dataset.manifest)
    found: dict[str, Rows] = {}
    first = 0
    for shard in dataset.manifest.shards:
        out = before.get(shard.name, np.empty(0, np.int64))
        after = first + shard.rows - len(out)
        low, high = np.searchsorted(rows, [first, after])
        live = rows[low:high] - first
        # Row k of those that readers see comes after all rows left out that have at most k seen ones before them.
        stored = live + np.searchsorted(out - np.arange(len(out)), live, side="right")
        if len(out) + len(stored):
            found[shard.name] = np.sort(np.concatenate([out, stored]))
        first = after
    return found


def carried_columns(dataset: EmbeddingsDataset, sources: Sequence[TextSource]) -> tuple[tuple[str, str], ...]:
    """Return the carried columns of a dataset, as (name, type), after a look whether texts fit into them.

    A column that the texts lack will be null.

    Raises:
        DataError: the dataset carries no texts, or the texts have a column that does not fit.
        StorageError: the dataset cannot be read.
    """
    if not dataset.has_column("text"):
        raise DataError(f"{dataset.uri}: the dataset carries no texts to compare with; run without output_incremental")
    schema = dataset.take([], dataset.manifest.columns).schema
    kinds: Mapping[str, pa.DataType] = {field.name: field.type for field in schema if field.name != "text"}
    for source in sources:
        for name, kind_name in source.carried:
            kind, there = type_from_name(kind_name), kinds.get(name)
            if there is None:
                raise DataError(
                    f"{source.uri}: the dataset {dataset.uri} has no column {name!r}; leave it out, or run "
                    "without output_incremental"
                )
            if kind != there and not pa.types.is_null(kind) and not pa.types.is_string(there):
                raise DataError(
                    f"{source.uri}: column {name!r} holds {kind}, in the dataset {dataset.uri} it holds {there}; "
                    "convert it, or run without output_incremental"
                )
    return tuple((name, type_name(kind)) for name, kind in kinds.items())
