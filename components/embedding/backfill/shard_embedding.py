"""Embeds one shard: chunk by chunk, each kept as soon as it is done, then the whole written at once."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pyarrow as pa

from driftline.components.embedding.backfill.chunks import Chunk, ChunkFolder, DistinctTexts, EncodedChunk, rows_of
from driftline.components.embedding.backfill.incremental import ChangedTexts
from driftline.components.embedding.backfill.plan import BackfillPlan
from driftline.components.embedding.backfill.reports import Encoded, ShardReport
from driftline.components.embedding.backfill.shard_texts import ShardTexts
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.errors import DataError, StorageConflict
from driftline.components.steps import StepClock
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.shards import finished_shard
from driftline.components.storage.dataset.writer import write_shard
from driftline.components.storage.objects import store
from driftline.components.storage.objects.store import FileInfo
from driftline.components.storage.objects.values import write_value


class RowProgress:
    """The rows of a task's share that are done, logged as they are.

    Args:
        clock: the task's.
        rows: all rows of the share.

    Attributes:
        embedded: rows that this task embedded.
    """

    def __init__(self, clock: StepClock, rows: int) -> None:
        self._clock = clock
        self._rows = rows
        self._kept = 0
        self.embedded = 0

    def begin(self) -> None:
        """Measure the rate from now on: encoding begins. The first time counts."""
        self._clock.begin_rate()

    def keep(self, rows: int) -> None:
        """Count rows that need no encoding."""
        self._kept += rows
        self._log()

    def embed(self, rows: int) -> None:
        """Count rows that were embedded just now."""
        self.embedded += rows
        self._log()

    def _log(self) -> None:
        self._clock.progress(self._kept + self.embedded, self._rows, "texts", resumed=self._kept)


class ShardEmbedding:
    """One shard on its way into the dataset.

    Memory: the vectors of the shard's distinct texts, 128 MiB of its rows, and the texts of two chunks.

    Args:
        plan: the plan.
        number: the shard's.
        encoder: the model.
        changed: which of the kept texts are taken, in an incremental run.
        progress: counts every chunk.
        seen: what was in the shard's place when it was found unfinished. Only that is written over: a task that sleeps
            while others finish the run must not undo their work.
    """

    def __init__(
        self,
        plan: BackfillPlan,
        number: int,
        encoder: Encoder,
        changed: ChangedTexts | None,
        progress: RowProgress,
        seen: FileInfo | None,
    ) -> None:
        self._plan = plan
        self._number = number
        self._encoder = encoder
        self._progress = progress
        self._name = plan.shard_name(number)
        self._key = plan.shard_key(number)
        self._uri = store.join(plan.out, self._name)
        self._seen = seen
        self._chunks = ChunkFolder(plan.work_uri(self._key), encoder.dimension, plan.dtype)
        self._rows = ShardTexts(plan, number, changed)
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
        write_value(self._plan.record_uri(self._key), report)
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
                if store.find(self._uri) != self._seen:
                    raise StorageConflict(f"{self._uri}: another task has written the shard meanwhile")
                encoded = EncodedChunk(encoding.vectors, encoding.tokens, encoding.truncated)
                done[chunk.number] = self._chunks.keep(chunk, encoded)
                self._progress.embed(chunk.rows)
        # Rows after the last chunk's end repeat earlier texts.
        self._progress.keep(self._plan.shards[self._number].texts - counted)
        return [done[number] for number in sorted(done)]

    def _written(self, done: list[EncodedChunk]) -> Shard:
        return write_shard(
            self._plan.out,
            self._name,
            self._assembled(done),
            dimension=self._encoder.dimension,
            dtype=self._plan.dtype,
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
        shard = finished_shard(self._plan.out, self._name, self._key)
        if shard is None:
            raise DataError(
                f"{self._uri}: another run wrote there meanwhile, from other texts, another model or other settings; "
                "let one run at a time write to a dataset, and run the backfill again"
            )
        self._progress.keep(0)
        return self._report(shard, None)

    def _report(self, shard: Shard, encoded: Encoded | None) -> ShardReport:
        return ShardReport(shard, self._encoder.dimension, self._encoder.normalized, encoded)
