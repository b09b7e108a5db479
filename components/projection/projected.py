"""What the projection steps hand on: the fitted projection, and where the projected sample lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from driftline.components.projection.pca import PCA

PICTURE_AXES = 2


@dataclass(frozen=True, slots=True)
class Projection:
    """A PCA fitted on the pooled sample, and how much of it the test uses.

    Attributes:
        pca: at least the axes of the picture, where the vectors have as many dimensions.
        components: dimensions that the test sees; 0 for whole vectors, centred only.
        seconds: how long the fit took.
    """

    pca: PCA
    components: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {"pca": self.pca.to_json(), "components": self.components, "seconds": self.seconds}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(PCA.from_json(values["pca"]), values["components"], values["seconds"])


@dataclass(frozen=True, slots=True)
class ProjectedSample:
    """The pooled sample in the coordinates that the test sees.

    Attributes:
        uri: an embeddings dataset of float32 vectors, the reference's rows first.
        n: rows of the reference.
        rows: rows of the pooled sample, N.
        largest_norm: largest Euclidean norm of a projected vector.
        components: dimensions kept by the projection; 0 where vectors are whole.
        explained_variance_ratio: share of the pooled variance along each kept dimension.
        picture_explained_variance_ratio: the same for the axes of the picture.
        reference_points: (p, 1 or 2) coordinates of some rows of the reference along the axes of the picture.
        current_points: the same for the current window.
        seconds: how long the projection took.
    """

    uri: str
    n: int
    rows: int
    largest_norm: float
    components: int
    explained_variance_ratio: tuple[float, ...]
    picture_explained_variance_ratio: tuple[float, ...]
    reference_points: tuple[tuple[float, ...], ...]
    current_points: tuple[tuple[float, ...], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        points = {
            side: tuple(tuple(point) for point in values[side]) for side in ("reference_points", "current_points")
        }
        ratios = {
            name: tuple(values[name]) for name in ("explained_variance_ratio", "picture_explained_variance_ratio")
        }
        return cls(**{**values, **points, **ratios})
