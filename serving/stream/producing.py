"""Results onto topics: sent together, each answer looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RecordListTooLargeError,
)

from driftline.serving.stream.results import Result

_FLUSH_TIMEOUT_S: Final = 120.0  # brokers elect new leaders in seconds; beyond, it is better to begin anew
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_FENCED: Final = (ProducerFencedError, FencedInstanceIdError)


def produce(producer: KafkaProducer, results: Sequence[Result]) -> list[BaseException | None]:
    """Send results, wait until the brokers have them, and return what became of each: None, or its error.

    Raises:
        KafkaError: they did not get there in time, or the producer cannot send.
    """
    sent: list[Any] = []
    for result in results:
        try:
            sent.append(producer.send(result.topic, result.value, result.key, headers=[*result.headers]))
        except MessageSizeTooLargeError as error:
            sent.append(error)
    producer.flush(_FLUSH_TIMEOUT_S)
    # Every answer counts: a transaction may be committed though one of its records never arrived.
    return [answer if isinstance(answer, KafkaError) else _outcome(answer) for answer in sent]


def is_too_large(error: BaseException | None) -> bool:
    """Return whether a topic refused a record for its size."""
    return isinstance(error, _TOO_LARGE)


def is_fenced(error: BaseException) -> bool:
    """Return whether another client has taken this one's name; the client also says so in another error's words."""
    return isinstance(error, _FENCED) or any(kind.__name__ in str(error) for kind in _FENCED)


class KnownSizes:
    """What topics have refused as too large, so that no transaction is begun in vain for the like.

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
                return smaller  # nothing smaller is left; let the topic say so
            result = smaller
        return result

    def _is_refused(self, result: Result) -> bool:
        known = self._refused_bytes.get(result.topic)
        return known is not None and result.bytes >= known


def _outcome(future: Any) -> BaseException | None:
    if future.failed():
        return future.exception
    future.get(timeout=0)
    return None
