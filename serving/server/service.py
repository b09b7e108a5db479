"""The embedding service that all protocols share: it finds the model, checks the texts, and makes vectors in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field

from driftline.serving.errors import DeadlineError
from driftline.serving.records.payloads import checked_text
from driftline.serving.server.bodies import whole
from driftline.serving.server.failures import RequestError
from driftline.serving.server.health import ServerHealth
from driftline.serving.server.settings import RequestLimits

if TYPE_CHECKING:
    from driftline.serving.batching.request import Embedded
    from driftline.serving.models.served import ServedModel

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
"""Milliseconds that a request's answer may take; capped by the server's own limit."""

ENVOY_TIMEOUT_HEADER: Final = "x-envoy-expected-rq-timeout-ms"
"""The same, as Envoy says it: the time-out of the route that the request came by."""


Dimensions = Annotated[int, Field(strict=True, ge=1), BeforeValidator(whole)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request may ask for beside its texts; other parameters are not ours to judge.

    Attributes:
        prompt: name of one of the model's prompts; None or empty for the one the model is served with.
        dimensions: leading numbers of the vectors to keep, brought back to length 1; None for all.
    """

    prompt: Annotated[str | None, Field(description="the name of one of the model's prompts, a string")] = None
    dimensions: Annotated[
        Dimensions | None, Field(description="an integer of 1 or more, the leading numbers of the vectors to keep")
    ] = None


class EmbeddingService:
    """Vectors of texts, by the name of a model."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        limits: RequestLimits,
        health: ServerHealth,
        on_embedded: Callable[[str, float], None] | None = None,
    ) -> None:
        """Serve some models.

        Args:
            models: of different names.
            limits: of a request.
            health: whether requests are taken.
            on_embedded: called with the model's name and the seconds that its vectors took, each time that they are
                there.
        """
        self._models: dict[str, ServedModel] = {model.name: model for model in models}
        self._on_embedded = on_embedded
        self.limits = limits
        self.health = health

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The served models by name."""
        return self._models

    def model(self, name: str) -> ServedModel:
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

    def only_model(self) -> ServedModel:
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

    async def embed_in_time(
        self, model: ServedModel, texts: Sequence[str], options: Options, expires: float
    ) -> Embedded:
        """Return the vectors of texts that :meth:`check_texts` let through.

        Args:
            model: of :meth:`model`.
            texts: the texts.
            options: what the request asks for beside them.
            expires: `time.monotonic()` when the answer would come too late.

        Raises:
            UnavailableError: the model takes no texts now.
            DeadlineError: the time has passed.
            DriftlineError: see :meth:`.served.ServedModel.embed`.
        """
        self.health.check_taking(model)
        left_s = expires - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("the time for this request had passed before its texts were looked at")
        began = time.perf_counter()
        embedded = await model.embed(
            texts, prompt=options.prompt or "", dimensions=options.dimensions or 0, deadline_s=left_s
        )
        if self._on_embedded is not None:
            self._on_embedded(model.name, time.perf_counter() - began)
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
