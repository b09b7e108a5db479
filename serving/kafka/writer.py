"""Records onto topics: sent together, each answer looked at, in a transaction where that is wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.records.record import OutgoingRecord

LOGGER: Final = logging.getLogger(__name__)

_FLUSH_S: Final = 120.0  # brokers elect new leaders in seconds; beyond, it is better to begin anew
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_FENCED: Final = (ProducerFencedError, FencedInstanceIdError)

Outcome = BaseException | None
"""The fate of a record: None where the brokers have it, else its error."""


class TopicWriter:
    """A producer that is opened when it is first needed, and anew after a failure.

    A producer that has failed is not used again: its sequence numbers may be out of step with the broker's. Belongs to
    one thread.

    Args:
        open_producer: opens a producer; for transactions, always one of the same name.
        transactional: whether it writes transactions.
    """

    def __init__(self, open_producer: Callable[[], KafkaProducer], *, transactional: bool = False) -> None:
        self._open = open_producer
        self._transactional = transactional
        self._producer: KafkaProducer | None = None
        self._failed: KafkaProducer | None = None
        self._closed = False
        self._sent: list[Any] = []

    def start(self) -> None:
        """Reach the broker; what an earlier process of the same name left open is aborted.

        Raises:
            UnavailableError: it does not answer, or cannot do transactions.
        """
        self._started()

    def write(self, records: Sequence[OutgoingRecord]) -> list[Outcome]:
        """Send records, wait until the brokers have them, and return what became of each.

        Raises:
            KafkaError: they did not get there in time, or the producer cannot send.
            UnavailableError: the broker does not answer.
        """
        self._sent = []  # of a batch that was given up
        for record in records:
            self.send(record)
        return self.flush()

    def send(self, record: OutgoingRecord) -> None:
        """Queue a record; `flush` returns what became of it.

        Raises:
            KafkaError: the producer cannot send.
            UnavailableError: the broker does not answer.
        """
        try:
            self._sent.append(self._queued(self._started(), record))
        except MessageSizeTooLargeError as error:
            self._sent.append(error)
        except KafkaError:
            self.reset()
            raise

    def flush(self, timeout_s: float = _FLUSH_S) -> list[Outcome]:
        """Wait until the brokers have what was sent, and return what became of each record since the last time.

        Raises:
            KafkaError: it did not get there in time.
        """
        sent, self._sent = self._sent, []
        if not sent:
            return []
        try:
            if self._producer is not None:
                self._producer.flush(timeout_s)
            # Every answer counts: a transaction may be committed though one of its records never arrived.
            outcomes = [answer if isinstance(answer, KafkaError) else _outcome(answer) for answer in sent]
        except KafkaError:
            self.reset()
            raise
        if any(outcomes):
            self.reset()
        return outcomes

    def submit(self, record: OutgoingRecord, on_outcome: Callable[[Outcome], None]) -> None:
        """Queue a record, and have a function called with what becomes of it, in the producer's own thread.

        Raises:
            KafkaError: the producer cannot send.
            UnavailableError: the broker does not answer.
        """
        producer = self._started()

        try:
            sent = self._queued(producer, record)
        except KafkaError as error:
            self._note_failure(producer, record, error)
            raise
        sent.add_callback(lambda _: on_outcome(None))
        sent.add_errback(lambda error: (self._note_failure(producer, record, error), on_outcome(error)))

    def begin(self) -> None:
        """Begin a transaction.

        Raises:
            KafkaError: the producer refuses.
            UnavailableError: the broker does not answer.
        """
        self._started().begin_transaction()

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group: Any) -> None:
        """Commit the transaction, and with it offsets of a consumer group.

        Args:
            offsets: the next to read of each partition.
            group: the group's name, or a member's place in it, which the broker then checks.

        Raises:
            KafkaError: it is not committed, or nobody knows.
        """
        producer = self._started()
        producer.send_offsets_to_transaction(dict(offsets), group)
        producer.commit_transaction()

    def reset(self) -> None:
        """Begin anew with another producer; an open transaction is aborted by the next of its name.

        What was sent and is not acknowledged by now has failed, and `flush` does not take it for written.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)

    def close(self) -> None:
        """Let go of the broker for good, without waiting for it; what is written after that is refused.

        Unlike the rest, it may be called from another thread. A write that it cuts short must not open another
        producer: that would shut out a successor of the same name.
        """
        self._closed = True
        self.reset()

    def _started(self) -> KafkaProducer:
        if self._closed:
            raise UnavailableError("the connection to the broker has been closed; start the process again")
        if self._producer is not None and self._producer is self._failed:
            self.reset()
        if self._producer is None:
            producer = self._open()
            if self._transactional:
                try:
                    producer.init_transactions()
                except KafkaError as error:
                    producer.close(timeout=0)
                    raise UnavailableError(f"transactions: {one_line(error)}; can the brokers do them?") from error
            self._producer = producer
        return self._producer

    def _note_failure(self, producer: KafkaProducer, record: OutgoingRecord, error: BaseException) -> None:
        """Have a producer closed before the next record, not now: this may be its own thread."""
        if not is_too_large(error) and self._failed is not producer:
            self._failed = producer
            LOGGER.warning("topic %s: %s; a new producer is opened", record.topic, one_line(error))

    def _queued(self, producer: KafkaProducer, record: OutgoingRecord) -> Any:
        return producer.send(record.topic, value=record.value, key=record.key, headers=[*record.headers])


def is_too_large(error: BaseException | None) -> bool:
    """Return whether a topic refused a record for its size."""
    return isinstance(error, _TOO_LARGE)


def is_fenced(error: BaseException) -> bool:
    """Return whether another client has taken this one's name; it may be named in another error's message only."""
    return isinstance(error, _FENCED) or any(kind.__name__ in str(error) for kind in _FENCED)


def _outcome(future: Any) -> Outcome:
    if future.failed():
        return future.exception
    future.get(timeout=0)
    return None
