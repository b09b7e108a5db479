"""The models to serve and their settings, as a command line gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self

from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.serving.batching.limits import BatcherLimits

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_NAMED: Final = re.compile(r"([^/=:]*)=(.*)", re.DOTALL)  # what has a slash before its = is a path, and no name


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model to serve.

    Attributes:
        name: in routes and metrics.
        uri: folder, gs:// prefix or name of the model.

    Raises:
        UsageError: the name is none that a route can hold, or there is no URI.
    """

    name: str
    uri: str

    def __post_init__(self) -> None:
        if not self.uri:
            raise UsageError("model: expected NAME=URI or URI, the URI being a folder, gs://… or a model's name")
        if _NAME.fullmatch(self.name) is None:
            raise UsageError(
                f"model {self.name[:60]!r}: expected a name of letters, digits, '.', '_' and '-' for its routes; give "
                "one with NAME=URI"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME=URI``, or ``URI`` alone, whose last part is then the name.

        Raises:
            UsageError: the name is none that a route can hold, or there is no URI.
        """
        named = _NAMED.fullmatch(text.strip())
        if named is not None:
            return cls(named[1], named[2])
        uri = text.strip()
        return cls(uri.rstrip("/").rsplit("/", 1)[-1], uri)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of loading and batching.

    Attributes:
        encoder: what decides the vectors.
        limits: of batches and queue, for each model.
        tunings: URI of the measured tunings, see `driftline bench encode`; empty for the defaults.
        cache: local folder in which models from gs:// are kept; empty for a temporary copy.
        device: a PyTorch device such as ``cuda:0``; empty for the best there is.
    """

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    limits: BatcherLimits = field(default_factory=BatcherLimits)
    tunings: str = ""
    cache: str = ""
    device: str = ""
