"""Where the archive's rows lie: folders by date, hour and model, files by partition and offsets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

STATE_FOLDER: Final = "_archive"
"""Folder in the archive for what is known of its partitions and models; readers pass it over."""

MAX_TOPIC_CHARACTERS: Final = 150
"""Longer names of topics leave no room for offsets in a file's name, which has at most 255 characters."""

_FILE: Final = re.compile(r"part-(.+)-(\d{5,})-(\d{12,})-(\d{12,})-(\d+)\.parquet")
_HOUR: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/model=[^/]+")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9._-]+")
_SHOWN: Final = 60
_HOUR_MS: Final = 3_600_000
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last that a date can tell


@dataclass(frozen=True, slots=True)
class FileName:
    """The name of a file of rows, which says what is in it.

    Attributes:
        topic: the topic that the rows come from.
        partition: the one partition.
        first: offset of the first row.
        last: offset of the last row; rows between that fell into other hours are not there.
        commit: number of the partition's commit that the file was written for: no two files have one name.
    """

    topic: str
    partition: int
    first: int
    last: int
    commit: int

    def __str__(self) -> str:
        return f"part-{self.topic}-{self.partition:05d}-{self.first:012d}-{self.last:012d}-{self.commit}.parquet"

    @classmethod
    def parse(cls, name: str) -> FileName | None:
        """Return what a name says; None where it is none of the archive's."""
        found = _FILE.fullmatch(name)
        return None if found is None else cls(found[1], *map(int, found.groups()[1:]))


def model_folder(model: str, revision: str) -> str:
    """Return the name of the folder for one revision of one model: what can be read of its name, and a digest."""
    shown = _NOT_PLAIN.sub("-", model.rstrip("/").rsplit("/", 1)[-1])[:_SHOWN].strip("-.") or "model"
    return f"{shown}-{hashlib.sha256(f'{model} {revision}'.encode()).hexdigest()[:12]}"


def place_of(time_ms: int, model: str) -> str:
    """Return the folder, within the archive, for rows of one hour.

    Args:
        time_ms: the record's time, milliseconds since 1970 UTC, as :func:`is_datable` accepts it.
        model: as :func:`model_folder` names it.
    """
    time = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"date={time:%Y-%m-%d}/hour={time:%H}/model={model}"


def model_of(place: str) -> str:
    """Return the model's folder in the name of a place."""
    return place.rpartition("/model=")[2]


def is_datable(time_ms: int) -> bool:
    """Say whether a time has a date; Kafka writes -1 for none."""
    return 0 <= time_ms <= _LAST_MS


def hour_end_ms(place: str) -> int:
    """Return when the hour of a place ends, milliseconds since 1970 UTC.

    Raises:
        ValueError: it is no place of the archive.
    """
    found = _HOUR.fullmatch(place)
    if found is None:
        raise ValueError(f"{place!r} is not date=…/hour=…/model=…")
    hour = datetime.fromisoformat(f"{found[1]}T{found[2]}:00:00+00:00")
    return int(hour.timestamp()) * 1000 + _HOUR_MS
