"""Calibration: the run lengths that were asked for, and delays that follow the size of the shift.

The seeds are fixed, so that the figures are always the same on one machine; the tolerances leave room for those of
another. Longer runs: tests/bench/online.py.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.components.errors import DataError, DriftlineError, UsageError
from driftline.components.kernel.theory.families import Kernel
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.mmd.calibration import RunLengths, calibrate, count_alarms, simulate_scores
from driftline.components.mmd.online import Calibration, OnlineDetector, OnlineSettings

Rows = NDArray[np.float32]
KINDS = ("ewma", "sliding")
QUICK = OnlineSettings(ert=600, window=60, steps=10, features=128, on_alarm="restart", seed=5)


class Gaussian:
    """Standard normal rows."""

    def __init__(self, d: int = 16) -> None:
        self.d = d

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        return rng.standard_normal((rows, self.d)).astype(np.float32)


class Embeddings:
    """Rows like projected sentence embeddings: unit vectors about 40 topics of uneven shares, 384 to 16 by PCA."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        topics = rng.standard_normal((40, 384)) * 0.6
        shares = rng.dirichlet(np.full(40, 0.7))
        x = topics[rng.choice(40, 12_000, p=shares)] + rng.standard_normal((12_000, 384)) * np.linspace(1.2, 0.1, 384)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        x -= x.mean(axis=0)
        axes = np.linalg.eigh(x.T @ x)[1][:, -16:]
        self.population = (x @ axes).astype(np.float32)

    def draw(self, rng: np.random.Generator, rows: int) -> Rows:
        return self.population[rng.integers(0, len(self.population), rows)]


def source(name: str) -> Gaussian | Embeddings:
    return {"gaussian": Gaussian, "embeddings": Embeddings}[name]()


@functools.cache
def quick(kind: Any = "ewma") -> Calibration:
    reference = Gaussian().draw(np.random.default_rng(1), 1500)
    return calibrate(reference, replace(QUICK, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gaussian", "embeddings"])
def test_the_run_length_is_the_ert(name: str, kind: Any) -> None:
    """Mean over 5 references of 50 windows, some 400 alarms: chance moves it by about 7%, references included."""
    data = source(name)
    ratios = []
    for seed in range(5):
        rng = np.random.default_rng([17, seed])
        calibration = calibrate(data.draw(rng, 3000), replace(QUICK, kind=kind, seed=seed))
        detector = OnlineDetector(calibration)
        alarms = sum(int(detector.update(data.draw(rng, 10_000)).alarms.sum()) for _ in range(5))
        ratios.append(50_000 / alarms / QUICK.ert)
    assert 0.8 < np.mean(ratios) < 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_scores_have_the_moments_of_real_ones(kind: Any) -> None:
    """At references of 8 windows. Drawing rows with replacement, and no error of the mean, miss by 10% and more.

    Chance moves the ratio of the deviations by about 2%.
    """
    n, settings = 480, replace(QUICK, kind=kind)
    rng = np.random.default_rng(3)
    features = RandomFeatures.draw(Kernel("rbf", 1 / 32), 16, 128, 0)
    simulated, real = [], []
    for turn in range(60):
        reference = features.map(rng.standard_normal((n, 16)))
        if turn % 12 == 0:
            simulated.append(simulate_scores(reference, n, settings, rng))
        mean = reference.mean(axis=0, dtype=np.float64)
        calibration = Calibration(settings, features, np.zeros(16), mean, n, 1.0, 0.0)
        for _ in range(8):
            # A threshold of 1: no alarm, and what the score is divided by is what the threshold is multiplied with.
            readings = OnlineDetector(calibration).update(rng.standard_normal((360, 16)))
            decided = np.isfinite(readings.thresholds)
            real.append(readings.scores[decided] / readings.thresholds[decided])
    deviation = np.std(real)
    assert np.std(simulated) == pytest.approx(deviation, rel=0.08)
    assert abs(np.mean(simulated)) < 0.15 * deviation
    assert abs(np.mean(real)) < 0.15 * deviation


def test_a_drift_is_found_and_the_sooner_the_larger() -> None:
    calibration = quick()
    rng = np.random.default_rng(23)
    delays: dict[float, float] = {}
    for shift in (0.25, 0.5, 1.0):
        found = []
        for _ in range(40):
            x = rng.standard_normal((3000, 16))
            x += shift
            detector = OnlineDetector(replace(calibration, settings=QUICK))
            # A full window without drift, scored but not so long that it alarms: the first decision is past it.
            detector.update(rng.standard_normal((QUICK.window - QUICK.stride, 16)))
            readings = detector.update(x)
            found.append(int(readings.positions[readings.alarms][0]) - QUICK.window + QUICK.stride)
        delays[shift] = float(np.mean(found))
    assert delays[1.0] < delays[0.5] < delays[0.25] < 300
    assert delays[1.0] < QUICK.window / 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_threshold_grows_with_the_ert_and_the_law_fits_what_was_simulated(kind: Any) -> None:
    settings = replace(QUICK, kind=kind, ert=3000)
    features = RandomFeatures.draw(Kernel("rbf", 1 / 32), 16, 128, 0)
    pool = features.map(np.random.default_rng(3).standard_normal((1500, 16)))
    scores = simulate_scores(pool, 1500, settings, np.random.default_rng(4))
    runs = RunLengths.fit(scores, settings)
    thresholds = [runs.threshold(ert) for ert in (1000, 3000, 10_000, 100_000)]
    assert thresholds == sorted(set(thresholds))
    for ert, threshold in zip((1000, 3000, 10_000), thresholds, strict=False):
        assert runs.ert(threshold) == pytest.approx(ert, rel=1e-3)
        alarms, records = count_alarms(scores, threshold, settings)
        assert settings.window + records / alarms == pytest.approx(ert, rel=0.2)
    assert runs.slope(thresholds[0]) < 0


def test_alarms_are_counted_as_by_a_detector_that_begins_anew() -> None:
    scores = np.random.default_rng(0).standard_normal((7, 50))
    threshold = 0.8
    alarms = decisions = 0
    for row in scores:
        waiting = QUICK.steps if row[0] > threshold else 0
        for score in row[1:]:
            decisions += waiting <= 0
            hit = waiting <= 0 and score > threshold
            alarms += hit
            waiting = QUICK.steps - 1 if hit else waiting - 1
    assert count_alarms(scores, threshold, QUICK) == (alarms, decisions * QUICK.stride)
    assert alarms > 7


def test_the_same_reference_and_seed_give_the_same_calibration() -> None:
    reference = Gaussian().draw(np.random.default_rng(1), 1500)
    again = calibrate(reference, QUICK)
    assert again.to_bytes() == quick().to_bytes()
    other = calibrate(reference, replace(QUICK, seed=6))
    assert other.threshold == pytest.approx(again.threshold, rel=0.1)
    assert other.to_bytes() != again.to_bytes()


def test_a_smaller_reference_spreads_more_and_too_small_a_one_is_refused() -> None:
    rng = np.random.default_rng(1)
    small = calibrate(Gaussian().draw(rng, 480), QUICK)
    assert 0.05 < quick().spread < 0.7 * small.spread
    with pytest.raises(DataError, match=r"^reference: 240 rows are too few for an ERT of 200000 records") as caught:
        calibrate(Gaussian().draw(rng, 240), replace(QUICK, ert=200_000))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "change", "error", "message"),
    [
        (np.zeros((239, 4)), {}, DataError, "^reference: expected at least 4 windows, 240 rows, got 239;"),
        (np.empty((0, 4)), {}, DataError, "^reference: .* got 0;"),
        (np.zeros(300), {}, DataError, r"^reference: expected rows of d numbers, .* got shape \(300,\)"),
        (np.zeros((300, 0)), {}, DataError, r"^reference: expected rows of d numbers, .* got shape \(300, 0\)"),
        (np.full((300, 4), np.nan), {}, DataError, "^reference: row 0 is not finite"),
        (np.ones((300, 4)), {}, DataError, "identical"),
        (
            np.random.default_rng(0).normal(size=(300, 4)),
            {"kernel": "linear"},
            UsageError,
            "no random Fourier features",
        ),
        (np.random.default_rng(0).normal(size=(300, 4)), {"kernel": "rfb"}, UsageError, "^kernel: unknown 'rfb'"),
    ],
)
def test_bad_references_are_refused(
    reference: NDArray[np.float64], change: dict[str, Any], error: type[DriftlineError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        calibrate(reference, replace(QUICK, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("n", "expected"), [(300, 0.48), (1200, 0.15)])
def test_the_spread_is_that_of_run_lengths_over_references(n: int, expected: float) -> None:
    """Expected: what 30 references gave, each measured over some 400 alarms."""
    spreads = [
        calibrate(Gaussian().draw(np.random.default_rng([seed, 5]), n), replace(QUICK, ert=1500, seed=seed)).spread
        for seed in range(3)
    ]
    assert np.mean(spreads) == pytest.approx(expected, rel=0.45)


@pytest.mark.parametrize("kernel", ["laplace-l2", "laplace-l1", "imq", "rq"])
def test_every_kernel_of_the_distance_can_watch(kernel: str) -> None:
    rng = np.random.default_rng(9)
    calibration = calibrate(rng.standard_normal((900, 16)), replace(QUICK, kernel=kernel))
    detector = OnlineDetector(calibration)
    assert detector.update(rng.standard_normal((20_000, 16))).alarms.sum() < 100
    assert detector.update(rng.standard_normal((500, 16)) + 0.7).alarms.any()
