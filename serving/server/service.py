"""What all protocols share: finding the model, checking the texts, the deadline, and the one way to vectors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from driftline.serving.errors import DeadlineError
from driftline.serving.records.payloads import checked_text
from driftline.serving.server.failures import RequestError
from driftline.serving.server.health import ServerHealth, Watched
from driftline.serving.server.settings import RequestLimits

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
"""Milliseconds that a request's answer may take; capped by the server's own limit."""

ENVOY_TIMEOUT_HEADER: Final = "x-envoy-expected-rq-timeout-ms"
"""The same, as Envoy tells it: the time-out of the route that the request came by."""


class Embedded(Protocol):
    """Some texts' vectors, as the batcher gives them."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(texts, dimension) float32."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens that the model saw of all texts together."""
        ...


class TextModel(Watched, Protocol):
    """What the server asks of a served model."""

    @property
    def model(self) -> str:
        """The model's name as datasets carry it."""
        ...

    @property
    def revision(self) -> str:
        """Identity of the model's content and of the settings that decide its vectors, as datasets carry it."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are looked at."""
        ...

    async def embed(
        self, texts: Sequence[str], *, prompt: str = "", dimensions: int = 0, deadline_s: float | None = None
    ) -> Embedded:
        """Return the vectors of some texts.

        Raises:
            OverloadError: the queue is full.
            DeadlineError: the deadline has passed.
            UnavailableError: the model is not loaded, or shutting down.
            InputError: there is no such prompt, or no so many dimensions.
            PoisonError: the model cannot make a vector of one of the texts.
        """
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks for beside its texts.

    Attributes:
        prompt: name of one of the model's prompts; empty for the one the model is served with.
        dimensions: leading numbers of the vectors to keep, brought back to length 1; 0 for all.
    """

    prompt: str = ""
    dimensions: int = 0


class EmbeddingService:
    """Texts in, vectors out, by the name of a model."""

    def __init__(
        self,
        models: Sequence[TextModel],
        limits: RequestLimits,
        health: ServerHealth,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        """Serve some models.

        Args:
            models: of different names.
            limits: of a request.
            health: whether requests are taken.
            observe: told the model's name and the seconds until its vectors were there, each time that they are.
        """
        self._models: dict[str, TextModel] = {model.name: model for model in models}
        self._observe = observe
        self.limits = limits
        self.health = health

    @property
    def models(self) -> Mapping[str, TextModel]:
        """The served models by name."""
        return self._models

    def model(self, name: str) -> TextModel:
        """Return a model.

        Raises:
            RequestError: 404, there is none of that name.
        """
        found = self._models.get(name)
        if found is None:
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                f"model {name[:60]}: there is no such model; there are {', '.join(self._models)}",
                parameter="model",
                code="model_not_found",
            )
        return found

    def only_model(self) -> TextModel:
        """Return the model, where there is just one.

        Raises:
            RequestError: 404, there are several.
        """
        if len(self._models) != 1:
            raise RequestError(
                HTTPStatus.NOT_FOUND,
                f"which model? Send events to /v1/models/NAME:predict, NAME being one of {', '.join(self._models)}",
            )
        return next(iter(self._models.values()))

    def check_texts(self, where: str, texts: Sequence[object]) -> list[str]:
        """Return texts fit for the encoder.

        Args:
            where: the part of the request that they are, for messages.
            texts: what stands where texts should.

        Raises:
            RequestError: 422, there are none or too many.
            PoisonError: one is no text, or blank.
        """
        if not texts:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: no texts; give at least one")
        if len(texts) > self.limits.texts:
            raise RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"{where}: {len(texts)} texts in one request; at most {self.limits.texts} are taken, so split them",
            )
        return [checked_text(f"{where}[{number}]", text) for number, text in enumerate(texts)]

    async def embed(
        self, model: TextModel, texts: Sequence[str], options: Options, expires: float | None = None
    ) -> Embedded:
        """Return the vectors of texts that :meth:`check_texts` let through.

        Args:
            model: of :meth:`model`.
            texts: the texts.
            options: what the request asks for beside them.
            expires: `time.monotonic()` when the answer would come too late; None for the server's limit from now.

        Raises:
            RequestError, DriftlineError: see :meth:`TextModel.embed`.
        """
        self.health.check_taking(model)
        left_s = self.limits.timeout_s if expires is None else expires - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("the time for this request had passed before its texts were looked at")
        began = time.perf_counter()
        embedded = await model.embed(texts, prompt=options.prompt, dimensions=options.dimensions, deadline_s=left_s)
        if self._observe is not None:
            self._observe(model.name, time.perf_counter() - began)
        return embedded

    def expiry(self, headers: Mapping[str, str]) -> float:
        """Return `time.monotonic()` when a request's answer would come too late.

        Raises:
            RequestError: 400, a header is no number of milliseconds.
        """
        return time.monotonic() + min(
            _milliseconds(headers, TIMEOUT_HEADER),
            _milliseconds(headers, ENVOY_TIMEOUT_HEADER),
            self.limits.timeout_s,
        )


def read_options(where: str, given: object) -> Options:
    """Read ``prompt`` and ``dimensions`` off an object of parameters; others are not ours to judge.

    Raises:
        RequestError: 400, one is of the wrong type or out of range.
    """
    if given is None:
        return Options()
    if not isinstance(given, dict):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{where}: expected an object of parameters")
    fields = cast("dict[str, Any]", given)
    prompt = fields.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"{where}.prompt: expected the name of a prompt, a string", parameter="prompt"
        )
    dimensions = whole(fields.get("dimensions"))
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"{where}.dimensions: expected an integer of 1 or more", parameter="dimensions"
        )
    return Options(prompt or "", dimensions or 0)


def whole(value: object) -> object:
    """Return the integer for a number without a fraction: JSON knows no other difference between 2 and 2.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _milliseconds(headers: Mapping[str, str], name: str) -> float:
    """Return a time-out in seconds; infinity where there is none."""
    given = headers.get(name)
    if given is None:
        return math.inf
    # Eighteen digits are 30 million years; what is longer is no time-out.
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise RequestError(
            HTTPStatus.BAD_REQUEST, f"header {name}: expected a whole number of milliseconds, got {given[:40]!r}"
        )
    return int(given) / 1000
