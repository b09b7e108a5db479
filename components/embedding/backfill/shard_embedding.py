"""Embeds one shard: chunk by chunk, each kept as soon as it is done, then the whole written at once."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa

from driftline.components.embedding.backfill.chunks import ChunkFolder, EncodedChunk, rows_of
from driftline.components.embedding.backfill.deduplication import Chunk, DistinctTexts
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import Encoded, ShardReport
from driftline.components.embedding.backfill.row_progress import RowProgress
from driftline.components.embedding.backfill.shard_texts import ShardTexts
from driftline.components.embedding.backfill.wanted import Wanted
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.errors import DataError, StorageConflict
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.reader import finished_shard, write_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import FileInfo
from driftline.components.storage.objects.values import write_value


class ShardEmbedding:
    """One shard on its way into the dataset.

    Memory: the vectors of the shard's distinct texts, 128 MiB of its rows, and the texts of two chunks.

    Args:
        known: the plan.
        number: the shard's.
        encoder: the model.
        wanted: which of the kept texts are taken, in an incremental run.
        progress: told of every chunk.
        seen: what was in the shard's place when it was found unfinished. Only that is written over: a task that sleeps
            while others finish the run must not undo their work.
    """

    def __init__(
        self,
        known: BackfillPlan,
        number: int,
        encoder: Encoder,
        wanted: Wanted | None,
        progress: RowProgress,
        seen: FileInfo | None,
    ) -> None:
        self._known = known
        self._number = number
        self._encoder = encoder
        self._progress = progress
        self._name = known.shard_name(number)
        self._key = known.shard_key(number)
        self._uri = store.join(known.out, self._name)
        self._seen = seen
        self._chunks = ChunkFolder(known.work_place(self._key), encoder.dimension, known.dtype)
        self._rows = ShardTexts(known, number, wanted)
        self._texts = DistinctTexts()

    def run(self) -> ShardReport:
        """Embed what is not embedded yet, write the shard, and remove its chunks.

        Where another task has finished the very same shard meanwhile, that one is taken.

        Raises:
            DataError: the texts are not those that were planned, or another run has written another shard there.
            StorageError: something cannot be read or written.
        """
        try:
            done = self._encoded()
            shard = self._written(done)
        except StorageConflict:
            self._chunks.remove()
            return self._taken_over()
        encoded = Encoded(
            texts=shard.rows,
            distinct=len(self._texts),
            tokens=sum(chunk.tokens for chunk in done),
            truncated=sum(chunk.truncated for chunk in done),
        )
        report = self._report(shard, encoded)
        # Before the chunks go: with its record the shard is known to be whole, whoever asks.
        write_value(record_place(self._known, self._key), report)
        self._chunks.remove()
        return report

    def _encoded(self) -> list[EncodedChunk]:
        """Return all chunks in order; those that are not there yet are encoded and kept, one at a time."""
        done: dict[int, EncodedChunk] = {}
        waiting: deque[Chunk] = deque()
        counted = 0

        def unfinished() -> Iterator[Sequence[str]]:  # run one chunk ahead, in the encoder's thread
            nonlocal counted
            for chunk in self._texts.chunks(batch.column("text").to_pylist() for batch in self._rows.batches()):
                counted += chunk.rows
                there = self._chunks.read(chunk)
                if there is None:
                    self._progress.begin()
                    waiting.append(chunk)
                    yield chunk.texts
                else:
                    done[chunk.number] = there
                    self._progress.keep(chunk.rows)

        # Closed at once where another task is ahead, so that its thread reads no more.
        with closing(self._encoder.encode_chunks(unfinished())) as encodings:
            for encoding in encodings:
                chunk = waiting.popleft()
                if version(self._uri) != self._seen:
                    raise StorageConflict(f"{self._uri}: another task has written the shard meanwhile")
                encoded = EncodedChunk(encoding.vectors, encoding.tokens, encoding.truncated)
                done[chunk.number] = self._chunks.keep(chunk, encoded)
                self._progress.embed(chunk.rows)
        # Rows after the last chunk's end repeat earlier texts.
        self._progress.keep(self._known.shards[self._number].texts - counted)
        return [done[number] for number in sorted(done)]

    def _written(self, done: list[EncodedChunk]) -> Shard:
        return write_shard(
            self._known.out,
            self._name,
            self._assembled(done),
            dimension=self._encoder.dimension,
            dtype=self._known.dtype,
            key=self._key,
            over=self._seen,
        )

    def _assembled(self, done: list[EncodedChunk]) -> Iterator[pa.RecordBatch]:
        """Yield the shard's rows beside their vectors."""
        starts = np.cumsum([0, *(len(chunk.vectors) for chunk in done[:-1])], dtype=np.int64)
        for batch in self._rows.batches():
            numbers = self._texts.numbers(batch.column("text").to_pylist())
            if numbers.min() < 0:
                raise DataError(
                    f"{self._uri}: its texts changed while they were embedded; let nothing write to the texts, and "
                    "run the backfill again"
                )
            vectors = rows_of(done, starts, numbers)
            embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
            columns = {"id": batch.column("id"), "embedding": embeddings}
            columns |= {name: batch.column(name) for name in batch.schema.names if name != "id"}
            yield pa.record_batch(columns)

    def _taken_over(self) -> ShardReport:
        shard = finished_shard(self._known.out, self._name, self._key)
        if shard is None:
            raise DataError(
                f"{self._uri}: another run wrote there meanwhile, from other texts, another model or other settings; "
                "let one run at a time write to a dataset, and run the backfill again"
            )
        self._progress.keep(0)
        return self._report(shard, None)

    def _report(self, shard: Shard, encoded: Encoded | None) -> ShardReport:
        return ShardReport(shard, self._encoder.dimension, self._encoder.normalized, encoded)


def version(uri: str) -> FileInfo | None:
    """Describe what is at a place now, in one look; None where no file is."""
    found = store.list_files(uri)
    return found[0] if len(found) == 1 and found[0].uri.endswith(uri.rsplit("/", 1)[-1]) else None


def record_place(known: BackfillPlan, key: str) -> str:
    """Return where a finished shard's record is kept until the run has finished."""
    return known.work_place(f"{key}.json")
