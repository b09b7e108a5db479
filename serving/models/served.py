"""A served model: loaded from wherever it lies, warm, behind its batcher."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Literal

from driftline.components.embedding.encoding.encoder import Encoder, shortened
from driftline.components.embedding.encoding.opening import OpenedEncoder, open_encoder
from driftline.components.errors import DriftlineError, UsageError
from driftline.serving.batching.batcher import Batcher
from driftline.serving.batching.metrics import BatchingMetrics
from driftline.serving.batching.request import Embedded
from driftline.serving.errors import UnavailableError
from driftline.serving.models.spec import ModelSettings, ModelSpec

LOGGER: Final = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "ended"]

_WARM_TOKENS: Final = (8, 32, 128, 512)


class ServedModel:
    """A model by its name in the routes.

    Attributes:
        name: in routes and metrics.
        state: whether it takes texts.
    """

    def __init__(
        self, spec: ModelSpec, settings: ModelSettings, metrics: BatchingMetrics, executor: Executor | None = None
    ) -> None:
        """Describe it; :meth:`load` loads it.

        Args:
            spec: its name, and where it lies.
            settings: how it is loaded and batched.
            metrics: take what its batcher counts.
            executor: the thread that runs the batches of all models on the device; None for one of its own.
        """
        self.name = spec.name
        self.state: State = "loading"
        self._spec = spec
        self._settings = settings
        self._metrics = metrics
        self._executor = executor
        self._why = "is being loaded"
        self._opened: OpenedEncoder | None = None
        self._batcher: Batcher | None = None

    @property
    def model(self) -> str:
        """The model's name as datasets carry it; empty until it is loaded."""
        return self._opened.name if self._opened else ""

    @property
    def revision(self) -> str:
        """Identity of the model's content and of the settings that decide its vectors, as datasets carry it."""
        return self.revision_of()

    def revision_of(self, *, prompt: str = "", dimensions: int = 0) -> str:
        """Return the revision that a dataset of vectors asked for in this way would carry; see :meth:`embed`."""
        if self._opened is None:
            return ""
        settings = self._opened.settings
        if prompt:
            settings = dataclasses.replace(settings, prompt=prompt)
        if dimensions and dimensions != self.dimension:
            settings = dataclasses.replace(settings, dimension=dimensions)
        return settings.vector_revision(self._opened.model_revision)

    @property
    def dimension(self) -> int:
        """Length of a vector; 0 until it is loaded."""
        return self._opened.encoder.dimension if self._opened else 0

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are looked at; 0 where there is no limit, or until it is loaded."""
        return self._opened.encoder.max_tokens if self._opened else 0

    @property
    def prompts(self) -> Sequence[str]:
        """Names of the prompts that may be asked for."""
        return self._opened.encoder.prompts if self._opened else ()

    @property
    def queue_texts(self) -> int:
        """Texts that wait for a batch."""
        return self._batcher.queue_texts if self._batcher else 0

    def unready(self) -> str | None:
        """Return why the model takes no texts now; None where it does."""
        return self._why if self.state != "ready" else self.stuck()

    def stuck(self) -> str | None:
        """Return why the process must be restarted; None while it need not."""
        return self._batcher.stuck() if self._batcher else None

    async def load(self) -> None:
        """Load and warm the model in a thread, and take texts from then on.

        Raises:
            DriftlineError: it cannot be loaded; its state says so, too.
        """
        began_s = time.perf_counter()
        try:
            opened = await asyncio.to_thread(self._open)
        except DriftlineError as error:
            self.state, self._why = "failed", f"could not be loaded: {error}"
            raise
        if self.state == "ended":
            return
        self._opened, encoder = opened, opened.encoder
        self._batcher = Batcher(encoder, self._settings.limits, self._metrics.of(self.name), executor=self._executor)
        self._batcher.start()
        self.state = "ready"
        LOGGER.info(
            "model %s: %s at %s loaded in %.1f s; %d dimensions, %s on %s, batches of %d tokens",
            self.name, opened.name, self.revision, time.perf_counter() - began_s, encoder.dimension, encoder.precision,
            encoder.device, self._settings.limits.batch_tokens or encoder.batch_tokens,
        )  # fmt: skip

    async def embed(
        self, texts: Sequence[str], *, prompt: str = "", dimensions: int = 0, deadline_s: float | None = None
    ) -> Embedded:
        """Return the vectors of some texts.

        Args:
            texts: the texts; not to be changed meanwhile.
            prompt: name of one of the model's prompts; empty for the one that it is served with.
            dimensions: leading numbers of each vector to keep, brought back to length 1 where the model normalises, as
                `EncoderSettings.dimension` says; 0 for all that it is served with.
            deadline_s: seconds from now after which the answer is of no use; None where it always is.

        Raises:
            OverloadError: the queue is full.
            DeadlineError: the deadline has passed before all were encoded.
            PoisonError: the model throws at one of the texts.
            UnavailableError: the model is not loaded, or shutting down, or throws at any text.
            UsageError: there is no such prompt, or no so many dimensions.
        """
        if self._batcher is None or self._opened is None:
            raise UnavailableError(f"model {self.name}: {self._why}")
        encoder = self._opened.encoder
        if prompt and prompt not in encoder.prompts:
            known = ", ".join(encoder.prompts) or "none"
            raise UsageError(f"prompt: model {self.name} has no prompt {prompt[:60]!r}; it has: {known}")
        if not 0 <= dimensions <= encoder.dimension:
            raise UsageError(
                f"dimensions: model {self.name} has vectors of {encoder.dimension} numbers, got {dimensions}"
            )
        embedded = await self._batcher.encode(texts, prompt=prompt or None, deadline_s=deadline_s)
        if not dimensions or dimensions == encoder.dimension:
            return embedded
        vectors = shortened(embedded.vectors, dimensions, normalized=encoder.normalized)
        return dataclasses.replace(embedded, vectors=vectors)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more texts, finish those in hand, and return whether that was done within ``timeout_s`` seconds."""
        self.state, self._why = "ended", "is shutting down"
        return True if self._batcher is None else await self._batcher.drain(timeout_s)

    def _open(self) -> OpenedEncoder:
        settings = self._settings
        opened = open_encoder(
            self._spec.uri,
            settings.encoder,
            tunings=settings.tunings,
            cache=Path(settings.cache) if settings.cache else None,
            device=settings.device or None,
        )
        _warm(opened.encoder)
        return opened


def _warm(encoder: Encoder) -> None:
    """Encode batches of the lengths to come, so that the first request does not wait for what is done but once."""
    for length in _WARM_TOKENS:
        text = "film " * (min(length, encoder.max_tokens or length) - 2)
        tokens = int(encoder.prepare([text]).text_lengths()[0])
        encoder.encode([text])
        encoder.encode([text] * max(1, encoder.batch_tokens // tokens))
    for prompt in encoder.prompts:  # each one's tokenizer is made when it is first asked for
        encoder.prepare(["film"], prompt)
