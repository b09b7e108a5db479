"""Topics: which are there, and the creation of those that are missing where that is wanted."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from driftline.components.errors import UsageError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import brokers, open_admin
from driftline.serving.kafka.settings import KafkaSettings


def create_topics(kafka: KafkaSettings, partitions: Mapping[str, int]) -> None:
    """Create topics, with the cluster's default replication; those that are there stay as they are.

    Args:
        kafka: how to reach the cluster.
        partitions: of each topic.

    Raises:
        UnavailableError: the cluster does not answer, or refuses.
    """
    with _admin(kafka) as admin:
        _create(admin, partitions)


def is_topic(kafka: KafkaSettings, topic: str) -> bool:
    """Return whether a topic is there.

    Raises:
        UnavailableError: the cluster does not say, or refuses.
    """
    with _admin(kafka) as admin:
        return bool(_partitions(admin, [topic])[topic])


def check_topics(kafka: KafkaSettings, source: str, targets: Sequence[str], *, create: bool) -> None:
    """Make sure that topics are there.

    Args:
        kafka: how to reach the cluster.
        source: topic that is read; it must be there.
        targets: topics that are written.
        create: whether those of the targets that are missing are created, with the source's number of partitions and
            the cluster's default replication.

    Raises:
        UsageError: a topic is missing.
        UnavailableError: the cluster does not say, or refuses.
    """
    with _admin(kafka) as admin:
        partitions = _partitions(admin, [source, *targets])
        if not partitions[source]:
            raise UsageError(f"topic {source}: is not at {brokers(kafka)}; create it, or name the topic of the texts")
        missing = [topic for topic in targets if not partitions[topic]]
        if missing and not create:
            raise UsageError(f"topic {missing[0]}: is not at {brokers(kafka)}; create it, or let --create-topics do so")
        _create(admin, dict.fromkeys(missing, partitions[source]))


@contextmanager
def _admin(kafka: KafkaSettings) -> Generator[Any]:
    admin: Any = open_admin(kafka)
    try:
        yield admin
    except KafkaError as error:
        raise UnavailableError(
            f"topics at {brokers(kafka)}: {one_line(error)}; see to the rights and the name"
        ) from error
    finally:
        admin.close()


def _partitions(admin: Any, topics: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for described in admin.describe_topics(topics):
        code = described["error_code"]
        if code and for_code(code).__name__ not in ("UnknownTopicOrPartitionError", "UnknownTopicIdError"):
            raise for_code(code)()
        found[described["name"]] = len(described["partitions"])
    return {topic: found.get(topic, 0) for topic in topics}


def _create(admin: Any, partitions: Mapping[str, int]) -> None:
    for topic, count in partitions.items():
        try:
            admin.create_topics([NewTopic(topic, count, -1)])
        except TopicAlreadyExistsError:
            continue  # somebody else was faster
