"""Kafka clients, opened with the settings that Driftline's guarantees rest on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, cast

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

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
_JOIN_S: Final = 5.0  # all members have to say that they are there, each when it polls next
_FIRST_PAUSE_S: Final = 0.004
_LONGEST_PAUSE_S: Final = 0.05
_MAX_POLL_INTERVAL_MS: Final = 600_000  # a batch on a slow CPU, its retries and a model's first call included


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


def poll(consumer: Any, timeout_s: float, max_records: int | None = None) -> dict[Any, list[ConsumerRecord]]:
    """Return what a consumer's partitions have, in order; wait for something where there is nothing.

    kafka-python asks again as soon as a broker says that there is nothing. Apache Kafka says so after half a second; a
    broker that says so at once, as small ones do, would be asked hundreds of times a second, by a core that does
    nothing else. Hence pauses, which grow from 4 milliseconds to 50.

    Args:
        consumer: with its partitions assigned, or a member of a group.
        timeout_s: seconds to wait; some more while the consumer joins its group.
        max_records: how many at most; None for the consumer's own limit.
    """
    coordinator = _coordinator(consumer)
    if coordinator is None:
        return consumer.poll(timeout_ms=int(1000 * timeout_s), max_records=max_records)
    end, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    while _joined(coordinator, max(timeout_s, _JOIN_S)):
        left_s = max(0.0, end - time.monotonic())
        polled = consumer.poll(timeout_ms=0, max_records=max_records)
        if polled:
            return polled
        if coordinator.rejoining:  # since just now: it is seen through
            continue
        if not left_s:
            break
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return {}


def assigned(consumer: Any) -> set[TopicPartition]:
    """Return the partitions that a member of a group has now: none while it joins.

    Until a join is over, the broker answers nothing else that the group is asked, such as what it has committed.
    """
    coordinator = _coordinator(consumer)
    return set() if coordinator is not None and coordinator.rejoining else set(consumer.assignment())


def _coordinator(consumer: Any) -> Any:
    # Nothing public tells whether the consumer has to join its group, or has begun to.
    return getattr(consumer, "_coordinator", None)


def _joined(coordinator: Any, timeout_s: float) -> bool:
    """Have the consumer join its group where it must; return whether it has.

    kafka-python goes on with a join only where somebody waits for it: a wait that ends between the two halves of a
    join throws the first away, and all members have to join once more. So a join has a wait of its own, and a poll for
    records afterwards none. And it forgets one that it began because the topic's partitions changed, and that the poll
    did not wait for: the member would then have no partitions, and send no heartbeats, for good.
    """
    if coordinator.rejoining and not coordinator.need_rejoin():
        coordinator.request_rejoin()
    if not (coordinator.need_rejoin() or coordinator.coordinator_unknown()):
        return True
    return coordinator.poll(timeout_ms=int(1000 * timeout_s))


def committed(
    consumer: Any, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, int | None]:
    """Return the offset that the consumer's group has committed for each partition now; None where it has none.

    Raises:
        KafkaError: the broker does not say in time.
    """
    # kafka-python keeps an answer that came too late, and gives it to who asks for the same partitions next, however
    # much later: another member may have had them meanwhile, and read on.
    kept = getattr(_coordinator(consumer), "_offset_fetch_futures", None)
    if kept is not None:
        kept.clear()
    return {at: consumer.committed(at, timeout_ms=int(1000 * timeout_s)) for at in partitions}


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
