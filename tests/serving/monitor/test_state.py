"""The state's one object, in a folder and in a bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from driftline.components.errors import DataError, StorageConflict, StorageError
from driftline.components.mmd.online import pack, unpack
from driftline.components.storage.objects import store
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.outbox import Delivery
from driftline.serving.monitor.state import MonitorState, StateFile
from tests.serving.monitor.conftest import Bench
from tests.serving.monitor.streams import stream, vectors

STREAM = stream(vectors(400, seed=5))


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, bench: Bench) -> str:
    return bench.settings.state if request.param == "folder" else request.getfixturevalue("gcs_bucket")


def test_a_state_comes_back_whole(bench: Bench, place: str) -> None:
    monitor = bench.monitor(state=place)
    monitor.observe(STREAM)
    state = monitor.state
    state.alarms, state.last_alarm_ms, state.last_run_s = 3, 1_700_000_000_123, 1_700_000_001.5
    state.outbox = [Delivery("run", "é", {"name": "n", "parameters": {"x": [1, None, "ü"]}})]
    monitor.save()
    file = StateFile(place)
    back = file.load(bench.baseline)
    assert back is not None
    assert back.to_bytes() == state.to_bytes()
    assert back.outbox == state.outbox
    assert [record.id for record in back.recent] == [f"id-{number}" for number in range(300, 400)]


def test_there_is_no_state_yet(bench: Bench, place: str) -> None:
    assert StateFile(place).load(bench.baseline) is None


def test_of_two_writers_the_second_to_write_ends(bench: Bench, place: str) -> None:
    state = MonitorState.new(bench.baseline, {0: 5})
    first, second = StateFile(place), StateFile(place)
    first.save(state)
    with pytest.raises(UnavailableError, match="another monitor has written it; run one monitor for a topic"):
        second.save(state)
    state.offsets[0] = 6
    first.save(state)
    third = StateFile(place)
    third.load(bench.baseline)
    third.save(state)
    with pytest.raises(UnavailableError, match="another monitor has written it"):
        first.save(state)


def test_states_of_two_writers_differ_though_they_say_the_same(bench: Bench, place: str) -> None:
    state = MonitorState.new(bench.baseline, {0: 5})
    contents = []
    for _ in range(2):
        file = StateFile(place)
        file.load(bench.baseline)
        file.save(state)
        contents.append(store.read_bytes(file.uri))
    assert contents[0] != contents[1]


@pytest.fixture
def lose_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Have the next write come through and fail all the same."""
    write = store.write_bytes

    def lose(error: Exception) -> None:
        def written_but_failed(*args: Any, **options: Any) -> None:
            write(*args, **options)
            monkeypatch.setattr(store, "write_bytes", write)
            raise error

        monkeypatch.setattr(store, "write_bytes", written_but_failed)

    return lose


def test_a_write_whose_answer_was_lost_and_that_the_client_tried_again_is_known_as_its_own(
    bench: Bench, place: str, lose_answer: Callable[[Exception], None]
) -> None:
    state, file = MonitorState.new(bench.baseline, {0: 5}), StateFile(place)
    for offset in (5, 6):
        state.offsets[0] = offset
        lose_answer(StorageConflict("something else is there"))
        file.save(state)
    assert StateFile(place).load(bench.baseline).offsets == {0: 6}  # pyright: ignore[reportOptionalMemberAccess]


def test_after_lost_answers_it_writes_over_its_own_and_over_nobody_elses(
    bench: Bench, place: str, lose_answer: Callable[[Exception], None]
) -> None:
    state, file = MonitorState.new(bench.baseline, {0: 5}), StateFile(place)
    for offset in (5, 6):
        state.offsets[0] = offset
        lose_answer(StorageError("away"))
        with pytest.raises(StorageError, match="away"):
            file.save(state)
    file.save(state)
    lose_answer(StorageError("away"))
    with pytest.raises(StorageError, match="away"):
        file.save(state)
    other = StateFile(place)
    other.load(bench.baseline)
    other.save(state)
    with pytest.raises(UnavailableError, match="another monitor has written it"):
        file.save(state)


@pytest.mark.parametrize("spoil", ["cut", "header", "vectors", "other"])
def test_a_state_that_is_none(bench: Bench, spoil: str) -> None:
    monitor = bench.monitor()
    monitor.observe(STREAM)
    content = monitor.state.to_bytes()
    header, _ = unpack("driftline.monitor-state", content)
    damaged = {
        "cut": content[:-200],
        "header": content.replace(b'"offsets"', b'"offzets"'),
        "vectors": replace_arrays(monitor.state),
        "other": bench.baseline.to_bytes(),
    }[spoil]
    assert header["offsets"] == [[0, 400]]
    with pytest.raises(DataError, match=r"driftline\.monitor-state: ") as caught:
        MonitorState.from_bytes(damaged, bench.baseline)
    assert "\n" not in str(caught.value)


def replace_arrays(state: MonitorState) -> bytes:
    """A state that describes one record more than it has vectors."""
    fewer = MonitorState(state.baseline_key, state.detector, state.offsets, state.recent.copy())
    whole = fewer.to_bytes()
    fewer.recent.pop()
    less = fewer.to_bytes()
    header, _ = unpack("driftline.monitor-state", whole)
    _, arrays = unpack("driftline.monitor-state", less)
    return pack("driftline.monitor-state", {k: v for k, v in header.items() if k not in ("format", "version")}, arrays)


def test_a_detector_of_another_calibration_is_refused(bench: Bench) -> None:
    monitor = bench.monitor()
    monitor.observe(STREAM)
    calibration = replace(bench.baseline.calibration, threshold=1.0)
    with pytest.raises(DataError, match="belongs to another calibration"):
        MonitorState.from_bytes(monitor.state.to_bytes(), replace(bench.baseline, calibration=calibration))
