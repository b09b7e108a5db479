"""Topics made where they are missing."""

from __future__ import annotations

from collections.abc import Mapping

from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from driftline.serving.broker.clients import brokers, open_admin
from driftline.serving.broker.settings import KafkaSettings
from driftline.serving.errors import UnavailableError


def create_topics(kafka: KafkaSettings, partitions: Mapping[str, int]) -> None:
    """Create topics, with the cluster's default replication; those that are there stay as they are.

    Args:
        kafka: how to reach the cluster.
        partitions: of each topic.

    Raises:
        UnavailableError: the cluster does not answer, or refuses.
    """
    admin = open_admin(kafka)
    try:
        for name, count in partitions.items():
            try:
                admin.create_topics([NewTopic(name, num_partitions=count, replication_factor=-1)])
            except TopicAlreadyExistsError:
                continue
    except KafkaError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnavailableError(f"topics at {brokers(kafka)}: could not be created ({reason})") from error
    finally:
        admin.close()
