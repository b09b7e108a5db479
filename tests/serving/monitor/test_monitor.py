"""A stream against a baseline: what is counted, what an alarm says, and what is brought about, whatever breaks."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import StorageError
from driftline.components.mmd.online import OnlineDetector
from driftline.components.storage.objects import store
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.alerts import binary_event, iso_time
from driftline.serving.monitor.monitor import Monitor, read_record
from driftline.serving.monitor.outbox import MAX_PENDING
from driftline.serving.monitor.settings import RunSettings
from driftline.serving.monitor.state import STATE_NAME, TEXT_CHARACTERS, MonitorState
from driftline.serving.records.record import Coordinates, Record
from tests.serving.monitor.conftest import Bench
from tests.serving.monitor.streams import (
    CENTRES,
    DIMENSION,
    SMALL,
    Inbox,
    monitor_settings,
    record,
    stream,
    value,
    vectors,
)

QUIET = SMALL.ert // 10
ROWS = vectors(1200, seed=5, shift_at=QUIET)
STREAM = stream(ROWS)
RUN = RunSettings("http://kfp.example", "drift", (("output_folder", "gs://b/{alert}"), ("window_max_rows", 7)))


def sample(monitor: Monitor, name: str, **labels: str) -> float:
    """The value of one of a monitor's metrics."""
    (found,) = [
        found.value
        for metric in (getattr(monitor._metrics, attribute) for attribute in vars(monitor._metrics))
        for family in metric.collect()
        for found in family.samples
        if (found.name, found.labels) == (name, labels)
    ]
    return found


def test_scores_and_the_alarm_are_those_of_the_detector(bench: Bench) -> None:
    inbox = Inbox()
    monitor = bench.monitor(targets={"alert": inbox})
    for start in range(0, len(STREAM), 70):
        monitor.observe(STREAM[start : start + 70])
    seen = bench.baseline.project(ROWS).astype(np.float32)
    readings = OnlineDetector(bench.baseline.calibration).update(seen)
    at = int(readings.positions[np.flatnonzero(readings.alarms)[0]])
    assert int(readings.alarms.sum()) == monitor.state.alarms == len(inbox.got) == 1
    assert QUIET < at < QUIET + SMALL.window
    data = inbox.got[0].content["data"]
    assert data["position"] == at
    assert data["score"] == readings.scores[readings.alarms][0]
    assert data["threshold"] == readings.thresholds[readings.alarms][0]
    assert sample(monitor, "driftline_monitor_score") == readings.scores[-1]
    assert sample(monitor, "driftline_monitor_records_total") == len(ROWS)
    assert sample(monitor, "driftline_monitor_alarms_total") == 1
    assert sample(monitor, "driftline_monitor_drifting") == 1
    assert sample(monitor, "driftline_monitor_last_alarm_timestamp_seconds") == 1_700_000_000 + at - 1


def test_an_alert_tells_what_moved(bench: Bench) -> None:
    inbox = Inbox()
    monitor = bench.monitor(targets={"alert": inbox}, texts=3)
    monitor.observe(STREAM)
    event = inbox.got[0].content
    data = event["data"]
    at = data["position"]
    assert event["subject"] == "embeddings"
    assert event["time"] == data["window"]["latest"]
    assert data["reference"]["digest"] == bench.baseline.reference.digest
    assert data["window"]["records"] == SMALL.window
    assert data["offsets"] == {"0": at}
    moved, kept = data["moved_most"], data["most_like_reference"]
    assert [len(moved), len(kept)] == [3, 3]
    witnesses = [text["witness"] for text in [*moved, *kept[::-1]]]
    assert witnesses == sorted(witnesses)
    for text in [*moved, *kept]:
        number = text["offset"]
        assert at - SMALL.window <= number < at
        assert (text["id"], text["text"]) == (f"id-{number}", f"text {number}")
    # By the definition, for the detector as it was at the alarm.
    detector = OnlineDetector(bench.baseline.calibration)
    seen = bench.baseline.project(ROWS[:at]).astype(np.float32)
    detector.update(seen)
    expected = detector.witness(seen[-SMALL.window :], at_alarm=True)
    assert moved[0]["witness"] == expected.min()
    assert kept[0]["witness"] == expected.max()
    # The first two of four clusters are all there is after the shift.
    clusters = [int(np.linalg.norm(ROWS[text["offset"]] - CENTRES, axis=1).argmin()) for text in [*moved, *kept]]
    assert max(clusters[:3]) < 2 <= min(clusters[3:])


def test_an_alert_without_texts(bench: Bench) -> None:
    inbox = Inbox()
    monitor = bench.monitor(targets={"alert": inbox}, texts=0)
    monitor.observe(STREAM)
    assert "moved_most" not in inbox.got[0].content["data"]
    assert {kept.text for kept in monitor.state.recent} == {None}


def test_long_texts_are_cut_in_what_is_kept(bench: Bench) -> None:
    monitor = bench.monitor()
    long = replace(STREAM[0].embedded, text="x" * 10 * TEXT_CHARACTERS)  # type: ignore[type-var]
    monitor.observe([replace(STREAM[0], embedded=long)])
    assert monitor.state.recent[0].text == "x" * TEXT_CHARACTERS


def test_an_alarm_is_one_line_of_json_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    monitor = bench.monitor(targets={})
    with caplog.at_level(logging.WARNING, logger="driftline"):
        monitor.observe(STREAM)
    (line,) = [json.loads(found.message) for found in caplog.records]
    assert line["driftline"] == "alarm"
    assert line["type"] == "driftline.drift.detected"
    assert line["data"]["score"] > line["data"]["threshold"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "tombstone"),
        (b"{", "not-json"),
        (b"[]", "not-an-embedding"),
        (b'{"id":"a","model":"tiny","revision":"r1","embedding":[1,NaN]}', "not-json"),
        (b'{"id":"a","model":"tiny","revision":"r1","embedding":[1,null]}', "vector"),
        (value(0, np.full(DIMENSION, np.inf, np.float32)), "vector"),
        (value(0, np.full(DIMENSION, 3e38, np.float32)), "vector-size"),
        (value(0, ROWS[0], model="other"), "other-model"),
        (value(0, ROWS[0], revision="r2"), "other-revision"),
        (value(0, ROWS[0, :-1]), "dimension"),
    ],
)
def test_what_cannot_be_compared_is_counted_and_changes_no_score(
    bench: Bench, content: bytes | None, reason: str
) -> None:
    plain, spoilt = bench.monitor(fresh=True), bench.monitor(fresh=True, state=bench.settings.state + "-2")
    bad = [read_record(record(10_000 + number, content)) for number in range(3)]
    plain.observe(STREAM[:450])
    spoilt.observe([*STREAM[:205], bad[0], *STREAM[205:333], bad[1], *STREAM[333:450], bad[2]])
    assert sample(spoilt, "driftline_monitor_skipped_total", reason=reason) == 3
    assert sample(spoilt, "driftline_monitor_records_total") == 450
    assert spoilt.state.detector.to_bytes() == plain.state.detector.to_bytes()
    assert spoilt.state.offsets == {0: 10_003}


def test_another_model_is_told_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    monitor = bench.monitor(clock=lambda: now[0])
    others = [read_record(record(number, value(number, ROWS[0], model="other"))) for number in range(40)]
    with caplog.at_level(logging.WARNING, logger="driftline"):
        monitor.observe(others[:20])
        now[0] = 61.0
        monitor.observe(others[20:])
    assert [found.message for found in caplog.records] == [
        f"record embeddings[0]@{number} is not compared: its model is 'other', that of the reference "
        f"{bench.settings.reference.dataset} is 'tiny'; give a reference that the stream's model embedded"
        for number in (0, 20)
    ]


headers = st.lists(
    st.tuples(
        st.sampled_from(["driftline-source-topic", "driftline-source-partition", "driftline-source-offset"])
        | st.sampled_from(["driftline-source-timestamp-ms", "x"]),
        st.binary(max_size=12) | st.sampled_from([b"7", b"-1", b"9" * 30, b"t"]),
    ),
    max_size=6,
)
good = st.integers(0, len(ROWS) - 1).map(lambda row: value(row, ROWS[row]))
content = st.none() | st.binary(max_size=40) | good | good.map(lambda whole: whole.replace(b'"id', b'"\\ud800'))


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 150), content, headers, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=12
    )
)
def test_no_record_ends_it(calibrated: Any, tmp_path_factory: pytest.TempPathFactory, fuzzed: Any) -> None:
    dataset, baseline, _ = calibrated
    place = str(tmp_path_factory.mktemp("fuzzed"))
    always = replace(baseline, calibration=replace(baseline.calibration, threshold=-1.0))
    inbox = Inbox()
    bench = Bench(monitor_settings(dataset, place), always)
    monitor = bench.monitor(targets={"alert": inbox}, run=RUN)
    plain: list[Any] = [(value(number, row), (), 1_700_000_000_000) for number, row in enumerate(ROWS[:150])]
    for place_in_stream, *parts in fuzzed:
        plain.insert(place_in_stream, parts)
    batch = [
        read_record(Record(b"k", found, tuple(own), Coordinates("embeddings", 0, offset, time_ms)))
        for offset, (found, own, time_ms) in enumerate(plain)
    ]
    monitor.observe(batch)
    counted = sample(monitor, "driftline_monitor_records_total")
    skipped = sum(
        found.value
        for family in monitor._metrics.skipped.collect()
        for found in family.samples
        if found.name.endswith("_total")
    )
    assert counted + skipped == len(batch)
    assert counted >= 150
    (alert,) = inbox.got
    binary_event(alert.content)
    assert bench.monitor(targets={"alert": inbox}, run=RUN).state.to_bytes() == monitor.state.to_bytes()


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, len(STREAM) - 1), max_size=6), restarts=st.integers(0, 6))
def test_a_restart_at_any_moment_changes_nothing(
    calibrated: Any, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], restarts: int
) -> None:
    dataset, baseline, _ = calibrated
    whole = Bench(monitor_settings(dataset, str(tmp_path_factory.mktemp("whole"))), baseline)
    parts = Bench(monitor_settings(dataset, str(tmp_path_factory.mktemp("parts"))), baseline)
    one, many = Inbox(), Inbox()
    through = whole.monitor(targets={"alert": one})
    through.observe(STREAM)
    monitor = parts.monitor(targets={"alert": many})
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        if number < restarts:
            monitor = parts.monitor(targets={"alert": many})
        assert monitor.state.offsets.get(0, 0) == start
        monitor.observe(STREAM[start:stop])
    assert monitor.state.to_bytes() == through.state.to_bytes()
    assert many.got == one.got


class Killed(BaseException):
    """The process ends at once."""


def killed_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """End the process at the moment-th write of the state, halves of which come before and after it."""
    count = 0
    write = store.write_bytes

    def counted(*args: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == moment:
            raise Killed
        write(*args, **options)
        count += 1
        if count == moment:
            raise Killed

    monkeypatch.setattr(store, "write_bytes", counted)


@pytest.mark.parametrize("moment", range(1, 11))
def test_killed_around_any_write_one_alert_for_an_alarm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    inbox = Inbox()

    def run() -> Monitor:
        monitor = bench.monitor(targets={"alert": inbox}, save_interval_s=0.0)
        start = monitor.state.offsets.get(0, 0)
        for first in range(start, len(STREAM), 300):
            monitor.observe(STREAM[first : first + 300])
        return monitor

    with monkeypatch.context() as patch:
        killed_at(patch, moment)
        with pytest.raises(Killed):
            run()
    finished = run()
    assert finished.state.alarms == 1
    assert {delivery.id for delivery in inbox.got} == {inbox.got[0].id}
    assert all(delivery == inbox.got[0] for delivery in inbox.got)
    # Produced twice only where the end came between producing and writing that down.
    assert len(inbox.got) <= 2
    through = bench.monitor(fresh=True, targets={"alert": (once := Inbox())}, state=bench.settings.state + "-2")
    through.observe(STREAM)
    assert finished.state.to_bytes() == through.state.to_bytes()
    assert once.got == inbox.got[:1]


def test_an_alert_that_cannot_be_sent_waits_and_is_sent_once(bench: Bench) -> None:
    now = [100.0]
    inbox = Inbox([UnavailableError("away")] * 3)
    monitor = bench.monitor(targets={"alert": inbox}, clock=lambda: now[0])
    monitor.observe(STREAM)
    assert (inbox.tries, sample(monitor, "driftline_monitor_pending")) == (1, 1)
    monitor.save_and_deliver()  # too early
    assert inbox.tries == 1
    for wait_s in (1.0, 2.0):
        now[0] += wait_s
        monitor.save_and_deliver()
    assert inbox.tries == 3
    monitor = bench.monitor(targets={"alert": inbox})  # restarted, it tries at once
    monitor.save_and_deliver()
    monitor.save_and_deliver()
    assert len(inbox.got) == 1
    assert bench.monitor().state.outbox == []


def test_nothing_is_brought_about_before_it_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    monitor = bench.monitor(targets={"alert": inbox})

    def fail(*args: Any, **options: Any) -> None:
        raise StorageError("bucket: away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", fail)
        monitor.observe(STREAM)
        monitor.save_and_deliver()
    assert (inbox.tries, monitor.save_error) == (0, "bucket: away")
    assert sample(monitor, "driftline_monitor_save_failures_total") == 2
    monitor.save_and_deliver()
    assert (len(inbox.got), monitor.save_error) == (1, None)


def test_one_drift_starts_one_run(bench: Bench) -> None:
    now = [1_000_000.0]
    runs = Inbox()
    again = vectors(2400, seed=5)
    for start in (600, 1500):
        again[start : start + 300] = vectors(300, seed=start, shift_at=0)
    targets = {"alert": (alerts := Inbox()), "run": runs}
    monitor = bench.monitor(targets=targets, run=RUN, clock=lambda: now[0])
    records = stream(again)
    for start in range(0, 2400, 100):
        monitor.observe(records[start : start + 100])
        now[0] += 1.0
    raised = len(alerts.got)
    assert raised >= 2
    (run,) = runs.got
    assert run.id == alerts.got[0].id
    assert run.content == {
        "name": f"drift on embeddings {run.id}",
        "parameters": {"output_folder": f"gs://b/{run.id}", "window_max_rows": 7},
    }
    # The time of the latest run outlives the process.
    now[0] += RUN.cool_down_s
    monitor = bench.monitor(targets=targets, run=RUN, clock=lambda: now[0], fresh=True)
    monitor.state.last_run_s = now[0] - 10
    monitor.observe(STREAM)
    assert (len(alerts.got), len(runs.got)) == (raised + 1, 1)
    monitor = bench.monitor(targets=targets, run=RUN, clock=lambda: now[0], fresh=True)
    monitor.state.last_run_s = now[0] - RUN.cool_down_s
    monitor.observe(STREAM)
    assert (len(alerts.got), len(runs.got)) == (raised + 2, 2)


def test_a_run_that_fails_holds_up_no_alert(bench: Bench) -> None:
    alerts, runs = Inbox(), Inbox([UnavailableError("no Kubeflow")] * 100)
    monitor = bench.monitor(targets={"alert": alerts, "run": runs}, run=RUN)
    monitor.observe(STREAM)
    assert (len(alerts.got), len(runs.got)) == (1, 0)
    assert [left.kind for left in monitor.state.outbox] == ["run"]
    # Without --on-drift from now on, it is not waited for any more.
    assert bench.monitor().state.outbox == []


def test_the_outbox_has_an_end(bench: Bench) -> None:
    away = Inbox([UnavailableError("away")] * 1000)
    monitor = bench.monitor(targets={"alert": away})
    monitor.observe(STREAM)
    (waiting,) = monitor.state.outbox
    for number in range(MAX_PENDING + 5):
        monitor._outbox.post(replace(waiting, id=str(number)))
    assert len(monitor.state.outbox) == MAX_PENDING
    assert monitor.state.outbox[-1].id == str(MAX_PENDING + 4)
    assert sample(monitor, "driftline_monitor_deliveries_total", kind="alert", outcome="dropped") == 6


def test_a_second_monitor_of_one_state_ends_and_harms_nothing(bench: Bench) -> None:
    first, second = bench.monitor(), bench.monitor()
    first.observe(STREAM[:100])
    with pytest.raises(UnavailableError, match=r"state\.npz: another monitor has written it; run one monitor"):
        second.observe(STREAM[:250])
    first.observe(STREAM[100:300])
    assert bench.monitor().state.to_bytes() == first.state.to_bytes()
    assert first.state.offsets == {0: 300}


def test_of_two_with_an_old_state_the_later_goes_on(bench: Bench) -> None:
    first = bench.monitor()
    first.observe(STREAM[:100])
    second = bench.monitor()
    second.save()
    with pytest.raises(UnavailableError, match="another monitor has written it"):
        first.observe(STREAM[100:200])
    second.observe(STREAM[100:300])
    assert bench.monitor().state.offsets == {0: 300}


def test_a_write_that_came_through_though_it_failed_is_known_as_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = bench.monitor()
    monitor.observe(STREAM[:50])
    write = store.write_bytes

    def written_but_failed(*args: Any, **options: Any) -> None:
        write(*args, **options)
        raise StorageError("the connection ended")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_bytes", written_but_failed)
        monitor.observe(STREAM[50:100])
    assert monitor.save_error == "the connection ended"
    monitor.observe(STREAM[100:150])
    assert monitor.save_error is None
    assert bench.monitor().state.offsets == {0: 150}


def test_a_state_of_another_baseline_keeps_its_place(bench: Bench) -> None:
    monitor = bench.monitor()
    monitor.observe(STREAM[:333])
    other = replace(bench.baseline, key="f" * 64)
    state = MonitorState.from_bytes(store.read_bytes(store.join(bench.settings.state, STATE_NAME)), other)
    assert state.offsets == {0: 333}
    assert (state.detector.position, len(state.recent)) == (0, 0)


def test_times_that_no_calendar_has() -> None:
    assert iso_time(-(2**63)) == "1970-01-01T00:00:00.000Z"
    assert iso_time(2**63 - 1) == "9999-12-31T23:59:59.000Z"
    assert iso_time(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"


def test_a_place_that_fails_is_not_tried_for_each_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monitor = bench.monitor(save_interval_s=5.0, clock=lambda: now[0])
    tries = []

    def fail(*args: Any, **options: Any) -> None:
        tries.append(now[0])
        raise StorageError("bucket: away")

    monkeypatch.setattr(store, "write_bytes", fail)
    for start in range(0, len(STREAM), 100):
        monitor.observe(STREAM[start : start + 100])
        now[0] += 1.0
    assert len(tries) < 4
