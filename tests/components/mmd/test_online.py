"""The online detector: its scores against float64 oracles, and its state under any cut of the stream."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.components.errors import DataError, UsageError
from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.mmd.online import Calibration, OnlineDetector, OnlineSettings

D = 5
KINDS = ("ewma", "sliding")


def by_hand(threshold: float = 0.02, **changes: Any) -> Calibration:
    """A calibration whose threshold is given, and not found: small, and made at once."""
    small: dict[str, Any] = {"ert": 400, "window": 40, "steps": 8, "features": 64}
    chosen = OnlineSettings(**{**small, **changes})
    features = RandomFeatures.draw(Kernel("rbf", 0.1), D, chosen.features, 3)
    reference = np.random.default_rng(1).normal(size=(500, D))
    centre = reference.mean(axis=0)
    mean = features.map(reference - centre).mean(axis=0, dtype=np.float64)
    return Calibration(chosen, features, centre, mean, len(reference), threshold, 0.1)


def stream(rows: int, seed: int = 2, shift_at: int | None = None) -> NDArray[np.float64]:
    x = np.random.default_rng(seed).normal(size=(rows, D))
    if shift_at is not None:
        x[shift_at:] += 0.8
    return x


def oracle(x: NDArray[np.float64], calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and effective sizes by the definition: all weights, the features in float64, O(t) each."""
    chosen, n = calibration.settings, calibration.rows
    phases = (x - calibration.centre) @ calibration.features.frequencies.astype(np.float64)
    phi = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) / math.sqrt(chosen.features)
    mean = calibration.mean
    scores, sizes = [], []
    for end in range(chosen.stride, len(x) + 1, chosen.stride):
        ages = np.arange(end)[::-1]
        weights = np.where(ages < chosen.window, 1.0, 0.0) if chosen.kind == "sliding" else 1.0 * chosen.decay**ages
        weights /= weights.sum()
        gram = phi[:end] @ phi[:end].T
        pairs = np.outer(weights, weights)
        np.fill_diagonal(pairs, 0.0)
        within = (pairs * gram).sum() / pairs.sum()
        within_reference = (n * (mean @ mean) - 1) / (n - 1)
        scores.append(within - 2 * weights @ (phi[:end] @ mean) + within_reference)
        sizes.append(1 / (weights @ weights))
    return np.array(scores), np.array(sizes)


def collected(detector: OnlineDetector, x: NDArray[np.floating], cuts: list[int]) -> list[NDArray[Any]]:
    readings = [detector.update(part) for part in np.split(x, cuts)]
    names = ("positions", "scores", "thresholds", "sizes", "alarms")
    return [np.concatenate([getattr(each, name) for each in readings]) for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_definition(kind: str) -> None:
    calibration = by_hand(kind=kind)
    x = stream(203)
    positions, scores, thresholds, sizes, _ = collected(OnlineDetector(calibration), x, [])
    expected, expected_sizes = oracle(x, calibration)
    assert positions.tolist() == list(range(5, 201, 5))
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    np.testing.assert_allclose(sizes, expected_sizes, rtol=1e-9)
    assert np.isinf(thresholds[:7]).all()
    assert np.isfinite(thresholds[7:]).all()
    assert sizes[-1] == pytest.approx(40, rel=0.01)
    assert thresholds[-1] == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25)
def test_batches_leave_no_trace(kind: str, data: st.DataObject) -> None:
    policy = data.draw(st.sampled_from(("continue", "restart")))
    calibration = by_hand(kind=kind, on_alarm=policy)
    x = stream(300, shift_at=150)
    cuts = sorted(data.draw(st.lists(st.integers(0, 300), max_size=12)))
    whole = OnlineDetector(calibration)
    cut = OnlineDetector(calibration)
    for one, other in zip(collected(whole, x, []), collected(cut, x, cuts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.to_bytes() == cut.to_bytes()


@pytest.mark.parametrize("policy", ["continue", "restart"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 3, 62, 163, 200])
def test_a_restored_detector_goes_on_with_the_same_bits(kind: str, policy: str, stop: int) -> None:
    calibration = by_hand(kind=kind, on_alarm=policy)
    x = stream(400, shift_at=150)
    uninterrupted = OnlineDetector(calibration)
    expected = collected(uninterrupted, x, [])
    before = OnlineDetector(calibration)
    first = collected(before, x[:stop], [])
    again = OnlineDetector.from_bytes(before.to_bytes(), Calibration.from_bytes(calibration.to_bytes()))
    second = collected(again, x[stop:], [])
    for one, a, b in zip(expected, first, second, strict=True):
        np.testing.assert_array_equal(one, np.concatenate([a, b]))
    assert again.to_bytes() == uninterrupted.to_bytes()
    assert expected[4].any()
    np.testing.assert_array_equal(again.witness(x[-40:], at_alarm=True), uninterrupted.witness(x[-40:], at_alarm=True))


def test_a_lasting_drift_alarms_once_or_again_and_again() -> None:
    x = stream(1000, shift_at=200)
    going_on = OnlineDetector(by_hand(0.05))
    positions, scores, thresholds, _, alarms = collected(going_on, x, [])
    assert alarms.sum() == 1
    assert positions[alarms][0] == positions[scores > thresholds][0] > 200
    assert going_on.drifting
    beginning_anew = OnlineDetector(by_hand(0.05, on_alarm="restart"))
    positions, _, thresholds, sizes, alarms = collected(beginning_anew, x, [])
    assert (np.diff(positions[alarms]) >= 40).all()
    assert alarms.sum() >= 15
    after = np.flatnonzero(alarms)[0] + 1
    assert np.isinf(thresholds[after])
    assert sizes[after] <= 5.0 + 1e-9
    assert not beginning_anew.drifting


def test_an_alarm_ends_when_the_score_is_back_and_another_may_follow() -> None:
    x = stream(1200)
    x[200:400] += 0.8
    x[800:1000] += 0.8
    detector = OnlineDetector(by_hand(0.08, kind="sliding"))
    positions, _, _, _, alarms = collected(detector, x, [])
    first, second = positions[alarms].tolist()
    assert 200 < first <= 300
    assert 800 < second <= 900
    assert not detector.drifting


def test_the_witness_is_lowest_for_the_records_that_moved() -> None:
    calibration = by_hand(kind="sliding")
    detector = OnlineDetector(calibration)
    x = stream(40)
    moved = np.arange(40) % 4 == 0
    x[moved] += 2.5
    detector.update(x)
    witness = detector.witness(x)
    assert witness.shape == (40,)
    assert set(np.argsort(witness)[:8]) <= set(np.flatnonzero(moved))
    phi = calibration.features.map(x - calibration.centre).astype(np.float64)
    np.testing.assert_allclose(witness, phi @ (calibration.mean - phi.mean(axis=0)), atol=1e-6)


def test_at_alarm_the_witness_remembers_the_window_that_a_restart_emptied() -> None:
    x = stream(400, shift_at=200)
    detector = OnlineDetector(by_hand(0.05, kind="sliding", on_alarm="restart"))
    with pytest.raises(UsageError, match=r"^witness: no alarm"):
        detector.witness(x, at_alarm=True)
    with pytest.raises(UsageError, match=r"^witness: the window is empty; give at least 5 records"):
        detector.witness(x)
    while True:
        position = detector.position
        if detector.update(x[position : position + 5]).alarms.any():
            break
    end = detector.position
    with pytest.raises(UsageError, match="window is empty"):
        detector.witness(x)
    going_on = OnlineDetector(by_hand(0.05, kind="sliding"))
    going_on.update(x[:end])
    np.testing.assert_array_equal(detector.witness(x, at_alarm=True), going_on.witness(x))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_numbers_over_a_long_stream(kind: str) -> None:
    detector = OnlineDetector(by_hand(kind=kind))
    size = len(detector.to_bytes())
    readings = [detector.update(stream(5_000, seed)) for seed in range(20)]
    for each in readings:
        assert np.isfinite(each.scores).all()
        assert np.isfinite(each.sizes).all()
        assert not np.isnan(each.thresholds).any()
    assert len(detector.to_bytes()) <= size + 64
    assert abs(np.concatenate([each.scores for each in readings]).mean()) < 0.005


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_takes_floats_of_any_width_and_empty_batches(dtype: Any) -> None:
    x = stream(100).astype(dtype)
    detector, plain = OnlineDetector(by_hand()), OnlineDetector(by_hand())
    none = detector.update(np.empty((0, D), dtype))
    assert (none.positions.dtype, none.scores.dtype, none.alarms.dtype) == (np.int64, np.float64, np.bool_)
    assert not none.positions.size
    for one, other in zip(collected(detector, x, []), collected(plain, x.astype(np.float64), []), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, D + 1)), rf"expected rows of {D} numbers, got an array of shape \(3, 6\)"),
        (np.zeros(D), r"got an array of shape \(5,\)"),
        (np.array([[0.0] * D, [math.nan] * D]), "row 1 of the batch is not finite"),
        (np.array([[math.inf] + [0.0] * (D - 1)]), "row 0 of the batch is not finite"),
        (np.full((1, D), 1e38), "row 0 of the batch is not finite or longer than"),
    ],
)
def test_a_bad_batch_is_refused_whole(bad: NDArray[np.float64], message: str) -> None:
    detector = OnlineDetector(by_hand())
    detector.update(stream(53))
    before = detector.to_bytes()
    with pytest.raises(DataError, match=message) as caught:
        detector.update(bad)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=message):
        detector.witness(bad)
    assert detector.to_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ert": 0}, "^ert: expected a number of records of at least 5 windows, 200, got 0;"),
        ({"ert": -1.0}, "^ert: .* got -1.0;"),
        ({"ert": math.nan}, "^ert: .* got nan;"),
        ({"ert": math.inf}, "^ert: .* got inf;"),
        ({"window": 41}, "^window: expected a multiple of steps = 8, at least 16 records, got 41"),
        ({"window": 8}, "^window: .* got 8"),
        ({"steps": 1}, "^steps: expected 2 to 100 scores a window, got 1"),
        ({"features": 0}, "^features: "),
        ({"kind": "tumbling"}, "^kind: expected ewma or sliding, got 'tumbling'"),
        ({"on_alarm": "sleep"}, "^on_alarm: expected continue or restart, got 'sleep'"),
        ({"seed": -1}, "^seed: "),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    good = by_hand().settings
    with pytest.raises(UsageError, match=message) as caught:
        replace(good, **change)
    assert "\n" not in str(caught.value)


def test_bytes_that_do_not_belong_are_refused() -> None:
    calibration, other = by_hand(), by_hand(0.03)
    state = OnlineDetector(calibration).to_bytes()
    with pytest.raises(DataError, match="belongs to another calibration"):
        OnlineDetector.from_bytes(state, other)
    with pytest.raises(DataError, match=r"^driftline.online-calibration: expected version 1 of it, got driftline.onl"):
        Calibration.from_bytes(state)
    with pytest.raises(DataError, match="expected bytes that Driftline wrote, got 0 others"):
        Calibration.from_bytes(b"")
    for length in range(0, len(state) - 1, 997):
        with pytest.raises(DataError):
            OnlineDetector.from_bytes(state[:length], calibration)


def restored(data: bytes, calibration: Calibration) -> bytes | None:
    """What is written after reading the bytes; None where they are refused."""
    try:
        return OnlineDetector.from_bytes(data, calibration).to_bytes()
    except DataError:
        return None


@given(st.integers(0, 10**9), st.integers(1, 255))
@settings(max_examples=100)
def test_a_damaged_byte_is_refused_or_changes_nothing(place: int, flip: int) -> None:
    calibration = by_hand()
    detector = OnlineDetector(calibration)
    detector.update(stream(53))
    state = detector.to_bytes()
    damaged = bytearray(state)
    damaged[place % len(state)] ^= flip
    assert restored(bytes(damaged), calibration) in (None, state)
    inside = bytearray(state)
    inside[state.index(b'"position"') + place % 10] ^= flip
    assert restored(bytes(inside), calibration) is None


def test_neither_bytes_nor_numbers_need_pickle() -> None:
    calibration = by_hand()
    again = Calibration.from_bytes(calibration.to_bytes())
    assert again.settings == calibration.settings
    assert (again.threshold, again.rows, again.spread) == (0.02, 500, 0.1)
    assert again.digest() == calibration.digest()
    json.dumps(OnlineDetector(again).update(stream(50)).scores.tolist())
    assert b"pickle" not in calibration.to_bytes()


def test_the_modules_of_a_serving_process_do_not_load_jax() -> None:
    code = (
        "import sys; import driftline.components.mmd as mmd; print(mmd.OnlineDetector.__name__, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OnlineDetector", "False"]
