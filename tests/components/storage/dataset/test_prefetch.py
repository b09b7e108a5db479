"""Reading ahead: the same values in the same order, within the room, and no thread left."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.steps import logged_step
from driftline.components.storage.dataset.prefetch import (
    THREAD_NAME,
    ReadAhead,
    Room,
    Source,
    Value,
    read_ahead,
    waiting,
    waits_logged,
)

LONG_S = 30.0  # for what should take no time at all: a busy machine is no reason to fail


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


class Sources:
    """Sources of numbered values that count the bytes made, and the sources closed."""

    def __init__(self, costs: list[list[int]]) -> None:
        self.costs = costs
        self.made = 0
        self.count = 0
        self.begun = 0
        self.closed = 0
        self.lock = threading.Lock()

    def source(self, number: int) -> Source[tuple[int, int, int]]:
        with self.lock:
            self.begun += 1
        try:
            for place, cost in enumerate(self.costs[number]):
                yield Room(cost)
                with self.lock:
                    self.made += cost
                    self.count += 1
                yield Value((number, place, cost), cost)
        finally:
            with self.lock:
                self.closed += 1

    def all(self) -> list[Source[tuple[int, int, int]]]:
        return [self.source(number) for number in range(len(self.costs))]

    def expected(self) -> list[tuple[int, int, int]]:
        return [(n, p, cost) for n, costs in enumerate(self.costs) for p, cost in enumerate(costs)]


@given(
    costs=st.lists(st.lists(st.integers(0, 50), max_size=6), max_size=8),
    size=st.integers(1, 120),
    count=st.integers(1, 5),
)
def test_any_sources_give_their_values_in_order_within_the_room(costs: list[list[int]], size: int, count: int) -> None:
    sources = Sources(costs)
    largest = max((cost for source in costs for cost in source), default=0)
    taken = 0
    found: list[tuple[int, int, int]] = []
    for value in read_ahead(sources.all(), ReadAhead(size, count)):
        # Made meanwhile, and not taken: only the source whose turn it is may go beyond the room, by one value.
        assert sources.made - taken <= max(size, largest) + largest + value[2]
        taken += value[2]
        found.append(value)
    assert found == sources.expected()
    assert sources.closed == len(costs)
    assert until(lambda: threads() == [])


def test_values_are_made_while_the_consumer_is_busy_and_no_more_than_fit() -> None:
    sources = Sources([[10] * 50, [10] * 50, [10] * 50])
    values = read_ahead(sources.all(), ReadAhead(100, 2))
    assert next(values) == (0, 0, 10)
    # The first may use all the room: ten are made besides the one taken. Of the third source nothing is begun.
    assert until(lambda: sources.count == 11)
    time.sleep(0.05)
    assert sources.count == 11
    assert sources.begun == 2
    for _ in range(30):
        next(values)
    assert until(lambda: sources.count == 41)
    values.close()
    assert until(lambda: threads() == [])


def test_the_next_source_gets_half_of_the_room() -> None:
    ready = threading.Event()

    def slow() -> Source[str]:
        yield Value("at once", 1)
        assert ready.wait(LONG_S)
        yield Value("first", 10)

    second = Sources([[10] * 50])
    values = read_ahead([slow(), second.source(0)], ReadAhead(100, 2))  # type: ignore[list-item]
    assert next(values) == "at once"  # type: ignore[comparison-overlap]
    taken: list[Any] = []
    consumer = threading.Thread(target=lambda: taken.append(next(values)))
    consumer.start()
    assert until(lambda: second.count == 5)
    time.sleep(0.05)
    assert second.count == 5
    ready.set()
    consumer.join()
    assert taken == ["first"]
    values.close()


def test_sources_are_worked_on_side_by_side() -> None:
    together = threading.Barrier(3, timeout=LONG_S)

    def source(number: int) -> Source[int]:
        yield Value(-number, 1)  # until the first has come, the first source works alone
        together.wait()  # passes only when three are here
        yield Value(number, 1)

    assert list(read_ahead([source(n) for n in range(3)], ReadAhead(100, 3))) == [0, 0, -1, 1, -2, 2]


def test_a_value_larger_than_the_room_comes_through() -> None:
    sources = Sources([[1000, 1, 1000], [1000]])
    assert list(read_ahead(sources.all(), ReadAhead(10, 4))) == sources.expected()


class BrokenError(Exception):
    pass


def test_an_error_comes_after_the_values_before_it() -> None:
    def broken(values: int) -> Source[str]:
        for number in range(values):
            yield Room(1)
            yield Value(f"b{number}", 1)
        raise BrokenError

    sources = Sources([[1] * 5, [1] * 5])
    found: list[Any] = []
    values: Generator[Any] = read_ahead([sources.source(0), broken(2), sources.source(1)], ReadAhead(100, 3))  # type: ignore[list-item]
    with pytest.raises(BrokenError):
        found.extend(values)
    assert found == [(0, place, 1) for place in range(5)] + ["b0", "b1"]
    assert until(lambda: sources.closed == 2 and threads() == [])


def test_an_early_end_closes_the_sources_and_ends_the_threads() -> None:
    sources = Sources([[1] * 100 for _ in range(10)])
    values = read_ahead(sources.all(), ReadAhead(20, 3))
    next(values)
    assert threads() != []
    assert until(lambda: sources.begun == 3)
    values.close()
    assert until(lambda: sources.closed == 3 and threads() == [])
    assert sources.begun == 3  # the others never


def test_a_consumer_that_fails_ends_the_threads() -> None:
    sources = Sources([[1] * 100 for _ in range(10)])

    def consume() -> None:
        for _ in read_ahead(sources.all(), ReadAhead(20, 3)):
            assert until(lambda: sources.begun == 3)
            raise BrokenError

    with pytest.raises(BrokenError):
        consume()
    assert until(lambda: sources.closed == 3 and threads() == [])


def test_it_may_be_closed_from_one_of_its_own_threads() -> None:
    """As the collector does when an abandoned generator is found in a worker's turn."""
    taken, ended = threading.Event(), threading.Event()

    def source() -> Source[int]:
        yield Value(1, 1)
        yield Room(1)
        assert taken.wait(LONG_S)
        values.close()
        ended.set()
        yield Value(2, 1)

    values = read_ahead([source()], ReadAhead(1, 1))
    assert next(values) == 1
    taken.set()
    assert ended.wait(LONG_S)
    assert until(lambda: threads() == [])
    assert list(values) == []


def test_it_may_be_closed_from_a_thread_that_its_source_waits_for() -> None:
    taken, closed = threading.Event(), threading.Event()

    def inner() -> Source[int]:
        yield Value(1, 1)
        assert taken.wait(LONG_S)
        values.close()  # its only source waits for the next value of this one
        closed.set()
        yield Value(2, 1)

    def outer() -> Source[int]:
        for value in read_ahead([inner()], ReadAhead(1, 1)):
            yield Room(1)
            yield Value(value, 1)

    values = read_ahead([outer()], ReadAhead(1, 1))
    assert next(values) == 1
    taken.set()
    assert closed.wait(LONG_S)
    assert until(lambda: threads() == [])


def test_a_forgotten_reader_keeps_no_process_from_ending() -> None:
    program = """
from driftline.components.storage.dataset.prefetch import ReadAhead, Room, Value, read_ahead
def source():
    for number in range(100):
        yield Room(1)
        yield Value(number, 1)
values = read_ahead([source(), source()], ReadAhead(5, 2))
print(next(values))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 0)])
def test_settings_that_cannot_be(size: int, count: int) -> None:
    with pytest.raises(UsageError, match="at least 1 of each"):
        ReadAhead(size, count)


def test_a_step_says_how_long_it_waited(caplog: pytest.LogCaptureFixture) -> None:
    with waiting():
        time.sleep(0.02)  # before the step: not its own
    with caplog.at_level("INFO", logger="driftline"), logged_step("fit") as clock, waits_logged(clock):
        with waiting():
            time.sleep(0.05)
        time.sleep(0.05)
        seconds = clock.seconds
    (record,) = [found for found in map(json.loads, caplog.messages) if "waited_s" in found]
    assert (record["driftline"], record["step"]) == ("progress", "fit")
    assert 0.05 <= record["waited_s"] <= seconds - 0.05 + 0.001  # it is rounded
