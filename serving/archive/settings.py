"""What an archive is told once, when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from driftline.components.errors import UsageError
from driftline.serving.archive.layout import MAX_TOPIC_CHARACTERS

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileLimits:
    """When rows become a file.

    Attributes:
        max_delay_s: age at which what was read is written, however little it is.
        rows: rows of a partition that are written at once, and rows of a merged file at most.
        bytes: the same in bytes of memory; half a million vectors of 64 numbers, or 80,000 of 384.
        buffered_bytes: of all partitions together; beyond it the largest is written.
    """

    max_delay_s: float = 60.0
    rows: int = 50_000
    bytes: int = 128 * MEBIBYTE
    buffered_bytes: int = 512 * MEBIBYTE

    def __post_init__(self) -> None:
        if self.max_delay_s < 0 or min(self.rows, self.bytes, self.buffered_bytes) < 1:
            raise UsageError(
                f"archive: max-delay {self.max_delay_s:g} s, {self.rows} rows, {self.bytes} bytes, "
                f"{self.buffered_bytes} buffered bytes; expected a delay from 0 on, and at least 1 of each"
            )


@dataclass(frozen=True, slots=True)
class TidyRules:
    """When small files become large ones, and when nobody can need the old ones any more.

    Attributes:
        settle_s: how long after its end, and after its last change, an hour's files are merged.
        files: so many files of a partition in one hour are merged before it ends.
        grace_s: how long replaced files stay for those who opened the dataset before.
        purge_s: how long a row that is left out may stay in a file otherwise worth keeping.
    """

    settle_s: float = 600.0
    files: int = 32
    grace_s: float = 3600.0
    purge_s: float = 7 * 86_400.0

    def __post_init__(self) -> None:
        if min(self.settle_s, self.grace_s, self.purge_s) < 0 or self.files < 2:
            raise UsageError(
                f"archive: settle {self.settle_s:g} s, {self.files} files, grace {self.grace_s:g} s, purge "
                f"{self.purge_s:g} s; expected times from 0 on and at least 2 files"
            )


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What to archive, and where.

    Attributes:
        topic: the embeddings topic.
        out: the archive's folder, local or gs://.
        group: the consumer group whose members share the topic's partitions.
        instance_id: this member's name, which outlives a restart; empty for a new one each time.
        index_folder: local folder that remembers where each id is; empty for a temporary one, made anew at each start.
        files: when rows become a file.
        tidy: when files are merged, and removed.
    """

    topic: str
    out: str
    group: str = "driftline-archive"
    instance_id: str = ""
    index_folder: str = ""
    files: FileLimits = FileLimits()
    tidy: TidyRules = TidyRules()

    def __post_init__(self) -> None:
        if not 1 <= len(self.topic) <= MAX_TOPIC_CHARACTERS or "/" in self.topic:
            raise UsageError(
                f"topic {self.topic[:60]!r}: has {len(self.topic)} characters; expected a topic's name of 1 to "
                f"{MAX_TOPIC_CHARACTERS}, which becomes part of files' names"
            )
