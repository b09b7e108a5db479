"""How the server is: alive, ready, draining, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from driftline.serving.errors import UnavailableError


class Watched(Protocol):
    """What health asks of a model."""

    @property
    def name(self) -> str:
        """Its name in the routes."""
        ...

    def unready(self) -> str | None:
        """Return why the model takes no texts now; None where it does."""
        ...

    def stuck(self) -> str | None:
        """Return why the process must be restarted, its encoder's thread having died, say; None while it need not."""
        ...


class ServerHealth:
    """The truth that every protocol's probes tell.

    Attributes:
        draining: whether the server is told to end: it is not ready any more, but what comes is still served.
        refusing: whether it takes no more requests.
    """

    def __init__(self, models: Sequence[Watched]) -> None:
        self._models = models
        self.draining = False
        self.refusing = False

    def dead(self) -> str | None:
        """Return why the process must be restarted; None while it need not."""
        return next((f"model {model.name}: {why}" for model in self._models if (why := model.stuck())), None)

    def unready(self) -> str | None:
        """Return why no requests should be sent here; None where all models take them."""
        if self.draining:
            return "the server is shutting down"
        if (why := self.dead()) is not None:
            return why
        return next((f"model {model.name}: {why}" for model in self._models if (why := model.unready())), None)

    def model_unready(self, model: Watched) -> str | None:
        """Return why no requests for a model should be sent here; None where it takes them."""
        if self.draining:
            return "the server is shutting down"
        return model.stuck() or model.unready()

    def check_taking(self, model: Watched) -> None:
        """Check that a request for a model can be taken: also while readiness already says no.

        Raises:
            UnavailableError: it cannot.
        """
        if self.refusing:
            raise UnavailableError("the server is shutting down; try again, another replica answers")
        if (why := model.unready()) is not None:
            raise UnavailableError(f"model {model.name}: {why}")
