"""Where records go that are none of the topic's: its dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from kafka.errors import KafkaError

from driftline.components.errors import one_line
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.records.provenance import dead_letter_headers, dead_letters_topic
from driftline.serving.records.record import Record

_FLUSH_TIMEOUT_S: Final = 60.0  # longer than it takes to elect another leader


class DeadLetters(Protocol):
    """Takes records that cannot be processed."""

    def send(self, record: Record, error: PoisonError) -> None:
        """Take a record; it is safe once `flush` has returned."""
        ...

    def flush(self) -> None:
        """Make sure that what was sent is safe."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class KafkaDeadLetters:
    """Dead letters on a topic of their own, acknowledged by all replicas.

    They are sent before the offsets behind them are archived: a worker that is killed in between sends them again,
    with the same coordinates of their source.

    Args:
        open_producer: opens the connection, at the first letter.
    """

    def __init__(self, open_producer: Callable[[], Any]) -> None:
        self._open_producer = open_producer
        self._producer: Any = None
        self._sent: list[Any] = []

    def send(self, record: Record, error: PoisonError) -> None:
        """Take a record; it is safe once `flush` has returned.

        Raises:
            UnavailableError: the broker does not answer, or refuses.
        """
        try:
            if self._producer is None:
                self._producer = self._open_producer()
            self._sent.append(
                self._producer.send(
                    dead_letters_topic(record.at.topic),
                    key=record.key,
                    value=record.value,
                    headers=list(dead_letter_headers(record, error)),
                )
            )
        except KafkaError as failure:
            raise self._unavailable(failure) from failure

    def flush(self) -> None:
        """Make sure that what was sent is safe.

        Raises:
            UnavailableError: it is not.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return
        try:
            self._producer.flush(timeout=_FLUSH_TIMEOUT_S)
            for future in sent:
                future.get(timeout=0)
        except KafkaError as failure:
            raise self._unavailable(failure) from failure

    def close(self) -> None:
        """Let go of the connection."""
        if self._producer is not None:
            self._producer.close(timeout=0)
            self._producer = None

    def _unavailable(self, failure: KafkaError) -> UnavailableError:
        self.close()
        reason = one_line(failure)
        return UnavailableError(f"dead letters: {reason}; see to their topic and its rights")
