"""A topic as it is read: by a member of a consumer group, or by a reader of its own that takes all partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from kafka.admin import MemberToRemove  # pyright: ignore[reportAttributeAccessIssue]  # (its stubs are older than it)
from kafka.consumer.fetcher import ConsumerRecord
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    LogTruncationError,  # pyright: ignore[reportAttributeAccessIssue]
    OffsetOutOfRangeError,
    RetriableError,  # pyright: ignore[reportAttributeAccessIssue]
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.components.errors import UsageError, one_line
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import (
    FencedError,
    brokers,
    forget_late_answers,
    is_joining,
    join_group,
    open_admin,
    open_consumer,
    record_of,
)
from driftline.serving.kafka.settings import KafkaSettings
from driftline.serving.records.record import Record

LOGGER: Final = logging.getLogger(__name__)

_ANSWER_S: Final = 5.0  # a broker that is there answers in milliseconds; the loop must go on turning
_CLOSE_S: Final = 5.0
_JOIN_S: Final = 5.0  # all members have to report back, each when it polls next
_FIRST_PAUSE_S: Final = 0.004
_LONGEST_PAUSE_S: Final = 0.05
_POLL_S: Final = 0.5
_SILENCE_S: Final = 30.0  # a broker that has what was asked for answers sooner, even one that has just been started


class OffsetGoneError(UnavailableError):
    """The topic no longer has an offset that was to be read, or not any more what was written there."""


class TopicReader:
    """Committed records of one topic, whose partitions are known by their numbers. Belongs to one thread.

    Attributes:
        topic: the topic's name.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, group: str | None = None, **options: Any) -> None:
        """Open a consumer that has no partitions yet.

        Args:
            kafka: how to reach the cluster.
            topic: the topic's name.
            group: whose committed offsets are read; None for nobody's.
            options: further ones of :func:`driftline.serving.kafka.client.open_consumer`.

        Raises:
            UnavailableError: no broker answers.
        """
        self.topic = topic
        self._kafka = kafka
        self._consumer: Any = open_consumer(kafka, group=group, **options)
        self._trouble = ""

    def partitions(self) -> set[int]:
        """Return the partitions that the topic has; none where it is not there.

        Raises:
            UnavailableError: the broker does not say.
        """
        try:
            return set(self._consumer.partitions_for_topic(self.topic) or ())
        except KafkaError as error:
            raise self._unavailable("partitions", error) from error

    def assign(self, partitions: Collection[int]) -> None:
        """Take partitions, as a member of no group; then `seek` to where reading begins."""
        self._consumer.assign([self._at(number) for number in sorted(partitions)])

    def assigned(self) -> set[int]:
        """Return the partitions that this reader has now; none while it joins its group."""
        return set() if is_joining(self._consumer) else self._last_assigned()

    def poll(self, timeout_s: float, max_records: int | None = None) -> dict[int, list[Record]]:
        """Return what there is, each partition's records in order; wait for something where there is nothing.

        Args:
            timeout_s: seconds to wait; some more while the group is joined.
            max_records: how many at most; None for the client's own limit.

        Raises:
            FencedError: another worker has this one's instance id.
            OffsetGoneError: the offset to read is not there; only where the client was told not to choose another one.
            UnavailableError: the broker refuses, for good.
        """
        try:
            polled = self._polled(timeout_s, max_records)
        except FencedInstanceIdError as error:
            raise FencedError(
                "consumer group: another worker has the same instance-id; give each one an id of its own"
            ) from error
        except (OffsetOutOfRangeError, LogTruncationError) as error:
            raise OffsetGoneError(f"topic {self.topic}: {one_line(error)}") from error
        except RetriableError as error:
            trouble = one_line(error)
            if trouble != self._trouble:
                LOGGER.warning("topic %s: %s; trying again", self.topic, trouble)
            self._trouble = trouble
            return {}
        except KafkaError as error:
            raise self._unavailable("", error) from error
        self._trouble = ""
        return {at.partition: [record_of(found) for found in records] for at, records in polled.items()}

    def seek(self, partition: int, offset: int) -> None:
        """Read on at an offset."""
        self._consumer.seek(self._at(partition), offset)

    def position(self, partition: int, timeout_s: float = _ANSWER_S) -> int:
        """Return the offset behind everything that was returned by `poll`; 0 where it is not known yet.

        Raises:
            UnavailableError: the broker does not say now.
        """
        try:
            return self._consumer.position(self._at(partition), timeout_ms=int(1000 * timeout_s)) or 0
        except KafkaError as error:
            raise self._unavailable("position", error) from error

    def pause(self, partitions: Collection[int]) -> None:
        """Have `poll` return records of all partitions but these."""
        paused = {at.partition for at in self._consumer.paused()}
        wanted = self._last_assigned().intersection(partitions)
        self._consumer.resume(*(self._at(number) for number in paused - wanted))
        self._consumer.pause(*(self._at(number) for number in wanted - paused))

    def first_offsets(self, partitions: Collection[int], timeout_s: float = _ANSWER_S) -> dict[int, int]:
        """Return the offset of the oldest record of each partition.

        Raises:
            UnavailableError: the broker does not say now.
        """
        return self._ask("first offsets", self._consumer.beginning_offsets, partitions, timeout_s)

    def end_offsets(self, partitions: Collection[int], timeout_s: float = _ANSWER_S) -> dict[int, int]:
        """Return the offset behind the last committed record of each partition.

        Raises:
            UnavailableError: the broker does not say now.
        """
        return self._ask("end offsets", self._consumer.end_offsets, partitions, timeout_s)

    def end(self, partition: int) -> int | None:
        """Return the offset behind the last record as last heard from the broker; None before that."""
        return self._consumer.highwater(self._at(partition))

    def committed(self, partitions: Collection[int], timeout_s: float = _ANSWER_S) -> dict[int, OffsetAndMetadata]:
        """Return what the group has committed for partitions, where it has.

        Raises:
            UnavailableError: the broker does not say now.
        """
        forget_late_answers(self._consumer)
        try:
            found = {
                number: self._consumer.committed(self._at(number), metadata=True, timeout_ms=int(1000 * timeout_s))
                for number in partitions
            }
        except KafkaError as error:
            raise self._unavailable("committed offsets", error) from error
        return {number: offset for number, offset in found.items() if offset is not None}

    def read_until(self, ends: Mapping[int, int]) -> Iterator[Record]:
        """Yield the records from where this reader is to where its partitions end.

        Args:
            ends: the offset behind the last record wanted of each partition.

        Raises:
            UnavailableError: the broker has sent nothing for half a minute, although there is more.
        """
        heard_s = time.monotonic()
        while any(self.position(number) < end for number, end in ends.items()):
            polled = self.poll(_POLL_S)
            if polled:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENCE_S:
                raise UnavailableError(
                    f"topic {self.topic}: the broker has sent nothing for {_SILENCE_S:.0f} s; try again"
                )
            for number, records in polled.items():
                yield from (record for record in records if record.at.offset < ends[number])

    def close(self) -> None:
        """End the connection, and the membership in a group; a static one waits for its return."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=int(1000 * _CLOSE_S))
        except KafkaError as error:
            LOGGER.warning("topic %s: closing: %s", self.topic, one_line(error))

    def _polled(self, timeout_s: float, max_records: int | None) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Poll with pauses, which grow from 4 milliseconds to 50.

        kafka-python asks again as soon as a broker answers that there is nothing. Apache Kafka answers so after half a
        second; a broker that does so at once, as small ones do, would be asked hundreds of times a second, by a core
        that does nothing else.
        """
        end, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while join_group(self._consumer, max(timeout_s, _JOIN_S)):
            left_s = max(0.0, end - time.monotonic())
            polled = self._consumer.poll(timeout_ms=0, max_records=max_records)
            if polled:
                return polled
            if is_joining(self._consumer):  # since just now: it is seen through
                continue
            if not left_s:
                break
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return {}

    def _last_assigned(self) -> set[int]:
        """Return the partitions that this reader has or, while it joins its group, had before."""
        return {at.partition for at in self._consumer.assignment()}

    def _ask(self, what: str, ask: Callable[..., Any], partitions: Collection[int], timeout_s: float) -> dict[int, int]:
        if not partitions:
            return {}
        try:
            found = ask([self._at(number) for number in partitions], timeout_ms=int(1000 * timeout_s))
        except KafkaError as error:
            raise self._unavailable(what, error) from error
        return {at.partition: offset for at, offset in found.items()}

    def _at(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def _unavailable(self, what: str, error: KafkaError) -> UnavailableError:
        where = f"topic {self.topic} at {brokers(self._kafka)}"
        reason = ": ".join(filter(None, (what, one_line(error))))
        return UnavailableError(f"{where}: {reason}; see to the brokers, the network and the access rights")


class GroupReader(TopicReader):
    """A member of a consumer group, which shares the topic's partitions among its members.

    It must be polled every few minutes at least, or the group takes its partitions away.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        group: str,
        on_revoked: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        """Begin to join the group.

        Args:
            kafka: how to reach the cluster.
            topic: the topic's name.
            group: the group's name.
            on_revoked: called before partitions are taken away; what it does not finish is done again by their next
                member. It is called in the client's own loop: it must not take long, nor use this reader.
            options: further ones of :func:`driftline.serving.kafka.client.open_consumer`.

        Raises:
            UnavailableError: no broker answers.
        """
        super().__init__(kafka, topic, group=group, **options)
        self._listener = _Listener(on_revoked)
        self._consumer.subscribe([topic], listener=self._listener)

    def take_rebalanced(self) -> bool:
        """Return whether partitions have been reassigned since the last call."""
        rebalanced, self._listener.rebalanced = self._listener.rebalanced, False
        return rebalanced

    def take_revoked(self) -> set[int]:
        """Return the partitions that were revoked, and perhaps assigned again, since the last call."""
        revoked, self._listener.revoked = self._listener.revoked, set()
        return revoked

    def membership(self) -> object | None:
        """Return this member's place in the group, by which the broker tells it from a former one; None without one."""
        place = self._consumer.group_metadata()
        # Offsets that come without a generation are checked by nobody.
        return place if place.generation_id >= 0 else None

    def rewind(self) -> dict[int, int]:
        """Go back to what the group has committed and return it; where it has nothing, to the beginning.

        Raises:
            UnavailableError: the broker does not say now.
        """
        mine = self.assigned()
        offsets = {number: found.offset for number, found in self.committed(mine).items()}
        offsets |= self.first_offsets(mine - offsets.keys())
        for number, offset in offsets.items():
            self.seek(number, offset)
        return offsets

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the offsets of those partitions that this member still has.

        Raises:
            UnavailableError: they may not be committed; the records are then read again.
        """
        mine = self.assigned()
        kept = {self._at(at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items() if at in mine}
        if not kept:
            return
        try:
            self._consumer.commit(kept, timeout_ms=int(1000 * _ANSWER_S))
        except KafkaError as error:
            raise self._unavailable("commit", error) from error


def read_topic(kafka: KafkaSettings, topic: str) -> Iterator[Record]:
    """Yield the committed records that a topic holds now; those of a partition in order.

    Args:
        kafka: how to reach the cluster.
        topic: the topic.

    Raises:
        UsageError: there is no such topic.
        UnavailableError: the broker does not answer, or stops answering.
    """
    reader = TopicReader(kafka, topic)
    try:
        partitions = reader.partitions()
        if not partitions:
            raise UsageError(f"topic {topic}: is not at {brokers(kafka)}; check its name")
        reader.assign(partitions)
        for number, offset in reader.first_offsets(partitions, _SILENCE_S).items():
            reader.seek(number, offset)
        yield from reader.read_until(reader.end_offsets(partitions, _SILENCE_S))
    finally:
        reader.close()


def leave_group(kafka: KafkaSettings, group: str, instance_id: str) -> None:
    """Have the group reassign a static member's partitions now, not when its session has timed out."""
    try:
        admin: Any = open_admin(kafka)
        try:
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance_id, reason="ended")])
        finally:
            admin.close()
    except (KafkaError, UnavailableError) as error:
        LOGGER.warning("group %s: leaving: %s; its partitions wait for the session to time out", group, one_line(error))


class _Listener(ConsumerRebalanceListener):
    """Record of rebalances; called in the client's own loop. Partitions that are lost count as revoked."""

    def __init__(self, on_revoked: Callable[[], None]) -> None:
        self._on_revoked = on_revoked
        self.rebalanced = False
        self.revoked: set[int] = set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            self.rebalanced = True
            self.revoked |= {at.partition for at in revoked}
            self._on_revoked()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.rebalanced = True
