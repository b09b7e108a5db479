"""The outbox: alerts and runs of alarms, kept in the state, delivered once that is written, retried until done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from driftline.components.errors import DriftlineError
from driftline.components.steps import LOGGER
from driftline.serving.monitor.metrics import MonitorMetrics

MAX_PENDING: Final = 100
"""Most deliveries that wait: far more than drifts cause while a broken target is repaired."""
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0


Kind = Literal["alert", "run"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """An alert to produce or a run to start, kept until that has happened.

    Attributes:
        kind: an alert to produce, or a run to start.
        id: of the alarm, the same however often it is delivered.
        content: a JSON object: the CloudEvent in its structured form, or the run's name and parameters.
    """

    kind: Kind
    id: str
    content: dict[str, Any]


class DeliveryTarget(Protocol):
    """The place that takes one kind of delivery: a topic for alerts, Kubeflow for runs."""

    def deliver(self, delivery: Delivery) -> None:
        """Deliver, and return when it is safe; a second delivery of the same must do no harm.

        Raises:
            DriftlineError: it is not possible now.
        """
        ...


class Outbox:
    """Deliveries that wait, oldest first, and their targets.

    Attributes:
        waiting: the state's own list, which changes in place.
    """

    def __init__(
        self,
        waiting: list[Delivery],
        targets: Mapping[Kind, DeliveryTarget],
        metrics: MonitorMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Go on with what waits; deliveries without a target are dropped.

        Args:
            waiting: the state's deliveries.
            targets: of each kind.
            metrics: where to count.
            clock: seconds.
        """
        waiting[:] = [delivery for delivery in waiting if delivery.kind in targets]
        self.waiting = waiting
        self._targets = targets
        self._metrics = metrics
        self._clock = clock
        self._retries = {kind: _Retries() for kind in targets}
        metrics.pending.set(len(waiting))

    def post(self, delivery: Delivery) -> bool:
        """Add a delivery; where too many wait already, the oldest is given up.

        Returns:
            Whether that kind has a target.
        """
        if delivery.kind not in self._targets:
            return False
        self.waiting.append(delivery)
        for dropped in self.waiting[:-MAX_PENDING]:
            self._metrics.deliveries.labels(dropped.kind, "dropped").inc()
            LOGGER.error("%s %s: given up, after %d more that wait", dropped.kind, dropped.id, MAX_PENDING)
        del self.waiting[:-MAX_PENDING]
        self._metrics.pending.set(len(self.waiting))
        return True

    def deliver(self) -> bool:
        """Deliver what waits, each kind in its order; after a failure its kind waits.

        Returns:
            Whether anything has been delivered.
        """
        done = False
        for delivery in [*self.waiting]:
            retries = self._retries[delivery.kind]
            if self._clock() < retries.at_s:
                continue
            try:
                self._targets[delivery.kind].deliver(delivery)
            except DriftlineError as error:
                retries.failed(self._clock())
                self._metrics.deliveries.labels(delivery.kind, "failed").inc()
                LOGGER.error("%s %s: not delivered, to be tried again: %s", delivery.kind, delivery.id, error)
                continue
            retries.succeeded()
            self.waiting.remove(delivery)
            self._metrics.deliveries.labels(delivery.kind, "sent").inc()
            done = True
        self._metrics.pending.set(len(self.waiting))
        return done


class _Retries:
    """The time of the next attempt for one kind of delivery; each failure doubles the wait."""

    def __init__(self) -> None:
        self.at_s = -math.inf
        self._wait_s = _FIRST_RETRY_S

    def failed(self, now_s: float) -> None:
        self.at_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_RETRY_S)

    def succeeded(self) -> None:
        self.at_s = -math.inf
        self._wait_s = _FIRST_RETRY_S
