"""One partition's share of the archive: taken over, written commit by commit, compacted, rid of expired files."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from driftline.components.errors import DataError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.dataset.writer import write_shard
from driftline.components.storage.objects import store
from driftline.serving.archive.compaction import compact, key_of
from driftline.serving.archive.hourly_manifests import HourlyManifests
from driftline.serving.archive.index import IdIndex, Superseded, archived_rows
from driftline.serving.archive.layout import FileName, Models, hour_end_ms, hour_path, model_of
from driftline.serving.archive.metrics import ArchiveMetrics
from driftline.serving.archive.rows import PlacedRow, Row, Tombstone, record_batch
from driftline.serving.archive.settings import ArchiveSettings
from driftline.serving.archive.state import CompactionCandidate, ExpiredFile, HourChange, PartitionState, StateFile

LOGGER: Final = logging.getLogger("driftline.archive")

T = TypeVar("T")
R = TypeVar("R")


class Pending:
    """Events of one partition that are read and not archived yet, in the order of their offsets.

    Attributes:
        next_offset: the offset to go on at once they are archived; records without an event count too.
        events: rows and tombstones.
        bytes: memory that they take, approximately.
        since_s: when the first of the records was read, on the reader's clock; None where there is none.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.events: list[PlacedRow | Tombstone] = []
        self.bytes = 0
        self.since_s: float | None = None

    def add(self, event: PlacedRow | Tombstone) -> None:
        """Append an event; :meth:`pass_over` must be called for its record."""
        self.events.append(event)
        self.bytes += event.bytes

    def pass_over(self, offset: int, now_s: float) -> None:
        """Note that a record was read."""
        self.next_offset = offset + 1
        if self.since_s is None:
            self.since_s = now_s

    def by_path(self) -> dict[str, list[Row]]:
        """Return the rows of each hourly dataset, in the order of their offsets."""
        rows: dict[str, list[Row]] = defaultdict(list)
        for event in self.events:
            if isinstance(event, PlacedRow):
                rows[event.path].append(event.row)
        return dict(rows)


class PartitionArchive:
    """A partition that this worker owns. After any error it is unusable: open it again, and go on from there.

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
        self._manifests = HourlyManifests(settings.out, self.topic, self.partition, models)
        self._newly_expired: list[ExpiredFile] = []  # since the last commit
        self._files: Counter[str] = Counter()  # written into each dataset since its last compaction

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
        """Become the partition's owner: apply its last commit, and bring the index of ids up to date.

        Args:
            settings: of the archive.
            partition: its number.
            models: the descriptions of the models.
            index_folder: where the index of ids is, or will be.
            metrics: where to count.
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
            self._apply_changes(now_ms)
            commit_id = _commit_id(settings.out, file.state)
            if before is not None and index.applied_commit == _commit_id(settings.out, before):
                index.mark_applied(commit_id)
            elif before is None:
                index.rebuild((), commit_id)
            else:
                index.rebuild(archived_rows(settings.out, self._manifests, pool), commit_id)
        except BaseException:
            index.close()
            raise
        return self

    def close(self) -> None:
        """Close local files; what is pending is dropped, and read again by the partition's next owner."""
        self._index.close()

    @property
    def archived_offset(self) -> int:
        """The offset behind everything that is archived or needs no archiving."""
        return self._file.state.next_offset if self.pending.since_s is not None else self.pending.next_offset

    def is_owned(self) -> bool:
        """Return whether no other worker has taken the partition over since the last commit."""
        return self._file.is_current()

    def add(self, event: Row | Tombstone, now_ms: int) -> None:
        """Add an event, to be written later.

        Raises:
            PoisonError: its vector differs from the other ones of its model.
            StorageError: the description of the model cannot be read or written.
        """
        if isinstance(event, Tombstone):
            self.pending.add(event)
            return
        path = hour_path(event.time_ms, self._models.folder(event.embedded))
        self.pending.add(PlacedRow(path, event))
        self._metrics.doubtful_times.inc(event.doubtful_time)
        self._metrics.late_rows.inc(now_ms > hour_end_ms(path) + self._settings.maintenance.compact_after_s * 1000)

    def write(self, now_ms: int) -> None:
        """Archive what is pending: one commit.

        Raises:
            FencedError: another worker has taken the partition over; nothing was archived.
            DataError: something in the archive is damaged.
            StorageError: it is not known whether it was archived; opening the partition again finds out.
        """
        pending, state = self.pending, self._file.state
        if pending.since_s is None:
            return
        rows = pending.by_path()
        files = self._each(lambda entry: self._write_file(*entry, state.commit + 1), rows.items())
        added = dict(zip(rows, files, strict=True))
        superseded = self._index.superseded(pending.events)
        deleted = superseded.deleted
        touched = sorted({*rows, *deleted})
        changes = tuple(
            HourChange(path, (added[path],) if path in added else (), deleted=tuple(sorted(deleted.get(path, ()))))
            for path in touched
        )
        candidates = {candidate.path: candidate for candidate in state.candidates}
        for path in touched:
            since_ms = candidates[path].since_ms if path in candidates else now_ms
            candidates[path] = CompactionCandidate(path, now_ms, since_ms)
        self._commit(
            pending.next_offset,
            changes,
            candidates=tuple(candidates.values()),
            expired=state.expired,
            superseded=superseded,
        )
        self._apply_changes(now_ms)
        self._files.update(rows.keys())
        self._metrics.files.inc(len(files))
        self._metrics.bytes.inc(sum(shard.bytes for shard in files))
        self._metrics.rows.inc(sum(shard.rows for shard in files))
        self._metrics.deletes.inc(sum(map(len, deleted.values())))
        self.pending = Pending(pending.next_offset)

    def maintain(self, now_ms: int) -> bool:
        """Compact one dataset that is due, or else remove expired files: one commit.

        Returns:
            Whether there was anything to do.

        Raises:
            FencedError: another worker has taken the partition over; nothing was changed.
            StorageError: it is not known what was changed; opening the partition again finds out.
        """
        due = next((candidate for candidate in self._file.state.candidates if self._is_due(candidate, now_ms)), None)
        if due is not None:
            self._compact(due, now_ms)
            return True
        return self._vacuum(now_ms)

    def _is_quiet(self, candidate: CompactionCandidate, now_ms: int) -> bool:
        wait_s = self._settings.maintenance.compact_after_s
        return now_ms >= max(candidate.touched_ms, hour_end_ms(candidate.path)) + wait_s * 1000

    def _is_to_purge(self, candidate: CompactionCandidate, now_ms: int) -> bool:
        wait_s = self._settings.maintenance.purge_after_s
        return now_ms >= max(candidate.since_ms, hour_end_ms(candidate.path)) + wait_s * 1000

    def _is_due(self, candidate: CompactionCandidate, now_ms: int) -> bool:
        is_full = self._files[candidate.path] >= self._settings.maintenance.compact_files
        if is_full or self._is_to_purge(candidate, now_ms):
            return True
        return not candidate.waits and self._is_quiet(candidate, now_ms)

    def _compact(self, due: CompactionCandidate, now_ms: int) -> None:
        state, purge = self._file.state, self._is_to_purge(due, now_ms)
        known = {file.name for file in state.expired if file.path == due.path}
        try:
            change, left, orphans = compact(
                self._manifests, due.path, self._settings.files, state.commit + 1, known, purge=purge
            )
        except DataError:
            # Readers see that a file is damaged as well; the archive goes on.
            LOGGER.exception("%s: cannot be compacted", self._manifests.folder(due.path))
            self._metrics.failures.labels("compaction").inc()
            change, left, orphans = HourChange(due.path), 0, []
        candidates = [candidate for candidate in state.candidates if candidate.path != due.path]
        if not purge and (left or not self._is_quiet(due, now_ms)):
            candidates.append(dataclasses.replace(due, waits=self._is_quiet(due, now_ms)))
        replaced = tuple(ExpiredFile(f"{due.path}/{name}", now_ms) for name in change.removed)
        changes = (change,) if change.removed else ()
        self._commit(state.next_offset, changes, candidates=tuple(candidates), expired=(*state.expired, *replaced))
        self._apply_changes(now_ms)
        self._files[due.path] = 0
        self._metrics.compactions.inc(len(change.added))
        self._metrics.files.inc(len(change.added))
        for name in orphans:
            store.remove(store.join(self._manifests.folder(due.path), name))

    def _vacuum(self, now_ms: int) -> bool:
        state = self._file.state
        wait_s = self._settings.maintenance.vacuum_after_s
        old = [file for file in state.expired if now_ms - file.since_ms >= wait_s * 1000]
        if not old:
            return False
        named = {name for names in self._each(self._named, {file.path for file in old}) for name in names}
        self._file.check_owned()
        self._each(
            lambda file: store.remove(store.join(self._settings.out, file)),
            [file.file for file in old if file.file not in named],
        )
        self._commit(state.next_offset, expired=tuple(file for file in state.expired if file not in old))
        return True

    def _named(self, path: str) -> list[str]:
        manifest = self._manifests.read(path)
        if manifest is None:
            return []
        deletes = () if manifest.deletes is None else (manifest.deletes,)
        return [f"{path}/{shard.name}" for shard in (*manifest.shards, *deletes)]

    def _write_file(self, path: str, rows: list[Row], commit: int) -> Shard:
        name = FileName(self.topic, self.partition, rows[0].offset, rows[-1].offset, commit)
        model = self._models.describe(model_of(path))
        shard = write_shard(
            self._manifests.folder(path),
            str(name),
            [record_batch(rows, self.topic, self.partition)],
            dimension=model.dimension,
            dtype="float32",
            key=key_of(name),
        )
        self._manifests.remember(path, shard, np.array([row.offset for row in rows], np.int64))
        return shard

    def _commit(
        self,
        next_offset: int,
        changes: tuple[HourChange, ...] = (),
        *,
        candidates: tuple[CompactionCandidate, ...] | None = None,
        expired: tuple[ExpiredFile, ...],
        superseded: Superseded | None = None,
    ) -> None:
        state = self._file.state
        self._file.commit(
            dataclasses.replace(
                state,
                commit=state.commit + 1,
                next_offset=next_offset,
                changes=changes,
                candidates=state.candidates if candidates is None else candidates,
                expired=(*expired, *self._newly_expired),
            )
        )
        self._newly_expired.clear()
        commit_id = _commit_id(self._settings.out, self._file.state)
        if superseded is None:
            self._index.mark_applied(commit_id)
        else:
            self._index.apply(superseded, commit_id)

    def _apply_changes(self, now_ms: int) -> None:
        state = self._file.state

        def apply(change: HourChange) -> list[str]:
            names = self._manifests.apply(change, state.commit, self._file.check_owned)
            return [f"{change.path}/{name}" for name in names]

        for files in self._each(apply, state.changes):
            self._newly_expired += [ExpiredFile(file, now_ms) for file in files]

    def _each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Call a function for each item, several at once; raise the first error after all have ended."""
        futures = [self._pool.submit(work, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]


def _commit_id(out: str, state: PartitionState) -> str:
    return f"{out} {state.owner} {state.commit}"
