"""The archive's dead letters: records of the topic that are no embeddings."""

from __future__ import annotations

from typing import Final, Protocol

from kafka.errors import KafkaError

from driftline.components.errors import one_line
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.kafka.writer import TopicWriter
from driftline.serving.records.provenance import dead_letter_headers, dead_letters_topic
from driftline.serving.records.record import OutgoingRecord, Record

_FLUSH_S: Final = 60.0  # longer than it takes to elect another leader


class DeadLetters(Protocol):
    """A place for records that cannot be processed."""

    def send(self, record: Record, error: PoisonError) -> None:
        """Take a record; it is safe once `flush` has returned."""
        ...

    def flush(self) -> None:
        """Make sure that what was sent is safe."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class DeadLetterWriter:
    """Dead letters on a topic of their own, acknowledged by all replicas.

    They are sent before the offsets behind them are archived: a worker that is killed in between sends them again,
    with the same coordinates of their source.

    Args:
        writer: writes them; it reaches the broker at the first letter.
    """

    def __init__(self, writer: TopicWriter) -> None:
        self._writer = writer

    def send(self, record: Record, error: PoisonError) -> None:
        """Take a record; it is safe once `flush` has returned.

        Raises:
            UnavailableError: the broker does not answer, or refuses.
        """
        headers = dead_letter_headers(record, error)
        try:
            self._writer.send(OutgoingRecord(dead_letters_topic(record.at.topic), record.key, record.value, headers))
        except KafkaError as failure:
            raise _unavailable(failure) from failure

    def flush(self) -> None:
        """Make sure that what was sent is safe.

        Raises:
            UnavailableError: it is not.
        """
        try:
            failures = [outcome for outcome in self._writer.flush(_FLUSH_S) if outcome is not None]
        except KafkaError as failure:
            raise _unavailable(failure) from failure
        if failures:
            raise _unavailable(failures[0]) from failures[0]

    def close(self) -> None:
        """Let go of the connection."""
        self._writer.close()


def _unavailable(failure: BaseException) -> UnavailableError:
    return UnavailableError(f"dead letters: {one_line(failure)}; see to their topic and its rights")
