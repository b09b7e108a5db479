"""The output topic: a result is on it, on all replicas, before the event that asked for it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from driftline.components.errors import one_line
from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.kafka.client import brokers, open_producer
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.kafka.writer import Outcome, TopicWriter, is_too_large
from driftline.serving.records.record import Headers, OutgoingRecord


class TopicSink:
    """A topic to write results to, shared by all requests.

    kafka-python's producer blocks while it looks for brokers, so it has a thread of its own. Records are written once
    or more: a record that was given up may still arrive.
    """

    def __init__(
        self,
        topic: str,
        kafka: KafkaSettings,
        timeout_s: float,
        open_with: Callable[[], KafkaProducer] | None = None,
    ) -> None:
        """Make it; nothing is opened yet.

        Args:
            topic: its name.
            kafka: how its cluster is reached.
            timeout_s: within which a record is safe, or has failed.
            open_with: opens a producer; None for one with these settings.
        """
        self.topic = topic
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._writer = TopicWriter(open_with or self._open)
        self._thread = ThreadPoolExecutor(1, "driftline-produce")

    async def write(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Write a record, and return when it is safe.

        Raises:
            UnavailableError: it is not, in time.
            PoisonError: ``output-too-large``: the cluster will never take a record of this size.
        """
        sending = self._thread.submit(self._send, OutgoingRecord(self.topic, key, value, headers))
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(await asyncio.wrap_future(sending))
        except TimeoutError as error:
            raise self._unavailable(f"no acknowledgement within {self._timeout_s:g} s") from error
        except KafkaError as error:
            if is_too_large(error):
                raise PoisonError(
                    "output-too-large",
                    f"topic {self.topic}: its brokers do not take a record of {len(value or b'')} bytes",
                ) from error
            raise self._unavailable(one_line(error)) from error

    def close(self) -> None:
        """Let go of the producer; what is not acknowledged by now was never answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._writer.close()

    def _send(self, record: OutgoingRecord) -> Future[None]:
        """Queue a record with the producer, in the sink's thread; the future ends when it is safe or has failed."""
        safe: Future[None] = Future()
        self._writer.submit(record, lambda outcome: _settle(safe, outcome))
        return safe

    def _open(self) -> KafkaProducer:
        timeout_ms = max(1000, int(self._timeout_s * 1000))
        return open_producer(
            self._kafka,
            bootstrap_timeout_ms=timeout_ms,
            max_block_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=timeout_ms + 100,  # at least the request's and the lingering's together
            linger_ms=0,  # each answer waits for its record
        )

    def _unavailable(self, reason: str) -> UnavailableError:
        return UnavailableError(
            f"topic {self.topic} at {brokers(self._kafka)}: {reason}; the event is not answered "
            "before its result is safe, so send it again"
        )


def _settle(safe: Future[None], error: Outcome) -> None:
    with suppress(InvalidStateError):  # nobody waits for it any more
        if error is None:
            safe.set_result(None)
        else:
            safe.set_exception(error)
