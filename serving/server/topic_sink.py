"""The output topic: a result is on it, on all replicas, before the event that asked for it is answered."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Protocol

from kafka.errors import KafkaError, MessageSizeTooLargeError

from driftline.serving.errors import PoisonError, UnavailableError
from driftline.serving.kafka.client import brokers, open_producer
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Headers

LOGGER: Final = logging.getLogger(__name__)


class Producer(Protocol):
    """What of kafka-python's producer is used."""

    def send(self, topic: str, *, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]) -> Any:
        """Queue a record; may block. Returns kafka-python's future."""
        ...

    def close(self, timeout: float | None = None) -> None:
        """Let go of it."""
        ...


class TopicSink:
    """A topic to write results to, shared by all requests.

    kafka-python's producer blocks while it looks for brokers, so it has a thread of its own. It is opened for the first
    record, and anew after a failure: a producer whose sequence was broken by a broker's absence is not to be trusted
    with another record. Records are written once or more: a record that was given up may still arrive.
    """

    def __init__(
        self,
        topic: str,
        kafka: KafkaSettings,
        timeout_s: float,
        opened: Callable[[], Producer] | None = None,
    ) -> None:
        """Make it; nothing is opened yet.

        Args:
            topic: its name.
            kafka: how its cluster is reached.
            timeout_s: within which a record is safe, or has failed.
            opened: opens a producer; None for kafka-python's.
        """
        self.topic = topic
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._opened = opened or self._open
        self._producer: Producer | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "driftline-produce")

    async def write(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Write a record, and return when it is safe.

        Raises:
            UnavailableError: it is not, in time.
            PoisonError: ``output-too-large``: the cluster will never take a record of this size.
        """
        sending = self._thread.submit(self._send, key, value, headers)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.wrap_future(await asyncio.wrap_future(sending))
        except TimeoutError as error:
            raise self._unavailable(f"no acknowledgement within {self._timeout_s:g} s") from error
        except MessageSizeTooLargeError as error:
            raise PoisonError(
                "output-too-large", f"topic {self.topic}: its brokers do not take a record of {len(value or b'')} bytes"
            ) from error
        except KafkaError as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def close(self) -> None:
        """Let go of the producer; what is not acknowledged by now was never answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)

    def _send(self, key: bytes | None, value: bytes | None, headers: Headers) -> Future[None]:
        """Queue a record with the producer, in the sink's thread; the future ends when it is safe or has failed."""
        safe: Future[None] = Future()
        with self._lock:
            producer = self._producer
        if producer is None:
            producer = self._opened()
            with self._lock:
                self._producer = producer
        try:
            sent = producer.send(self.topic, value=value, key=key, headers=[*headers])
        except KafkaError as error:
            self._failed(producer, error)
            raise
        # They run in the producer's own thread.
        sent.add_callback(lambda _: _settle(safe, None))
        sent.add_errback(lambda error: (self._failed(producer, error), _settle(safe, error)))
        return safe

    def _failed(self, producer: Producer, error: BaseException) -> None:
        """Put a producer aside that has failed to write a record which was fit to be written."""
        if isinstance(error, MessageSizeTooLargeError):
            return
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        LOGGER.warning("topic %s: %s; a new producer is opened", self.topic, error)
        # Not in this thread: it may be the producer's own, which close() waits for.
        threading.Thread(target=producer.close, kwargs={"timeout": 0}, name="driftline-close", daemon=True).start()

    def _open(self) -> Producer:
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
            f"topic {self.topic} at {brokers(self._kafka)}: {' '.join(reason.split())}; the event is not answered "
            "before its result is safe, so send it again"
        )


def _settle(safe: Future[None], error: BaseException | None) -> None:
    with suppress(InvalidStateError):  # nobody waits for it any more
        if error is None:
            safe.set_result(None)
        else:
            safe.set_exception(error)
