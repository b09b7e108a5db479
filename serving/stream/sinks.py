"""Writing of results: in one transaction with the source's offsets, or before them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import FencedError
from driftline.serving.kafka.writer import Outcome, TopicWriter, is_fenced, is_too_large
from driftline.serving.stream.work_items import Result

TRANSACTION_TIMEOUT_S: Final = 300.0
"""After which brokers abort a transaction that goes nowhere: longer than they are away for maintenance, shorter than
their usual limit of 15 minutes. (A worker that is started again aborts what it left behind at once.)"""


class WriteError(Exception):
    """A batch was not written; it is to be read and written again."""


@dataclass(frozen=True, slots=True)
class Written:
    """A batch that was written.

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

    def write(self, results: Sequence[Result], offsets: Mapping[int, int], membership: Any) -> Written:
        """Write a batch.

        Args:
            results: to write, in order.
            offsets: of the source that are then done: the next to read of each partition, by its number.
            membership: the worker's place in the group when the batch was read.

        Raises:
            WriteError: it was not written, or nobody knows.
            FencedError: another worker has this one's name.
        """
        ...

    def take_committable_offsets(self) -> dict[int, int]:
        """Return the offsets that the reader is to commit, since this was last asked."""
        ...

    def close(self) -> None:
        """Let go of the broker, without waiting for it."""
        ...


class TransactionalSink:
    """Writes each batch and the source's offsets in one transaction.

    A writer whose transaction failed begins anew; the broker then aborts what is left of it.

    Args:
        writer: writes transactions, always under the same name.
        source: topic that the offsets are of.
        too_large: what is written in place of a result that its topic refuses for its size.
    """

    def __init__(self, writer: TopicWriter, source: str, too_large: Callable[[Result], Result]) -> None:
        self._writer = writer
        self._source = source
        self._sizes = KnownSizes(too_large)

    def start(self) -> None:
        """See :class:`Sink`; what an earlier process of this name left open is aborted."""
        self._writer.start()

    def write(self, results: Sequence[Result], offsets: Mapping[int, int], membership: Any) -> Written:
        """See :class:`Sink`."""
        fitting = [self._sizes.fit(result) for result in results]
        committed = {
            TopicPartition(self._source, number): OffsetAndMetadata(offset, "", -1)
            for number, offset in offsets.items()
        }
        # Each round has one result less that is whole.
        for _ in range(2 * len(fitting) + 1):
            began_s = time.monotonic()
            try:
                self._writer.begin()
                outcomes = self._writer.write(fitting)
                produced_s = time.monotonic()
                if not any(outcomes):
                    self._writer.commit(committed, membership)
                    return Written(fitting, produced_s - began_s, time.monotonic() - produced_s)
                place = self._refused(fitting, outcomes)
            except KafkaError as error:
                raise self._failure(error, time.monotonic() - began_s) from error
            except UnavailableError as error:
                raise WriteError(str(error)) from error
            fitting[place] = self._sizes.refuse(fitting[place])
        raise WriteError("a dead letter without its value is still too large for its topic")

    def take_committable_offsets(self) -> dict[int, int]:
        """See :class:`Sink`: none, they are in the transactions."""
        return {}

    def close(self) -> None:
        """See :class:`Sink`; an open transaction is aborted by the next process of this name, or by the broker."""
        self._writer.close()

    def _refused(self, results: Sequence[Result], outcomes: Sequence[Outcome]) -> int:
        """Return the number of a result that its topic refuses for its size.

        When one is refused, others that were on their way fail with the same error; so each is tried alone, the largest
        first, in a transaction that is never committed.

        Raises:
            KafkaError: it was another error.
        """
        other = next((outcome for outcome in outcomes if outcome is not None and not is_too_large(outcome)), None)
        suspects = [number for number, outcome in enumerate(outcomes) if is_too_large(outcome)]
        for number in sorted(suspects, key=lambda number: -results[number].bytes):
            self._writer.begin()
            [outcome] = self._writer.write([results[number]])
            self._writer.reset()
            if is_too_large(outcome):
                return number
        raise other or KafkaError("records were refused together that are not refused alone")

    def _failure(self, error: KafkaError, open_s: float) -> Exception:
        self._writer.reset()
        # Brokers shut out the producer of a transaction that took too long, as they do with one that was replaced.
        if is_fenced(error) and open_s < TRANSACTION_TIMEOUT_S:
            return FencedError(
                "transactions: another worker has the same instance-id and group; give each one an id of its own"
            )
        return WriteError(one_line(error))


class CommittingSink:
    """Writes each batch, and only then lets the source's offsets be committed, by the thread that has the consumer.

    Args:
        writer: writes without transactions.
        too_large: what is written in place of a result that its topic refuses for its size.
    """

    def __init__(self, writer: TopicWriter, too_large: Callable[[Result], Result]) -> None:
        self._writer = writer
        self._sizes = KnownSizes(too_large)
        self._lock = threading.Lock()
        self._committable: dict[int, int] = {}

    def start(self) -> None:
        """See :class:`Sink`."""
        self._writer.start()

    def write(self, results: Sequence[Result], offsets: Mapping[int, int], membership: Any) -> Written:
        """See :class:`Sink`."""
        began_s = time.monotonic()
        fitting = [self._sizes.fit(result) for result in results]
        try:
            outcomes = self._writer.write(fitting)
            refused = [number for number, outcome in enumerate(outcomes) if outcome is not None]
            if refused and not any(map(is_too_large, outcomes)):
                raise outcomes[refused[0]] or KafkaError("records were refused")
            for number in refused:
                fitting[number] = self._alone(fitting[number])
        except (KafkaError, UnavailableError) as error:
            self._writer.reset()
            raise WriteError(one_line(error)) from error
        with self._lock:
            self._committable.update(offsets)
        return Written(fitting, time.monotonic() - began_s, 0.0)

    def take_committable_offsets(self) -> dict[int, int]:
        """See :class:`Sink`."""
        with self._lock:
            committable, self._committable = self._committable, {}
            return committable

    def close(self) -> None:
        """See :class:`Sink`."""
        self._writer.close()

    def _alone(self, result: Result) -> Result:
        """Write a result by itself, or what fits in its place, and return what was written."""
        for _ in range(3):  # itself, its dead letter, its dead letter without the value
            [outcome] = self._writer.write([result])
            if outcome is None:
                return result
            if not is_too_large(outcome):
                raise outcome
            result = self._sizes.refuse(result)
        raise KafkaError("a dead letter without its value is still too large for its topic")


class KnownSizes:
    """Memory of the sizes that topics have refused, so that no transaction is begun in vain for the like.

    Args:
        too_large: what is written in place of a result that its topic refuses.
    """

    def __init__(self, too_large: Callable[[Result], Result]) -> None:
        self._too_large = too_large
        self._refused_bytes: dict[str, int] = {}

    def refuse(self, result: Result) -> Result:
        """Note that a topic refused a result, and return what to write in its place."""
        known = self._refused_bytes.get(result.topic)
        self._refused_bytes[result.topic] = result.bytes if known is None else min(known, result.bytes)
        return self.fit(self._too_large(result))

    def fit(self, result: Result) -> Result:
        """Return a result, or what is written in its place where it is known to be refused."""
        while self._is_refused(result):
            smaller = self._too_large(result)
            if smaller.bytes >= result.bytes and smaller.topic == result.topic:
                return smaller  # nothing smaller is left; let the topic refuse it
            result = smaller
        return result

    def _is_refused(self, result: Result) -> bool:
        known = self._refused_bytes.get(result.topic)
        return known is not None and result.bytes >= known
