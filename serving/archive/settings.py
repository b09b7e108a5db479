"""What an archive is told once, when it starts."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Annotated, Final

from driftline.components.errors import UsageError
from driftline.components.settings import Setting, check_settings
from driftline.serving.archive.layout import MAX_TOPIC_CHARACTERS
from driftline.serving.kafka.settings import InstanceId

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileLimits:
    """When rows become a file. 128 MiB hold half a million vectors of 64 numbers, or 80,000 of 384."""

    max_delay_s: Annotated[
        float, Setting("Age in seconds at which rows are written, however few they are", least=0, metavar="S")
    ] = 60.0
    rows: Annotated[int, Setting("Rows in a file at most", least=1, option="rows-per-file")] = 50_000
    bytes: Annotated[
        int,
        Setting(
            "Memory at which a partition's rows are written", least=1, option="file-mib", unit=MEBIBYTE, metavar="MIB"
        ),
    ] = 128 * MEBIBYTE
    buffered_bytes: Annotated[
        int,
        Setting(
            "Memory of all rows that wait to be written; beyond, those of the largest partition are",
            least=1,
            option="buffer-mib",
            unit=MEBIBYTE,
            metavar="MIB",
        ),
    ] = 512 * MEBIBYTE

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)


@dataclass(frozen=True, slots=True)
class MaintenanceRules:
    """When small files become large ones, and when nobody can need the old ones any more.

    Attributes:
        compact_files: so many files of a partition in one hour are merged before it ends.
    """

    compact_after_s: Annotated[
        float,
        Setting(
            "Seconds without a change after which the files of an hour that is over are merged", least=0, metavar="S"
        ),
    ] = 600.0
    compact_files: int = 32
    vacuum_after_s: Annotated[
        float, Setting("Seconds that replaced files stay for those who are reading them", least=0, metavar="S")
    ] = 3600.0
    purge_after_s: Annotated[
        float,
        Setting(
            "Days after which deleted rows are gone from the files too, where merging has not done so before",
            least=0,
            option="purge-after-days",
            unit=86_400,
            metavar="D",
        ),
    ] = 7 * 86_400.0

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)
        if self.compact_files < 2:
            raise UsageError(f"compact_files: expected at least 2 files, got {self.compact_files}")


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What to archive, and where.

    Attributes:
        files: when rows become a file.
        maintenance: when files are merged, and removed.

    Raises:
        UsageError: a topic's name that cannot be, or cannot become part of a file's.
    """

    topic: Annotated[str, Setting("Topic of embeddings, as the stream worker writes it", metavar="TOPIC")]
    out: Annotated[str, Setting("Folder of the embeddings datasets to write, gs:// or local", metavar="ARCHIVE")]
    group: Annotated[str, Setting("Consumer group whose members share the partitions", metavar="GROUP")] = (
        "driftline-archive"
    )
    instance_id: InstanceId = field(default_factory=socket.gethostname)
    index_folder: Annotated[
        str,
        Setting(
            "Local folder that remembers where each id is, 60 bytes a row",
            "made anew at each start",
            option="index-dir",
            metavar="DIR",
        ),
    ] = ""
    files: FileLimits = FileLimits()
    maintenance: MaintenanceRules = MaintenanceRules()

    def __post_init__(self) -> None:
        if not 1 <= len(self.topic) <= MAX_TOPIC_CHARACTERS or "/" in self.topic:
            raise UsageError(
                f"topic {self.topic[:60]!r}: has {len(self.topic)} characters; expected a topic's name of 1 to "
                f"{MAX_TOPIC_CHARACTERS}, which becomes part of files' names"
            )
