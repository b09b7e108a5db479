"""The models whose vectors an archive holds, each described in a file of its own by the first of its vectors."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from driftline.components.errors import StorageConflict
from driftline.components.storage.objects import store
from driftline.components.storage.objects.values import read_value, write_value
from driftline.serving.archive.layout import STATE_FOLDER, model_folder
from driftline.serving.errors import PoisonError
from driftline.serving.records.embeddings import EmbeddedText

_TOLERANCE: Final = 0.01
"""Vectors of length 1 that were rounded to 16 bits are off by less."""


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
    """What is known of the models, for every worker of an archive the same.

    Args:
        out: the archive's folder.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._known: dict[str, ModelDescription] = {}
        self._folders: dict[tuple[str, str], str] = {}

    def folder(self, embedded: EmbeddedText) -> str:
        """Return the name of the folder for a vector's model, after a look whether the vector fits.

        Raises:
            PoisonError: ``dimension`` or ``not-normalized``: it is not like the model's other vectors.
            StorageError: what is known of the model cannot be read or written.
        """
        name = (embedded.model, embedded.revision)
        folder = self._folders.setdefault(name, model_folder(*name))
        normalized = abs(float(np.linalg.norm(embedded.vector)) - 1.0) <= _TOLERANCE
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
        """Return what is known of the model of a folder that rows were accepted for.

        Raises:
            DataError: it is damaged.
            StorageError: it cannot be read.
        """
        if folder not in self._known:
            self._known[folder] = read_value(self._place(folder), ModelDescription)
        return self._known[folder]

    def _described(self, folder: str, first: ModelDescription) -> ModelDescription:
        """Describe a model by the first of its vectors, unless somebody did already."""
        place = self._place(folder)
        if not store.exists(place):
            with suppress(StorageConflict):  # another worker was first
                write_value(place, first, over=None)
        return self.describe(folder)

    def _place(self, folder: str) -> str:
        return store.join(self._out, STATE_FOLDER, "models", f"{folder}.json")
