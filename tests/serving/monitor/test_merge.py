"""Partitions merged by time: one order however they are read, and none held up for ever."""

from __future__ import annotations

import heapq
import random

from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.monitor.merge import TimeMerge
from driftline.serving.records.record import Coordinates, Record

PARTITIONS = st.lists(st.lists(st.integers(0, 20), max_size=12), min_size=1, max_size=4)


def records(partition: int, times: list[int], start: int = 0) -> list[Record]:
    return [
        Record(None, b"", (), Coordinates("t", partition, start + number, time_ms))
        for number, time_ms in enumerate(times)
    ]


def taken(
    parts: list[list[int]], seed: int, starts: list[int] | None = None, most: int = 100
) -> list[tuple[int, int, int]]:
    """Read the partitions from some offsets on, in chunks of a random order, and return what comes out."""
    rng = random.Random(seed)
    merge = TimeMerge(range(len(parts)), 1e9, lambda: 0.0)
    unread = {number: records(number, times) for number, times in enumerate(parts)}
    for number, start in enumerate(starts or []):
        unread[number] = unread[number][start:]
    out: list[Record] = []
    while any(unread.values()):
        number = rng.choice([number for number, left in unread.items() if left])
        size = rng.randint(1, 5)
        merge.add(unread[number][:size])
        unread[number] = unread[number][size:]
        out += merge.take(lambda partition: not unread[partition], most)
    while more := merge.take(lambda partition: True, most):
        out += more
    return [(found.at.timestamp_ms, found.at.partition, found.at.offset) for found in out]


def oracle(parts: list[list[int]]) -> list[tuple[int, int, int]]:
    """Always the earliest of the next records, ties by partition."""
    queues = [[(time_ms, number, offset) for offset, time_ms in enumerate(times)] for number, times in enumerate(parts)]
    heads = [queue.pop(0) for queue in queues if queue]
    heapq.heapify(heads)
    out = []
    while heads:
        head = heapq.heappop(heads)
        out.append(head)
        if queues[head[1]]:
            heapq.heappush(heads, queues[head[1]].pop(0))
    return out


@given(PARTITIONS, st.integers(0, 99), st.integers(1, 9))
def test_the_order_does_not_depend_on_how_partitions_are_read(parts: list[list[int]], seed: int, most: int) -> None:
    assert taken(parts, seed, most=most) == oracle(parts)


@given(PARTITIONS, st.integers(0, 99), st.data())
def test_reading_on_from_any_place_gives_the_rest(parts: list[list[int]], seed: int, data: st.DataObject) -> None:
    whole = oracle(parts)
    cut = data.draw(st.integers(0, len(whole)))
    starts = [sum(1 for _, partition, _ in whole[:cut] if partition == number) for number in range(len(parts))]
    assert taken(parts, seed, starts) == whole[cut:]


def test_nothing_comes_while_a_partition_owes_its_next_record() -> None:
    now = [0.0]
    merge = TimeMerge([0, 1], 2.0, lambda: now[0])
    merge.add(records(0, [5, 6]))
    assert merge.take(lambda partition: False, 10) == []
    now[0] = 1.9
    assert merge.take(lambda partition: False, 10) == []
    merge.add(records(1, [4]))
    assert [found.at.timestamp_ms for found in merge.take(lambda partition: False, 10)] == [4]


def test_patience_ends_and_begins_anew() -> None:
    now = [0.0]
    merge = TimeMerge([0, 1], 2.0, lambda: now[0])
    merge.add(records(0, [5, 6, 7]))
    assert merge.take(lambda partition: False, 1) == []
    now[0] = 2.0
    assert len(merge.take(lambda partition: False, 1)) == 1
    now[0] = 2.1
    assert len(merge.take(lambda partition: False, 1)) == 1  # it is not waited for again for each record
    assert len(merge.take(lambda partition: True, 1)) == 1  # it is back
    merge.add(records(0, [8], 3))
    assert merge.take(lambda partition: False, 1) == []
    now[0] = 4.5
    assert len(merge.take(lambda partition: False, 1)) == 1


def test_a_partition_that_is_added_takes_part() -> None:
    merge = TimeMerge([0], 1.0, lambda: 0.0)
    merge.add_partition(1)
    merge.add([*records(0, [5]), *records(1, [3])])
    assert (merge.held(0), merge.held(1)) == (1, 1)
    assert [found.at.partition for found in merge.take(lambda partition: True, 10)] == [1, 0]
