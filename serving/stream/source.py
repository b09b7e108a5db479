"""The topic of texts, as a member of a consumer group reads it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka.admin import MemberToRemove  # pyright: ignore[reportAttributeAccessIssue]  # (its stubs are older than it)
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    RetriableError,  # pyright: ignore[reportAttributeAccessIssue]
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import assigned, committed, open_admin, poll, record_of
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Record
from driftline.serving.stream.sinks import FencedError

LOGGER: Final = logging.getLogger(__name__)

_ANSWER_TIMEOUT_MS: Final = 5000  # a broker that is there answers in milliseconds; the loop must go on turning
_CLOSE_TIMEOUT_MS: Final = 5000


class Source:
    """Records of a topic's partitions that the group gives this worker.

    Belongs to one thread, which must poll it every few minutes at least, or the group takes the partitions away.

    Args:
        consumer: a KafkaConsumer with its group and its instance id.
        topic: the texts'.
        revoked: called before partitions are taken away; what it does not finish is done again by who gets them.
    """

    def __init__(self, consumer: Any, topic: str, revoked: Callable[[], None]) -> None:
        self._consumer = consumer
        self._topic = topic
        self._listener = _Listener(revoked)
        self._paused = False
        consumer.subscribe([topic], listener=self._listener)

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Return what there is, each partition's records in order.

        Raises:
            FencedError: another worker has this one's instance id.
            UnavailableError: the broker refuses, for good.
        """
        try:
            polled = poll(self._consumer, timeout_s, max_records)
        except FencedInstanceIdError as error:
            raise FencedError(
                "consumer group: another worker has the same instance-id; give each one an id of its own"
            ) from error
        except RetriableError as error:
            LOGGER.warning("topic %s: %s; trying again", self._topic, one_line(error))
            return []
        except KafkaError as error:
            raise UnavailableError(
                f"topic {self._topic}: {one_line(error)}; see to the broker and its rights"
            ) from error
        return [record_of(found) for records in polled.values() for found in records]

    def take_rebalanced(self) -> bool:
        """Return whether partitions have been handed around since this was last asked."""
        rebalanced, self._listener.rebalanced = self._listener.rebalanced, False
        return rebalanced

    def partitions(self) -> set[TopicPartition]:
        """Return the partitions that this worker has now; none while it joins the group."""
        return assigned(self._consumer)

    def membership(self) -> object | None:
        """Return this worker's place in the group, by which the broker tells it from a former one; None without one."""
        place = self._consumer.group_metadata()
        # Offsets that come without a generation are checked by nobody.
        return place if place.generation_id >= 0 else None

    def rewind(self) -> dict[TopicPartition, int]:
        """Go back to what the group has committed and return it; where it has nothing, to the beginning.

        Raises:
            UnavailableError: the broker does not say now.
        """
        mine = self.partitions()
        try:
            found = committed(self._consumer, mine, _ANSWER_TIMEOUT_MS / 1000)
            new = [at for at, offset in found.items() if offset is None]
            first = self._consumer.beginning_offsets(new, timeout_ms=_ANSWER_TIMEOUT_MS) if new else {}
        except KafkaError as error:
            raise UnavailableError(f"topic {self._topic}: committed offsets: {one_line(error)}") from error
        known = {at: offset for at, offset in found.items() if offset is not None}
        offsets: dict[TopicPartition, int] = {**known, **first}
        for at, offset in offsets.items():
            self._consumer.seek(at, offset)
        return offsets

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets of partitions that this worker still has.

        Raises:
            UnavailableError: they may not be committed; the records are then read and written again.
        """
        mine = self.partitions()
        kept = {at: OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items() if at in mine}
        if not kept:
            return
        try:
            self._consumer.commit(kept, timeout_ms=_ANSWER_TIMEOUT_MS)
        except KafkaError as error:
            raise UnavailableError(f"topic {self._topic}: commit: {one_line(error)}") from error

    def pause(self, *, paused: bool) -> None:
        """Stop or go on to return records; the group is none the wiser."""
        if paused:
            self._consumer.pause(*self.partitions())  # each time: partitions may be new
        elif self._paused:
            self._consumer.resume(*self._consumer.paused())
        self._paused = paused

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Return the offset behind the last record of each partition, as the broker said it last."""
        found: dict[TopicPartition, Any] = {at: self._consumer.highwater(at) for at in self.partitions()}
        return {at: offset for at, offset in found.items() if offset is not None}

    def close(self) -> None:
        """End the membership; a static one waits for its return."""
        try:
            self._consumer.close(timeout_ms=_CLOSE_TIMEOUT_MS)
        except KafkaError as error:
            LOGGER.warning("topic %s: leaving the group: %s", self._topic, one_line(error))


def leave_group(kafka: KafkaSettings, group: str, instance_id: str) -> None:
    """Have the group hand a static member's partitions to others now, not when its session has timed out."""
    try:
        admin: Any = open_admin(kafka)
        try:
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance_id, reason="ended")])
        finally:
            admin.close()
    except (KafkaError, UnavailableError) as error:
        LOGGER.warning("group %s: leaving: %s; its partitions wait for the session to time out", group, one_line(error))


class _Listener(ConsumerRebalanceListener):
    """Runs in the client's own loop: it does no more than wait for a write under way."""

    def __init__(self, revoked: Callable[[], None]) -> None:
        self._revoked = revoked
        self.rebalanced = False

    def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            self.rebalanced = True
            self._revoked()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.rebalanced = True
