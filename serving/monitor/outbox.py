"""What alarms have yet to bring about: kept in the state, delivered once that is written, tried again until done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from driftline.components.errors import DriftlineError
from driftline.components.steps import LOGGER
from driftline.serving.monitor.alerts import Delivery, Kind
from driftline.serving.monitor.metrics import MonitorMetrics

MAX_PENDING: Final = 100
"""Deliveries that wait at most: far more than drifts bring about while whatever takes them is repaired."""
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0


class Courier(Protocol):
    """Brings one kind of delivery about: where alerts or runs go."""

    def deliver(self, delivery: Delivery) -> None:
        """Do it, and return when it is safe; doing the same again must do no harm.

        Raises:
            DriftlineError: it could not be done now.
        """
        ...


class Outbox:
    """Deliveries that wait, oldest first, and who takes them.

    Attributes:
        waiting: the state's own list, which changes in place.
    """

    def __init__(
        self,
        waiting: list[Delivery],
        couriers: Mapping[Kind, Courier],
        metrics: MonitorMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Go on with what waits; what nobody delivers any more is left out.

        Args:
            waiting: the state's deliveries.
            couriers: who delivers each kind.
            metrics: where to count.
            clock: seconds.
        """
        waiting[:] = [delivery for delivery in waiting if delivery.kind in couriers]
        self.waiting = waiting
        self._couriers = couriers
        self._metrics = metrics
        self._clock = clock
        self._retries = {kind: _Retries() for kind in couriers}
        metrics.pending.set(len(waiting))

    def post(self, delivery: Delivery) -> bool:
        """Leave something to deliver; where far too much is left already, the oldest is given up.

        Returns:
            Whether anybody delivers that kind.
        """
        if delivery.kind not in self._couriers:
            return False
        self.waiting.append(delivery)
        for dropped in self.waiting[:-MAX_PENDING]:
            self._metrics.deliveries.labels(dropped.kind, "dropped").inc()
            LOGGER.error("%s %s: given up, after %d more that wait", dropped.kind, dropped.id, MAX_PENDING)
        del self.waiting[:-MAX_PENDING]
        self._metrics.pending.set(len(self.waiting))
        return True

    def deliver(self) -> bool:
        """Deliver what waits, each kind in its order; a failure makes its kind wait.

        Returns:
            Whether anything has been delivered.
        """
        done = False
        for delivery in [*self.waiting]:
            retries = self._retries[delivery.kind]
            if self._clock() < retries.at_s:
                continue
            try:
                self._couriers[delivery.kind].deliver(delivery)
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
    """When one kind of delivery is tried next: after a failure, twice as late as before."""

    def __init__(self) -> None:
        self.at_s = -math.inf
        self._wait_s = _FIRST_RETRY_S

    def failed(self, now_s: float) -> None:
        self.at_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, _LAST_RETRY_S)

    def succeeded(self) -> None:
        self.at_s = -math.inf
        self._wait_s = _FIRST_RETRY_S
