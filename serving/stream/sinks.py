"""How results are written: in one transaction with the source's offsets, or before them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.stream.producing import KnownSizes, is_fenced, is_too_large, produce
from driftline.serving.stream.results import Result

TRANSACTION_TIMEOUT_S: Final = 300.0
"""After which brokers abort a transaction that goes nowhere: longer than they are away for maintenance, shorter than
their usual limit of 15 minutes. (A worker that is started again aborts what it left behind at once.)"""


class WriteError(Exception):
    """A batch was not written; it is to be read and written again."""


class FencedError(UnavailableError):
    """Another process has taken this worker's name."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch.

    Attributes:
        results: as they were written in the end.
        produce_s: seconds until all brokers had them.
        commit_s: seconds until they counted.
    """

    results: Sequence[Result]
    produce_s: float
    commit_s: float


class Sink(Protocol):
    """Writes batches, one after the other."""

    def start(self) -> None:
        """Reach the broker.

        Raises:
            UnavailableError: it does not answer, or refuses.
        """
        ...

    def write(self, results: Sequence[Result], offsets: Mapping[TopicPartition, int], membership: Any) -> Written:
        """Write a batch.

        Args:
            results: to write, in order.
            offsets: of the source that are then done: the next to read of each partition.
            membership: the worker's place in the group when the batch was read.

        Raises:
            WriteError: it was not written, or nobody knows.
            FencedError: another worker has this one's name.
        """
        ...

    def take_done(self) -> dict[TopicPartition, int]:
        """Return the offsets that are left to the consumer to commit, since this was last asked."""
        ...

    def close(self) -> None:
        """Let go of the broker, without waiting for it."""
        ...


class TransactionalSink:
    """Writes each batch and the source's offsets in one transaction.

    A producer whose transaction failed is not used again: its sequence numbers are out of step with the broker's. The
    next one, of the same name, has the broker abort what is left of it.

    Args:
        open_producer: opens a transactional producer; always of the same name.
        too_large: what is written in place of a result that its topic refuses for its size.
    """

    def __init__(self, open_producer: Callable[[], KafkaProducer], too_large: Callable[[Result], Result]) -> None:
        self._open = open_producer
        self._sizes = KnownSizes(too_large)
        self._producer: KafkaProducer | None = None

    def start(self) -> None:
        """See :class:`Sink`; what an earlier process of this name left open is aborted."""
        self._started()

    def write(self, results: Sequence[Result], offsets: Mapping[TopicPartition, int], membership: Any) -> Written:
        """See :class:`Sink`."""
        fitting = [self._sizes.fit(result) for result in results]
        committed = {at: OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()}
        # Each round has one result less that is whole.
        for _ in range(2 * len(fitting) + 1):
            began_s = time.monotonic()
            try:
                producer = self._started()
                producer.begin_transaction()
                outcomes = produce(producer, fitting)
                produced_s = time.monotonic()
                if not any(outcomes):
                    producer.send_offsets_to_transaction(committed, membership)
                    producer.commit_transaction()
                    return Written(fitting, produced_s - began_s, time.monotonic() - produced_s)
                place = self._refused(fitting, outcomes)
            except KafkaError as error:
                raise self._failure(error, time.monotonic() - began_s) from error
            except UnavailableError as error:
                raise WriteError(str(error)) from error
            fitting[place] = self._sizes.refuse(fitting[place])
        raise WriteError("a dead letter without its value is still too large for its topic")

    def take_done(self) -> dict[TopicPartition, int]:
        """See :class:`Sink`: none, they are in the transactions."""
        return {}

    def close(self) -> None:
        """See :class:`Sink`; an open transaction is aborted by the next producer of this name, or by the broker."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)

    def _started(self) -> KafkaProducer:
        if self._producer is None:
            producer = self._open()
            try:
                producer.init_transactions()
            except KafkaError as error:
                producer.close(timeout=0)
                raise UnavailableError(f"transactions: {one_line(error)}; can the brokers do them?") from error
            self._producer = producer
        return self._producer

    def _refused(self, results: Sequence[Result], outcomes: Sequence[BaseException | None]) -> int:
        """Return the number of a result that its topic refuses for its size.

        When one is refused, others that were on their way fail with the same error; so each is tried alone, the largest
        first, in a transaction that is never committed.

        Raises:
            KafkaError: it was another error.
        """
        self.close()
        other = next((outcome for outcome in outcomes if outcome is not None and not is_too_large(outcome)), None)
        suspects = [number for number, outcome in enumerate(outcomes) if is_too_large(outcome)]
        for number in sorted(suspects, key=lambda number: -results[number].bytes):
            producer = self._started()
            producer.begin_transaction()
            [outcome] = produce(producer, [results[number]])
            self.close()
            if is_too_large(outcome):
                return number
        raise other or KafkaError("records were refused together that are not refused alone")

    def _failure(self, error: KafkaError, open_s: float) -> Exception:
        self.close()
        # Brokers shut out the producer of a transaction that took too long, as they do with one that was replaced.
        if is_fenced(error) and open_s < TRANSACTION_TIMEOUT_S:
            return FencedError(
                "transactions: another worker has the same instance-id and group; give each one an id of its own"
            )
        return WriteError(one_line(error))


class CommittingSink:
    """Writes each batch, and only then lets the source's offsets be committed, by the thread that has the consumer.

    Args:
        open_producer: opens an idempotent producer.
        too_large: what is written in place of a result that its topic refuses for its size.
    """

    def __init__(self, open_producer: Callable[[], KafkaProducer], too_large: Callable[[Result], Result]) -> None:
        self._open = open_producer
        self._sizes = KnownSizes(too_large)
        self._producer: KafkaProducer | None = None
        self._lock = threading.Lock()
        self._done: dict[TopicPartition, int] = {}

    def start(self) -> None:
        """See :class:`Sink`."""
        self._started()

    def write(self, results: Sequence[Result], offsets: Mapping[TopicPartition, int], membership: Any) -> Written:
        """See :class:`Sink`."""
        began_s = time.monotonic()
        fitting = [self._sizes.fit(result) for result in results]
        try:
            outcomes = produce(self._started(), fitting)
            if any(outcomes):
                self.close()
                other = next((found for found in outcomes if found is not None and not is_too_large(found)), None)
                if not any(map(is_too_large, outcomes)):
                    raise other or KafkaError("records were refused")
                for number, outcome in enumerate(outcomes):
                    if outcome is not None:
                        fitting[number] = self._alone(fitting[number])
        except (KafkaError, UnavailableError) as error:
            self.close()
            raise WriteError(one_line(error)) from error
        with self._lock:
            self._done.update(offsets)
        return Written(fitting, time.monotonic() - began_s, 0.0)

    def take_done(self) -> dict[TopicPartition, int]:
        """See :class:`Sink`."""
        with self._lock:
            done, self._done = self._done, {}
            return done

    def close(self) -> None:
        """See :class:`Sink`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)

    def _started(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = self._open()
        return self._producer

    def _alone(self, result: Result) -> Result:
        """Write a result by itself, or what fits in its place, and return what was written."""
        for _ in range(3):  # itself, its dead letter, its dead letter without the value
            [outcome] = produce(self._started(), [result])
            if outcome is None:
                return result
            self.close()
            if not is_too_large(outcome):
                raise outcome
            result = self._sizes.refuse(result)
        raise KafkaError("a dead letter without its value is still too large for its topic")
