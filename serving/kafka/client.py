"""Kafka clients, opened with the settings that Driftline's guarantees rest on."""

from __future__ import annotations

from typing import Any, Final, cast

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from driftline.components.errors import one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Coordinates, Headers, Record

MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""Records up to this size are read and produced; the broker's own limit may be lower (1 MiB by default)."""

_SESSION_TIMEOUT_MS: Final = 30_000  # a worker killed without a word is replaced after this; garbage collection is not
_RECONNECT_MS: Final = (
    2000  # a broker that comes back is found within seconds, not after the client's usual half minute
)
_BATCH_BYTES: Final = 256 * 1024  # some fifty vectors to a request, not three; a quarter of what brokers allow
_MAX_POLL_INTERVAL_MS: Final = 600_000  # a batch on a slow CPU, its retries and a model's first call included


class FencedError(UnavailableError):
    """Another process has taken this one's name."""


def open_consumer(
    settings: KafkaSettings,
    *,
    group: str | None,
    instance_id: str | None = None,
    **options: Any,
) -> KafkaConsumer:
    """Return a consumer that sees committed records only and commits when it is told to.

    Args:
        settings: how to reach the cluster.
        group: its consumer group; None for a reader that assigns partitions itself.
        instance_id: name of this member that outlives a restart (static membership): the partitions then wait for it
            instead of being handed around.
        options: further ones of kafka-python; they win.

    Raises:
        UnavailableError: no broker answers.
    """
    chosen: dict[str, Any] = {
        "group_id": group,
        "group_instance_id": instance_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "session_timeout_ms": _SESSION_TIMEOUT_MS,
        "max_poll_interval_ms": _MAX_POLL_INTERVAL_MS,
        "max_partition_fetch_bytes": MAX_RECORD_BYTES,
    }
    with_group = {name: value for name, value in chosen.items() if value is not None}
    return _opened(KafkaConsumer, settings, {**with_group, **options})


def open_producer(settings: KafkaSettings, *, transactional_id: str | None = None, **options: Any) -> KafkaProducer:
    """Return a producer whose records are written once, in order, and acknowledged by all replicas.

    Args:
        settings: how to reach the cluster.
        transactional_id: name under which it writes transactions; a second producer of the same name shuts the first
            one out.
        options: further ones of kafka-python; they win.

    Raises:
        UnavailableError: no broker answers.
    """
    chosen: dict[str, Any] = {
        "acks": "all",
        "enable_idempotence": True,
        "transactional_id": transactional_id,
        "max_request_size": MAX_RECORD_BYTES,
        "batch_size": _BATCH_BYTES,
        "linger_ms": 5,  # gathers what one micro-batch sends; a worker flushes anyway
    }
    if transactional_id is None:
        del chosen["transactional_id"]
    return _opened(KafkaProducer, settings, {**chosen, **options})


def open_admin(settings: KafkaSettings) -> KafkaAdminClient:
    """Return a client that creates and describes topics.

    Raises:
        UnavailableError: no broker answers.
    """
    return _opened(KafkaAdminClient, settings, {})


# The next three functions use private parts of kafka-python: nothing public tells whether a consumer has to join its
# group, or has begun to, nor forgets an answer that came too late. A test fails where a version lacks them.


def is_joining(consumer: Any) -> bool:
    """Return whether a member of a group is between two assignments.

    Until a join is over, the broker answers nothing else that the group is asked, such as what it has committed.
    """
    return consumer._coordinator.rejoining


def join_group(consumer: Any, timeout_s: float) -> bool:
    """Have a consumer join its group where it must; return whether it has.

    kafka-python goes on with a join only where somebody waits for it: a wait that ends between the two halves of a
    join throws the first away, and all members have to join once more. So a join has a wait of its own, and a poll for
    records afterwards none. And it forgets one that it began because the topic's partitions changed, and that the poll
    did not wait for: the member would then have no partitions, and send no heartbeats, for good.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining and not coordinator.need_rejoin():
        coordinator.request_rejoin()
    if not (coordinator.need_rejoin() or coordinator.coordinator_unknown()):
        return True
    return coordinator.poll(timeout_ms=int(1000 * timeout_s))


def forget_late_answers(consumer: Any) -> None:
    """Have a consumer ask anew for committed offsets.

    kafka-python keeps an answer that came too late, and gives it to who asks for the same partitions next, however much
    later: another member may have had them meanwhile, and read on.
    """
    consumer._coordinator._offset_fetch_futures.clear()


def record_of(found: ConsumerRecord) -> Record:
    """Return a record as the rest of Driftline knows it."""
    # The wire allows null values of headers, which kafka-python will not send on.
    given = cast("list[tuple[str, bytes | None]]", found.headers or [])
    headers: Headers = tuple((name, value or b"") for name, value in given)
    at = Coordinates(found.topic, found.partition, found.offset, found.timestamp)
    return Record(found.key, found.value, headers, at)


def brokers(settings: KafkaSettings) -> str:
    """Return the brokers' addresses for messages."""
    return ", ".join(settings.bootstrap_servers)


def _opened(client: Any, settings: KafkaSettings, options: dict[str, Any]) -> Any:
    try:
        return client(**{"reconnect_backoff_max_ms": _RECONNECT_MS, **settings.options(), **options})
    except KafkaError as error:
        raise UnavailableError(
            f"Kafka at {brokers(settings)}: {one_line(error)}; check the address, the security settings and the network"
        ) from error
