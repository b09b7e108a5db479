"""Health of the server: alive, ready, draining, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from driftline.serving.errors import UnavailableError

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel


class ServerHealth:
    """Health as every protocol's probes answer it.

    Attributes:
        draining: whether the server is to end: it is not ready any more, but requests that come are still served.
        refusing: whether it takes no more requests.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
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

    def model_unready(self, model: ServedModel) -> str | None:
        """Return why no requests for a model should be sent here; None where it takes them."""
        if self.draining:
            return "the server is shutting down"
        return model.stuck() or model.unready()

    def check_taking(self, model: ServedModel) -> None:
        """Check that a request for a model can be taken: also while readiness already says no.

        Raises:
            UnavailableError: it cannot.
        """
        if self.refusing:
            raise UnavailableError("the server is shutting down; try again, another replica answers")
        if (why := model.unready()) is not None:
            raise UnavailableError(f"model {model.name}: {why}")
