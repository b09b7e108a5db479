"""The backfill's plan: which texts go into which shard, which task embeds it, and what makes a shard still right."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from driftline.components.embedding.backfill.cutting import (
    ShardWork,
    balance,
)
from driftline.components.embedding.backfill.settings import BackfillSettings, DType
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest, Shard
from driftline.components.storage.objects.store import FileInfo, join
from driftline.components.storage.texts.arrow_types import type_from_name
from driftline.components.storage.texts.reading import TextPiece, TextSource
from driftline.components.storage.texts.rows import TextColumns
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import TextSelection

WORK_FOLDER: Final = "_work"
"""Folder beside the shards for what a run needs until it has finished: chunks, records of shards."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The dataset that an incremental run adds to.

    Attributes:
        manifest: what it held when the run was planned.
        seen: the manifest's file: only over this very version will the run write its own.
        deletes: the rows that readers shall leave out when the run has finished; None where there are none.
        replaced: rows left out from now on since their texts changed.
        removed: rows left out from now on since the input holds their ids with a null text.
        unknown: ids with a null text that the dataset does not have.
    """

    manifest: Manifest
    seen: FileInfo
    deletes: Shard | None
    replaced: int
    removed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """A whole backfill, as every task needs to know it.

    Its JSON has a few hundred bytes for each shard and each file, whatever the number of rows.

    Attributes:
        settings: what was asked for, checked.
        out: the embeddings dataset to write, its placeholders filled in.
        model: folder, gs:// prefix or name of the model.
        model_name: its name in the manifest.
        revision: identity of the model's content, with that of the encoder's settings where they change vectors.
        selection: the rows of the texts that are taken, in absolute times.
        sources: the texts, file by file, their pieces merged to those that begin where a slice does.
        carried: names and types of the dataset's carried columns, besides the text.
        shards: the texts of each shard, in the order of the sources.
        tasks: tasks that share the shards.
        first: number of the first shard in the dataset.
        previous: the dataset that the run adds to; None where it writes a whole one.
        changed: file that says which texts are new or changed, in an incremental run; empty otherwise.
        run: a name for the run that no other has.
        seconds: how long planning took.
    """

    settings: BackfillSettings
    out: str
    model: str
    model_name: str
    revision: str
    selection: TextSelection
    sources: tuple[TextSource, ...]
    carried: tuple[tuple[str, str], ...] = ()
    shards: tuple[ShardWork, ...] = ()
    tasks: int = 1
    first: int = 0
    previous: Previous | None = None
    changed: str = ""
    run: str = ""
    seconds: float = 0.0

    @property
    def encoder(self) -> EncoderSettings:
        """The settings that decide the vectors."""
        return self.settings.encoder

    @property
    def dtype(self) -> DType:
        """Number type of the stored vectors."""
        return self.settings.output_dtype

    @property
    def columns(self) -> TextColumns:
        """The texts' columns."""
        return self.settings.columns

    @property
    def texts(self) -> int:
        """Texts of all shards together: the rows that the run writes."""
        return sum(work.texts for work in self.shards)

    @property
    def counts(self) -> TextCounts:
        """Counts of the rows of all sources, by what the rules and the selection made of them."""
        return sum((source.counts for source in self.sources), TextCounts())

    @property
    def schema(self) -> pa.Schema:
        """The carried columns, besides the text."""
        return pa.schema([pa.field(name, type_from_name(kind)) for name, kind in self.carried])

    def shares(self) -> tuple[tuple[int, ...], ...]:
        """Return the numbers of each task's shards, shared so that each has about as many bytes of text."""
        return balance([work.bytes for work in self.shards], self.tasks)

    def shard_name(self, shard: int) -> str:
        """Return a shard's file name, which follows from its place and, where it is added, from its content.

        So no shard that is there is ever written over by an incremental run, whoever else adds to the dataset.
        """
        place = f"part-{self.first + shard:05d}"
        return f"{place}.parquet" if self.previous is None else f"{place}-{self.shard_key(shard)[:12]}.parquet"

    def shard_key(self, shard: int) -> str:
        """Return the identity of everything that decides a shard's content: texts, columns, model, settings."""
        work = self.shards[shard]
        content = [
            [source.crc32c, source.bytes, source.format, piece.start, piece.rows, piece.skip, piece.texts]
            for piece in work.slices
            for source in [self.sources[piece.source]]
        ]
        settings = [
            dataclasses.asdict(self.columns),
            dataclasses.asdict(self.selection),
            self.carried,
            self.model_name,
            self.revision,
            self.encoder.identity(),
            self.dtype,
        ]
        canonical = json.dumps([content, work.changed, settings], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def manifest_uri(self) -> str:
        """URI of the dataset's manifest, whether it is there yet or not."""
        return join(self.out, MANIFEST_NAME)

    @property
    def withdrawn_uri(self) -> str:
        """URI of the manifest of a dataset that this run replaces, put aside."""
        return self.work_uri(MANIFEST_NAME)

    def report_uri(self, task: int) -> str:
        """Return the URI of a task's report to the last step."""
        return self.work_uri("reports", f"{self.run}-{task:05d}.json")

    def record_uri(self, key: str) -> str:
        """Return the URI of a finished shard's record, kept until the run has finished."""
        return self.work_uri(f"{key}.json")

    def work_uri(self, *parts: str) -> str:
        """Return the URI of something in the work folder."""
        return join(self.out, WORK_FOLDER, *parts)


def merged_pieces(source: TextSource, starts: Sequence[int]) -> TextSource:
    """Return a source with its pieces merged to those that begin at its first row and at `starts`.

    Args:
        source: as scanned.
        starts: rows at which pieces begin.
    """
    cuts = set(starts)
    merged: list[TextPiece] = []
    for piece in source.pieces:
        if not merged or piece.start in cuts:
            merged.append(piece)
        else:
            last = merged[-1]
            merged[-1] = dataclasses.replace(
                last, rows=last.rows + piece.rows, texts=last.texts + piece.texts, bytes=last.bytes + piece.bytes
            )
    return dataclasses.replace(source, pieces=tuple(merged))
