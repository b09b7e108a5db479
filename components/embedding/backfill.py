"""The backfill's plan: which rows of which texts go into which shard, and what makes a finished shard still right."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from driftline.components.errors import UsageError
from driftline.components.storage.texts import TextColumns, TextSource

ROWS_PER_SHARD: Final = 50_000
"""At 384 dimensions in float32, 77 MB: large enough to read fast, small enough to lose little when a task is killed."""

DType = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of rows of one source: its place in the plan's sources, its first row and how many."""

    source: int
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What every task of a backfill needs to know.

    Attributes:
        out: the embeddings dataset to write.
        model: folder, gs:// prefix or name of the model.
        model_name: its name in the manifest.
        revision: identity of its content, with the prompt where one is set.
        prompt: name of the model's prompt, empty for its default.
        dtype: of the vectors.
        columns: the texts' columns.
        sources: the texts, file by file.
        shards: the slices of each shard, in the order of the sources.
        tasks: tasks that share the shards.
        seconds: how long planning took.
    """

    out: str
    model: str
    model_name: str
    revision: str
    prompt: str
    dtype: DType
    columns: TextColumns
    sources: tuple[TextSource, ...]
    shards: tuple[tuple[Slice, ...], ...]
    tasks: int
    seconds: float

    @property
    def rows(self) -> int:
        """Texts in all."""
        return sum(source.rows for source in self.sources)

    def share(self, task: int) -> range:
        """Return the numbers of a task's shards."""
        return range(task, len(self.shards), self.tasks)

    def shard_name(self, shard: int) -> str:
        """Return a shard's file name, which follows from its place."""
        return f"part-{shard:05d}.parquet"

    def shard_rows(self, shard: int) -> int:
        """Return the number of texts in a shard."""
        return sum(piece.rows for piece in self.shards[shard])

    def shard_key(self, shard: int) -> str:
        """Return the identity of everything that decides a shard's content: texts, columns, model, settings."""
        parts = [
            (self.sources[piece.source].crc32c, self.sources[piece.source].bytes, piece) for piece in self.shards[shard]
        ]
        content = [
            [crc, size, piece.start, piece.rows, self.sources[piece.source].format] for crc, size, piece in parts
        ]
        settings = [dataclasses.asdict(self.columns), self.model_name, self.revision, self.dtype]
        carried = [list(field) for source in self.sources for field in source.carried]
        canonical = json.dumps([content, settings, carried], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def cut(rows: Sequence[int], rows_per_shard: int) -> tuple[tuple[Slice, ...], ...]:
    """Cut sources of so many rows into shards of ``rows_per_shard`` rows, the last one shorter, keeping their order.

    Raises:
        UsageError: fewer than one row a shard.
    """
    if rows_per_shard < 1:
        raise UsageError(f"rows per shard: expected at least 1, got {rows_per_shard}")
    shards: list[tuple[Slice, ...]] = []
    open_shard: list[Slice] = []
    room = rows_per_shard
    for source, count in enumerate(rows):
        start = 0
        while start < count:
            taken = min(room, count - start)
            open_shard.append(Slice(source, start, taken))
            start += taken
            room -= taken
            if room == 0:
                shards.append(tuple(open_shard))
                open_shard, room = [], rows_per_shard
    if open_shard:
        shards.append(tuple(open_shard))
    return tuple(shards)


def with_prompt(revision: str, prompt: str) -> str:
    """Return the revision of vectors: the model's and, as it changes them, the prompt's name where one is set."""
    return f"{revision};prompt={prompt}" if prompt else revision
