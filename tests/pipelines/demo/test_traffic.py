"""What the streaming demonstration sends, and how it shows where the stream stands."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from driftline.pipelines.demo import traffic as module
from driftline.pipelines.demo.data import Text
from driftline.pipelines.demo.screen import Reading, line, table
from driftline.pipelines.demo.traffic import HOUR_MS, POISON, plan_traffic
from driftline.serving.errors import PoisonError
from driftline.serving.records.payloads import read_text
from driftline.serving.records.record import Coordinates, Record

NOW_MS = 1_790_000_000_000
CORPUS = [Text(f"r{i:05d}", "fresh" if i % 2 else "rotten", f"film {i % 7}", f"review {i}") for i in range(9000)]
CORPUS += [Text(f"p{i:05d}", "plot", f"film {i % 7}", f"plot {i}") for i in range(600)]


@pytest.fixture(scope="module")
def planned() -> module.Traffic:
    return plan_traffic(CORPUS, 0, NOW_MS)


def of_kind(messages: list[module.Message], kind: str) -> list[module.Message]:
    return [message for message in messages if message.kind == kind]


def test_no_text_stands_in_two_parts_and_plots_come_in_the_shifted_one_alone(planned):
    reference = {text.id for text in planned.reference}
    quiet, shifted = ({one.key.decode() for one in of_kind(part, "text")} for part in (planned.quiet, planned.shifted))
    assert len(reference) == module.REFERENCE_TEXTS
    assert len(quiet) == module.QUIET_TEXTS
    assert len(shifted) == module.SHIFTED_TEXTS
    assert not reference & quiet
    assert not reference & shifted
    assert not quiet & shifted
    assert not any(key.startswith("p") for key in reference | quiet)
    assert sum(key.startswith("p") for key in shifted) == module.PLOTS_AMONG * module.SHIFTED_TEXTS


def test_each_part_has_an_hour_of_its_own_and_time_goes_on(planned):
    hour = NOW_MS - NOW_MS % HOUR_MS
    for part, first, last in ((planned.quiet, hour - HOUR_MS, hour), (planned.shifted, hour, NOW_MS)):
        times = [message.timestamp_ms for message in part]
        assert times == sorted(times)
        assert first <= times[0]
        assert times[-1] < last


def test_only_texts_that_came_before_are_deleted_and_none_twice(planned):
    for part in (planned.quiet, planned.shifted):
        seen: set[bytes] = set()
        for message in part:
            if message.kind == "text":
                seen.add(message.key)
            elif message.kind == "deletion":
                assert message.value is None
                assert message.key in seen
                seen.remove(message.key)
        assert of_kind(part, "deletion")


def test_each_poison_is_refused_for_the_reason_that_it_states(planned):
    poison = [*of_kind(planned.quiet, "poison"), *of_kind(planned.shifted, "poison")]
    assert {message.reason for message in poison} == set(POISON)
    for message in poison:
        record = Record(message.key, message.value, (), Coordinates("t", 0, 0, message.timestamp_ms))
        with pytest.raises(PoisonError) as caught:
            read_text(record)
        assert caught.value.reason == message.reason


def test_the_seed_decides(planned):
    assert plan_traffic(CORPUS, 0, NOW_MS) == planned
    assert plan_traffic(CORPUS, 1, NOW_MS).quiet != planned.quiet


READING = Reading("reviews", 1200, 1100, 18, 8, 1000, 150.0, 74, 12.4, 0.0004, 0.0075, 0)


def shown(reading: Reading) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(reading))
    return console.file.getvalue()


def test_the_screen_shows_rate_lag_p99_and_score_against_threshold():
    for text in (shown(READING), line(READING)):
        for part in ("reviews", "1,200", "1,100", "150", "74", "12 ms", "0.0004", "0.0075", "looks like the reference"):
            assert part in text


def test_the_screen_shows_an_alarm_and_what_is_not_known_yet():
    alarm = Reading("plots", 9, 8, 0, 0, 0, 1.0, 1, math.nan, 0.1, 0.01, 1)
    assert "ALARM" in shown(alarm)
    assert "p99 -" in line(alarm)
    first = Reading("reviews", 9, 8, 0, 0, 0, 1.0, 1, 3.0, math.nan, math.inf, 0)
    assert "filling the first window" in line(first)
    assert "drift score - of -" in line(first)
