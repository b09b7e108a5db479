"""Where the archive's rows lie: folders by date, hour and model, files by partition and offsets.

The *path* of an hourly dataset is its partition path within the archive, as Hive names it: date=…/hour=…/model=….
Its last folder stands for one revision of one model, which the first of its vectors describes in a file of its own.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from driftline.components.errors import StorageConflict
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value, write_value
from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText

STATE_FOLDER: Final = "_archive"
"""Folder in the archive for the states of its partitions and the descriptions of its models; readers skip it."""

MAX_TOPIC_CHARACTERS: Final = 150
"""Longer topic names leave no room for offsets in a file's name, which has at most 255 characters."""

_FILE: Final = re.compile(r"part-(.+)-(\d{5,})-(\d{12,})-(\d{12,})-(\d+)\.parquet")
_HOUR: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/model=[^/]+")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9._-]+")
_SHOWN: Final = 60
_HOUR_MS: Final = 3_600_000
_LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999, the last that a date can tell
_LENGTH_TOLERANCE: Final = 0.01  # vectors of length 1 that were rounded to 16 bits are off by less


@dataclass(frozen=True, slots=True)
class FileName:
    """The name of a file of rows: where its rows come from.

    Attributes:
        topic: the topic that the rows come from.
        partition: the one partition.
        first: offset of the first row.
        last: offset of the last row; rows between them that belong to other hours are in other files.
        commit: number of the partition's commit that the file was written for, so that no two files have one name.
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
        """Return the parts of a name; None where it is not a name that the archive gives."""
        found = _FILE.fullmatch(name)
        return None if found is None else cls(found[1], *map(int, found.groups()[1:]))


def model_folder(model: str, revision: str) -> str:
    """Return the name of the folder for one revision of one model: the readable part of its name, and a digest."""
    shown = _NOT_PLAIN.sub("-", model.rstrip("/").rsplit("/", 1)[-1])[:_SHOWN].strip("-.") or "model"
    return f"{shown}-{hashlib.sha256(f'{model} {revision}'.encode()).hexdigest()[:12]}"


def hour_path(time_ms: int, model: str) -> str:
    """Return the path of the dataset for one hour and model.

    Args:
        time_ms: the record's time, milliseconds since 1970 UTC, as :func:`is_datable` accepts it.
        model: as :func:`model_folder` names it.
    """
    time = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"date={time:%Y-%m-%d}/hour={time:%H}/model={model}"


def model_of(path: str) -> str:
    """Return the model's folder in a path."""
    return path.rpartition("/model=")[2]


def is_datable(time_ms: int) -> bool:
    """Say whether a time has a date; Kafka writes -1 for none."""
    return 0 <= time_ms <= _LAST_MS


def hour_end_ms(path: str) -> int:
    """Return when the hour of a path ends, milliseconds since 1970 UTC.

    Raises:
        ValueError: it is not the path of an hourly dataset.
    """
    found = _HOUR.fullmatch(path)
    if found is None:
        raise ValueError(f"{path!r} is not date=…/hour=…/model=…")
    hour = datetime.fromisoformat(f"{found[1]}T{found[2]}:00:00+00:00")
    return int(hour.timestamp()) * 1000 + _HOUR_MS


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What all vectors of one revision of a model have in common.

    Attributes:
        model: its name.
        revision: identity of its content and settings.
        dimension: numbers in a vector.
        normalized: whether every vector has length 1.
    """

    model: str
    revision: str
    dimension: int
    normalized: bool


class Models:
    """The descriptions of an archive's models, the same for all of its workers.

    Args:
        out: the archive's folder.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._known: dict[str, ModelDescription] = {}
        self._folders: dict[tuple[str, str], str] = {}

    def folder(self, embedded: EmbeddedText) -> str:
        """Return the name of the folder for a vector's model, after a check that the vector fits the model.

        Raises:
            PoisonError: ``dimension`` or ``not-normalized``: it differs from the model's other vectors.
            StorageError: the description cannot be read or written.
        """
        name = (embedded.model, embedded.revision)
        folder = self._folders.setdefault(name, model_folder(*name))
        normalized = abs(float(np.linalg.norm(embedded.vector)) - 1.0) <= _LENGTH_TOLERANCE
        known = self._known.get(folder)
        if known is None:
            known = self._described(folder, ModelDescription(*name, len(embedded.vector), normalized))
        if len(embedded.vector) != known.dimension:
            raise PoisonError(
                "dimension",
                f"embedding of {embedded.id[:60]!r}: has {len(embedded.vector)} numbers; other vectors of "
                f"{known.model}, revision {known.revision}, have {known.dimension}",
            )
        if known.normalized and not normalized:
            raise PoisonError(
                "not-normalized",
                f"embedding of {embedded.id[:60]!r}: the vector's length is not 1; other vectors of {known.model}, "
                f"revision {known.revision}, have length 1",
            )
        return folder

    def describe(self, folder: str) -> ModelDescription:
        """Return the description of the model of a folder that has rows.

        Raises:
            DataError: it is damaged.
            StorageError: it cannot be read.
        """
        if folder not in self._known:
            self._known[folder] = read_value(self._file(folder), ModelDescription)
        return self._known[folder]

    def _described(self, folder: str, first: ModelDescription) -> ModelDescription:
        """Describe a model by the first of its vectors, unless it is described already."""
        file = self._file(folder)
        if not store.exists(file):
            with suppress(StorageConflict):  # another worker was first, and its description counts
                write_value(file, first, over=None)
        return self.describe(folder)

    def _file(self, folder: str) -> str:
        return store.join(self._out, STATE_FOLDER, "models", f"{folder}.json")
