"""An incremental run's work: which texts are new or changed, which rows of the dataset are to be left out.

Ids and texts are compared by their BLAKE2b digests, of 128 and 64 bits: no dataset is large enough for two to agree by
chance. Memory: 56 bytes for each text of the input at most, and 16 for each row of the dataset that the input names
too; the dataset itself is streamed.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from driftline.components.embedding.backfill.cutting import ShardWork, Slice
from driftline.components.errors import DAMAGED_ARCHIVE, DataError
from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import create, exists, read_bytes
from driftline.components.storage.texts.arrow_types import type_from_name, type_name
from driftline.components.storage.texts.reading import TextSource, read_texts, read_tombstones
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.selection import TextSelection

_ID_BYTES: Final = 16
_TEXT_BYTES: Final = 8
_ROWS_AT_ONCE: Final = 8192

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """The differences between an input and a dataset.

    Attributes:
        changed: for each source whether each of its kept texts is to be embedded: its id is new, or its text changed.
        deletes: for each shard all rows to leave out, those left out before included, ascending.
        replaced: rows to leave out from now on since their texts changed.
        removed: rows to leave out from now on since the input holds their ids with a null text.
        unknown: ids with a null text that the dataset does not have.
    """

    changed: list[NDArray[np.bool_]]
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
    changed = np.ones(kept, np.bool_)
    rows, places = _named(dataset, ids, order)
    removed = rows[places >= kept]
    rows, places = rows[places < kept], places[places < kept]
    same = _texts_of(dataset, rows) == texts[places]
    changed[places[same]] = False
    replaced = rows[~same]
    return Changes(
        changed=np.split(changed, np.cumsum([source.texts for source in sources])[:-1]),
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
    before = read_deletion_vectors(dataset.uri, dataset.manifest)
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


class ChangedTexts:
    """The texts of each source that an incremental run embeds: a bit for each kept text, in one file beside the plan.

    Memory: 8 bytes a changed text.

    Args:
        masks: for each source whether each of its kept texts, in order, is new or changed.
    """

    def __init__(self, masks: Sequence[NDArray[np.bool_]]) -> None:
        self._lengths = [len(mask) for mask in masks]
        self._places: list[NDArray[np.int64]] = [np.flatnonzero(mask) for mask in masks]

    def of(self, piece: Slice) -> NDArray[np.int64]:
        """Return the numbers of a slice's texts among the kept texts of its rows, from 0, ascending."""
        places = self._places[piece.source]
        first = int(np.searchsorted(places, piece.before)) + piece.skip
        return places[first : first + piece.texts] - piece.before

    def counts(self, source: int, kept: Sequence[int]) -> list[int]:
        """Return how many there are in each of consecutive runs of so many kept texts of a source."""
        ends = np.cumsum([0, *kept])
        return np.diff(np.searchsorted(self._places[source], ends)).tolist()

    def marked(self, work: ShardWork) -> ShardWork:
        """Return a shard's work with the identity of its changed texts."""
        return dataclasses.replace(work, changed=self._digest(work))

    def check(self, work: ShardWork, place: str) -> None:
        """Raise DataError unless a shard's changed texts are those that were planned."""
        if self._digest(work) != work.changed:
            raise DataError(f"{place}: is not what was planned; run the backfill again")

    def _digest(self, work: ShardWork) -> str:
        digest = hashlib.sha256()
        for piece in work.slices:
            digest.update(self.of(piece).astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    def write(self, uri: str) -> None:
        """Write the bits to a file."""
        masks: dict[str, NDArray[np.uint8]] = {}
        for number, (places, length) in enumerate(zip(self._places, self._lengths, strict=True)):
            mask = np.zeros(length, np.bool_)
            mask[places] = True
            masks[f"{number:08d}"] = np.packbits(mask)
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **masks)
        with create(uri) as handle:
            handle.write(content.getvalue())

    @classmethod
    def read(cls, uri: str) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: it is gone or damaged.
            StorageError: it cannot be read.
        """
        if not exists(uri):
            raise DataError(f"{uri}: has been removed, as a run that finishes does; run the backfill again")
        try:
            with np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False) as file:
                return cls([np.unpackbits(file[name]).astype(np.bool_) for name in sorted(file.files)])
        except DAMAGED_ARCHIVE as error:
            raise DataError(f"{uri}: is damaged ({error}); run the backfill again") from error


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
