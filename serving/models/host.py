"""All models of a server, on one device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry

from driftline.components.errors import UsageError
from driftline.serving.batching.metrics import BatchingMetrics
from driftline.serving.models.served import ServedModel
from driftline.serving.models.spec import ModelSettings, ModelSpec


class ServedModels:
    """The models of a server, whose batches take turns in one thread: they share the device.

    Attributes:
        models: all of them, in the order given, loaded or not.
    """

    def __init__(self, specs: Sequence[ModelSpec], settings: ModelSettings, registry: CollectorRegistry) -> None:
        """Describe them; :meth:`load` loads them.

        Args:
            specs: one at least, of different names.
            settings: of all of them.
            registry: takes their metrics.

        Raises:
            UsageError: there are none, or two of one name.
        """
        names = [spec.name for spec in specs]
        if not names:
            raise UsageError("model: name at least one")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"model {twice}: two models have this name; give each its own with NAME=URI")
        metrics = BatchingMetrics(registry)
        self._executor = ThreadPoolExecutor(1, "driftline-batches")
        self.models: Sequence[ServedModel] = tuple(
            ServedModel(spec, settings, metrics, self._executor) for spec in specs
        )

    async def load(self) -> None:
        """Load one after another; each takes texts as soon as it is loaded.

        Raises:
            DriftlineError: one cannot be loaded.
        """
        for model in self.models:
            await model.load()

    async def drain(self, timeout_s: float) -> None:
        """Take no more texts, and finish those in hand within ``timeout_s`` seconds."""
        await asyncio.gather(*(model.drain(timeout_s) for model in self.models))
        self._executor.shutdown(wait=False, cancel_futures=True)
