"""One partition's share of the archive: taken over, written commit by commit, tidied."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.reader import write_shard
from driftline.components.storage.objects import store
from driftline.serving.archive.compaction import key_of, merged
from driftline.serving.archive.events import Row, Tombstone
from driftline.serving.archive.hourly_manifests import Hours
from driftline.serving.archive.index import IdIndex, Superseded
from driftline.serving.archive.layout import FileName, hour_end_ms, model_of, place_of
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.models import Models
from driftline.serving.archive.pending import Pending, PlacedRow, record_batch
from driftline.serving.archive.rows import archived_rows
from driftline.serving.archive.settings import ArchiveSettings
from driftline.serving.archive.state import Garbage, PartitionState, PlaceChange, StateFile, Untidy

LOGGER: Final = logging.getLogger("driftline.archive")

T = TypeVar("T")
R = TypeVar("R")


class PartitionArchive:
    """A partition whose owner this worker is. Any error leaves it unusable: open it again, and go on from there.

    Attributes:
        topic: its topic.
        partition: its number.
        pending: what was read and is not archived yet.
    """

    def __init__(
        self,
        settings: ArchiveSettings,
        models: Models,
        index: IdIndex,
        file: StateFile,
        metrics: ArchiveMetrics,
        pool: Executor,
    ) -> None:
        self.topic = file.state.topic
        self.partition = file.state.partition
        self.pending = Pending(file.state.next_offset)
        self._settings = settings
        self._models = models
        self._index = index
        self._file = file
        self._metrics = metrics
        self._pool = pool
        self._hours = Hours(settings.out, self.topic, self.partition, models)
        self._unneeded: list[Garbage] = []  # since the last commit
        self._files: Counter[str] = Counter()  # written into each place since its files were merged

    @classmethod
    def open(
        cls,
        settings: ArchiveSettings,
        partition: int,
        models: Models,
        index_folder: Path,
        metrics: ArchiveMetrics,
        pool: Executor,
        now_ms: int,
    ) -> PartitionArchive:
        """Become the partition's owner: finish its last commit, and know where each of its ids is.

        Args:
            settings: of the archive.
            partition: its number.
            models: what is known of the models.
            index_folder: where the index of ids is, or will be.
            metrics: to count on.
            pool: threads that wait for storage.
            now_ms: the clock, milliseconds since 1970 UTC.

        Raises:
            FencedError: others take it over again and again.
            DataError: something in the archive is damaged.
            StorageError: something cannot be read or written.
        """
        file, before = StateFile.take_over(settings.out, settings.topic, partition)
        index = IdIndex(index_folder / f"{settings.topic}-{partition:05d}.sqlite")
        try:
            self = cls(settings, models, index, file, metrics, pool)
            self._make_changes(now_ms)
            word = _word(settings.out, file.state)
            if before is not None and index.standing == _word(settings.out, before):
                index.stand(word)
            elif before is None:
                index.rebuild((), word)
            else:
                index.rebuild(archived_rows(settings.out, self._hours, pool), word)
        except BaseException:
            index.close()
            raise
        return self

    def close(self) -> None:
        """Let go of local files; what is pending is forgotten, and read again by whoever opens the partition next."""
        self._index.close()

    @property
    def archived_offset(self) -> int:
        """The offset behind everything that is archived, or was found to be no record."""
        return self._file.state.next_offset if self.pending.since_s is not None else self.pending.next_offset

    def is_owned(self) -> bool:
        """Say whether nobody has taken the partition over since the last commit."""
        return self._file.is_current()

    def add(self, event: Row | Tombstone, now_ms: int) -> None:
        """Take an event in, to be written later.

        Raises:
            PoisonError: its vector is not like the other ones of its model.
            StorageError: what is known of the model cannot be read or written.
        """
        if isinstance(event, Tombstone):
            self.pending.add(event)
            return
        place = place_of(event.time_ms, self._models.folder(event.embedded))
        self.pending.add(PlacedRow(place, event))
        self._metrics.doubtful_times.inc(event.doubtful_time)
        self._metrics.late_rows.inc(now_ms > hour_end_ms(place) + self._settings.tidy.settle_s * 1000)

    def write(self, now_ms: int) -> None:
        """Archive what is pending: one commit.

        Raises:
            FencedError: somebody else has taken the partition over; nothing was archived.
            DataError: something in the archive is damaged.
            StorageError: it is not known whether it was archived; opening the partition again tells.
        """
        pending, state = self.pending, self._file.state
        if pending.since_s is None:
            return
        places = pending.by_place()
        files = self._each(lambda entry: self._write_file(*entry, state.commit + 1), places.items())
        added = dict(zip(places, files, strict=True))
        superseded = self._index.superseded(pending.events)
        deleted = superseded.deleted
        touched = sorted({*places, *deleted})
        changes = tuple(
            PlaceChange(place, (added[place],) if place in added else (), deleted=tuple(sorted(deleted.get(place, ()))))
            for place in touched
        )
        untidy = {entry.place: entry for entry in state.untidy}
        for place in touched:
            since_ms = untidy[place].since_ms if place in untidy else now_ms
            untidy[place] = Untidy(place, now_ms, since_ms)
        self._commit(
            pending.next_offset, changes, untidy=tuple(untidy.values()), garbage=state.garbage, superseded=superseded
        )
        self._make_changes(now_ms)
        self._files.update(places.keys())
        self._metrics.files.inc(len(files))
        self._metrics.bytes.inc(sum(shard.bytes for shard in files))
        self._metrics.rows.inc(sum(shard.rows for shard in files))
        self._metrics.deletes.inc(sum(map(len, deleted.values())))
        self.pending = Pending(pending.next_offset)

    def tidy(self, now_ms: int) -> bool:
        """Merge the small files of one place that is due, or else remove what nobody needs any more: one commit.

        Returns:
            Whether there was anything to do.

        Raises:
            FencedError: somebody else has taken the partition over; nothing was changed.
            StorageError: it is not known what was changed; opening the partition again tells.
        """
        state = self._file.state
        due = next((entry for entry in state.untidy if self._is_due(entry, now_ms)), None)
        if due is not None:
            self._merge_place(due, now_ms)
            return True
        old = [entry for entry in state.garbage if now_ms - entry.since_ms >= self._settings.tidy.grace_s * 1000]
        if old:
            named = {file for files in self._each(self._named, {entry.place for entry in old}) for file in files}
            self._file.check_owned()
            self._each(
                lambda file: store.remove(store.join(self._settings.out, file)),
                [entry.file for entry in old if entry.file not in named],
            )
            self._commit(state.next_offset, garbage=tuple(entry for entry in state.garbage if entry not in old))
        return bool(old)

    def _is_settled(self, entry: Untidy, now_ms: int) -> bool:
        return now_ms >= max(entry.touched_ms, hour_end_ms(entry.place)) + self._settings.tidy.settle_s * 1000

    def _is_to_purge(self, entry: Untidy, now_ms: int) -> bool:
        return now_ms >= max(entry.since_ms, hour_end_ms(entry.place)) + self._settings.tidy.purge_s * 1000

    def _is_due(self, entry: Untidy, now_ms: int) -> bool:
        if self._files[entry.place] >= self._settings.tidy.files or self._is_to_purge(entry, now_ms):
            return True
        return not entry.waits and self._is_settled(entry, now_ms)

    def _merge_place(self, due: Untidy, now_ms: int) -> None:
        state, purge = self._file.state, self._is_to_purge(due, now_ms)
        garbage = {entry.file.rpartition("/")[2] for entry in state.garbage if entry.file.startswith(f"{due.place}/")}
        try:
            change, left, orphans = merged(
                self._hours, due.place, self._settings.files, state.commit + 1, garbage, purge=purge
            )
        except DataError:
            # Readers are told of a damaged file as well; the archive goes on.
            LOGGER.exception("%s: cannot be merged", self._hours.folder(due.place))
            self._metrics.failures.labels("merge").inc()
            change, left, orphans = PlaceChange(due.place), 0, []
        untidy = [entry for entry in state.untidy if entry.place != due.place]
        if not purge and (left or not self._is_settled(due, now_ms)):
            untidy.append(dataclasses.replace(due, waits=self._is_settled(due, now_ms)))
        replaced = tuple(Garbage(f"{due.place}/{name}", now_ms) for name in change.removed)
        changes = (change,) if change.removed else ()
        self._commit(state.next_offset, changes, untidy=tuple(untidy), garbage=(*state.garbage, *replaced))
        self._make_changes(now_ms)
        self._files[due.place] = 0
        self._metrics.merges.inc(len(change.added))
        self._metrics.files.inc(len(change.added))
        for name in orphans:
            store.remove(store.join(self._hours.folder(due.place), name))

    def _named(self, place: str) -> list[str]:
        manifest = self._hours.manifest(place)
        if manifest is None:
            return []
        deletes = () if manifest.deletes is None else (manifest.deletes,)
        return [f"{place}/{shard.name}" for shard in (*manifest.shards, *deletes)]

    def _write_file(self, place: str, rows: list[Row], commit: int) -> Shard:
        name = FileName(self.topic, self.partition, rows[0].offset, rows[-1].offset, commit)
        model = self._models.describe(model_of(place))
        shard = write_shard(
            self._hours.folder(place),
            str(name),
            [record_batch(rows, self.topic, self.partition)],
            dimension=model.dimension,
            dtype="float32",
            key=key_of(name),
        )
        self._hours.remember(place, shard, np.array([row.offset for row in rows], np.int64))
        return shard

    def _commit(
        self,
        next_offset: int,
        changes: tuple[PlaceChange, ...] = (),
        *,
        untidy: tuple[Untidy, ...] | None = None,
        garbage: tuple[Garbage, ...],
        superseded: Superseded | None = None,
    ) -> None:
        state = self._file.state
        self._file.commit(
            dataclasses.replace(
                state,
                commit=state.commit + 1,
                next_offset=next_offset,
                changes=changes,
                untidy=state.untidy if untidy is None else untidy,
                garbage=(*garbage, *self._unneeded),
            )
        )
        self._unneeded.clear()
        word = _word(self._settings.out, self._file.state)
        if superseded is None:
            self._index.stand(word)
        else:
            self._index.absorb(superseded, word)

    def _make_changes(self, now_ms: int) -> None:
        state = self._file.state

        def make(change: PlaceChange) -> list[str]:
            unneeded = self._hours.apply(change, state.commit, self._file.check_owned)
            return [f"{change.place}/{name}" for name in unneeded]

        for files in self._each(make, state.changes):
            self._unneeded += [Garbage(file, now_ms) for file in files]

    def _each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do something for each item, several at once; raise the first error when all have ended."""
        futures = [self._pool.submit(work, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]


def _word(out: str, state: PartitionState) -> str:
    return f"{out} {state.owner} {state.commit}"
