"""The threshold of an online detector, from its reference alone: simulated streams without drift.

Simulating by drawing the reference's rows again misleads in two ways. Drawn with replacement, a row meets itself in a
window, which real records do not, so that the score looks noisier than it is; and the stream is then centred on the
reference's own mean μ, from which a real stream's mean differs by the error δ of an n-row mean. Both matter: where the
threshold is near 4 standard deviations, 4% more noise doubles the run length. So

- a simulated stream is a random order of (a part of) the reference's rows, each taken once: L records of a pool of m
  rows. Its windows differ from each other as independent ones do, but their common mean has covariance −Σ/m in place
  of 0, where Σ is the covariance of φ;
- each stream is given its own reference, off by a δ with covariance Σ(1/m + 1/n). Together that is Σ/n: first and
  second moments of every window, and of every pair of windows, are those of a real stream against a real reference.

Run lengths follow from the alarms per record of the simulated streams at many thresholds, each alarm followed by a
restart. Their logarithm is near that of the rate at which a Gaussian process crosses a level, z·exp(a − b·z²/2), where
z is the score made normal by its first three moments (Wilson and Hilferty 1931); a and b are fitted, which smooths the
counts and reaches run lengths past those simulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DataError
from driftline.components.kernel.theory.bandwidth import heuristic_kernel, scale_rows
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.mmd.online import Calibration, OnlineSettings
from driftline.components.random_bits import CALIBRATION

MIN_REFERENCE_WINDOWS: Final = 4
MAX_SPREAD: Final = math.log(2)
"""A single detector's run length may be off by a factor of 2, one time in three, and no more."""
_STREAM_WINDOWS: Final = 6
_POOL_ROWS: Final = 4096
_RUNS: Final = 150
_MIN_RECORDS: Final = 1_000_000
_MAX_RECORDS: Final = 3_000_000
_MIN_ALARMS: Final = 20
_ENOUGH_ALARMS: Final = 1000
_MAP_ROWS: Final = 4096


def calibrate(reference: NDArray[np.floating], settings: OnlineSettings) -> Calibration:
    """Find the threshold at which a stream like the reference gives a false alarm every ``settings.ert`` records.

    Takes one to several seconds on a core, and 8·F bytes for each of up to max(4096, 6·window) rows. Use vectors whose
    projection was fitted on other rows: to a projection fitted on the reference, new records look different.

    Args:
        reference: (n, d) of any float dtype, rows that are independent and without drift; at least 4 windows of
            them, and better 20.
        settings: the detector's settings.

    Raises:
        UsageError: a kernel without random features.
        DataError: a reference that is not of finite rows, all of whose rows are the same, or that is too small for
            the window or for the ERT asked for.
    """
    window = settings.window
    if reference.ndim != 2 or reference.shape[1] < 1:
        raise DataError(f"reference: expected rows of d numbers, an array (n, d), got shape {reference.shape}")
    n, d = reference.shape
    if n < MIN_REFERENCE_WINDOWS * window:
        raise DataError(
            f"reference: expected at least {MIN_REFERENCE_WINDOWS} windows, {MIN_REFERENCE_WINDOWS * window} rows, "
            f"got {n}; give more rows or a smaller window"
        )
    bad = np.flatnonzero(~np.isfinite(reference).all(axis=1))
    if bad.size:
        raise DataError(f"reference: row {bad[0]} is not finite; leave it out, or check the embeddings")
    kernel = heuristic_kernel(settings.kernel, reference[scale_rows(settings.seed, n)])
    features = RandomFeatures.draw(kernel, d, settings.features, settings.seed)
    centre = reference.mean(axis=0, dtype=np.float64)
    total = np.zeros(2 * settings.features, np.float64)
    for start in range(0, n, _MAP_ROWS):
        mapped = features.map(reference[start : start + _MAP_ROWS] - centre)
        total += mapped.sum(axis=0, dtype=np.float64)
    mean = total / n
    rng = np.random.default_rng([settings.seed, CALIBRATION])
    pool_rows = min(n, max(_POOL_ROWS, _STREAM_WINDOWS * window))
    pool = features.map(reference[np.sort(rng.choice(n, pool_rows, replace=False))] - centre)
    scores = simulate_scores(pool, n, settings, rng)
    runs = RunLengths.fit(scores, settings)
    threshold = runs.threshold(settings.ert)
    spread = log_run_spread(pool, n, window, -runs.slope(threshold))
    if spread > MAX_SPREAD:
        rows = math.ceil(n * spread / MAX_SPREAD / 100) * 100
        raise DataError(
            f"reference: {n} rows are too few for an ERT of {settings.ert:g} records with a window of {window}; "
            f"give about {rows} rows, a smaller window or a shorter ERT"
        )
    return Calibration(settings, features, centre, mean, n, threshold, spread)


def simulate_scores(
    pool: NDArray[np.float32], n: int, settings: OnlineSettings, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the scores of simulated streams without drift, for a full window's noise.

    Args:
        pool: (m, 2F) float32, features of m rows of the reference.
        n: rows of the reference.
        settings: the settings.
        rng: the random generator.

    Returns:
        (streams, k) float64: each stream's scores, a stride apart, from the end of its first window. Those of a window
        that is not full are divided by what its threshold would be multiplied with.
    """
    m, width = pool.shape
    stride = settings.stride
    strides = min(m, _STREAM_WINDOWS * settings.window) // stride
    records = min(max(_RUNS * settings.ert, _MIN_RECORDS), _MAX_RECORDS)
    streams = math.ceil(records / (strides * stride))
    weights, squares = _window_weights(settings, strides)
    decays = (settings.decay ** np.arange(stride - 1, -1, -1)).astype(np.float32)
    mean = pool.mean(axis=0, dtype=np.float64)
    norm = float(mean @ mean)
    centred = (pool - mean).astype(np.float32)
    noise = (squares + 1 / n) / (1 / settings.window + 1 / n)
    # The error of the reference's mean: strides of another stream, with random factors that give it its covariance.
    error_scale = math.sqrt((1 / m + 1 / n) / (strides * float(decays @ decays)))
    buffer = np.empty((settings.window, width), np.float32)

    def stride_sums() -> NDArray[np.float32]:
        order = rng.permutation(m)[: strides * stride]
        sums = np.empty((strides, width), np.float32)
        for first in range(0, strides, settings.steps):
            some = order[first * stride : (first + settings.steps) * stride]
            rows = centred.take(some, axis=0, out=buffer[: len(some)], mode="clip")
            sums[first : first + settings.steps] = np.matmul(decays, rows.reshape(-1, stride, width))
        return sums

    scores = np.empty((streams, len(weights)))
    other = stride_sums()
    for stream in range(streams):
        sums = stride_sums()
        error = (error_scale * rng.standard_normal(strides)) @ other
        other = sums
        # w − pool mean for all windows at once, by the strides' inner products: O(strides²) numbers, not O(strides·F).
        length = np.einsum("ts,ts->t", weights @ (sums @ sums.T), weights)
        distance = length - 2 * (weights @ (sums @ error)) + float(error @ error)
        window_norm = length + 2 * (weights @ (sums @ mean)) + norm
        scores[stream] = distance - squares * (1 - window_norm) / (1 - squares) - (1 - norm) / (n - 1)
        scores[stream] /= noise
    return scores


def _window_weights(settings: OnlineSettings, strides: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each window's weights of the strides' sums, (k, strides), and its Σωᵢ², (k,), once a window has passed."""
    ends = np.arange(settings.steps, strides + 1)
    ages = ends[:, None] - 1 - np.arange(strides)
    inside = ages >= 0
    if settings.kind == "sliding":
        inside &= ages < settings.steps
    raw = np.where(inside, settings.decay ** (settings.stride * np.maximum(ages, 0.0)), 0.0)
    per_stride = float((settings.decay ** np.arange(settings.stride)).sum())
    weights = raw / (raw.sum(axis=1, keepdims=True) * per_stride)
    return weights, np.array([settings.squared_weights(int(end) * settings.stride) for end in ends])


@dataclass(frozen=True, slots=True)
class RunLengths:
    """The rate of false alarms as a function of the threshold: ln rate = a + ln z − b·z²/2.

    Attributes:
        mean: mean of the scores.
        deviation: their standard deviation.
        shape: k of the gamma distribution with their skewness, 4 / skewness².
        a: fitted constant.
        b: fitted slope.
        window: records from a start to the first decision.
    """

    mean: float
    deviation: float
    shape: float
    a: float
    b: float
    window: int

    @classmethod
    def fit(cls, scores: NDArray[np.float64], settings: OnlineSettings) -> Self:
        """Fit to simulated scores, (streams, k).

        Raises:
            DataError: scores that do not vary.
        """
        mean, deviation = float(scores.mean()), float(scores.std())
        if not deviation > 0:
            raise DataError("reference: the score of simulated streams does not vary; check the embeddings")
        # A sum of squares has a skewness; the bound keeps the formulas finite for scores that are next to normal.
        skewness = max(0.05, float((((scores - mean) / deviation) ** 3).mean()))
        start = cls(mean, deviation, 4 / skewness**2, 0.0, 1.0, settings.window)
        # The law holds for rare alarms, the better the rarer: use no more than it takes to know a and b.
        highest_rate = max(_ENOUGH_ALARMS / (scores.size * settings.stride), 2 / (settings.ert - settings.window))
        points: list[tuple[float, float, int]] = []
        for threshold in np.quantile(scores, 1 - np.geomspace(0.3, 1e-6, 60)):
            alarms, records = count_alarms(scores, float(threshold), settings)
            z = start._normal(float(threshold))
            if z > 0 and _MIN_ALARMS <= alarms <= highest_rate * records:
                points.append((z, math.log(alarms / records), alarms))
        # Scores of a few values only, as of rows of which most are the same, follow no law.
        unlawful = DataError(
            "reference: the scores of simulated streams follow no law that gives a threshold; "
            "check whether most of the rows are the same"
        )
        if len(points) < 3:
            raise unlawful
        z, rate, alarms = (np.array(column, np.float64) for column in zip(*points, strict=True))
        weights = np.sqrt(alarms)
        design = np.stack([np.ones_like(z), -z * z / 2], axis=1) * weights[:, None]
        a, b = np.linalg.lstsq(design, (rate - np.log(z)) * weights, rcond=None)[0]
        if not b > 0:
            raise unlawful
        return cls(mean, deviation, 4 / skewness**2, float(a), float(b), settings.window)

    def ert(self, threshold: float) -> float:
        """Return the mean run length, in records, at a threshold above the mean score."""
        return self.window + math.exp(min(-self._log_rate(threshold), 700.0))

    def threshold(self, ert: float) -> float:
        """Return the threshold with that mean run length."""
        low, high = self.mean + 0.5 * self.deviation, self.mean + 100 * self.deviation
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if self.ert(middle) < ert else (low, middle)
        return high

    def slope(self, threshold: float) -> float:
        """Return the derivative of ln rate by the threshold."""
        step = 1e-3 * self.deviation
        return (self._log_rate(threshold + step) - self._log_rate(threshold - step)) / (2 * step)

    def _log_rate(self, threshold: float) -> float:
        z = self._normal(threshold)
        return self.a + math.log(z) - self.b * z * z / 2

    def _normal(self, threshold: float) -> float:
        """Return the normal quantile that a gamma distribution of the scores' moments puts at a threshold."""
        root = math.sqrt(self.shape)
        standard = (threshold - self.mean) / self.deviation
        return 3 * root * (math.cbrt(1 + standard / root) - 1 + 1 / (9 * self.shape))


def log_run_spread(pool: NDArray[np.float32], n: int, window: int, steepness: float) -> float:
    """Return the standard deviation of ln(run length) over references of n rows.

    Near the threshold the rate of alarms falls as exp(−θ·score). With ξ normal of covariance Σ/W, the error δ of the
    reference's mean multiplies the rate by exp(θ·δᵀ(I − 2θΣ/W)⁻¹δ), the tilted mean of exp(θ(‖ξ + δ‖² − ‖ξ‖²)); and
    an error of Σ itself, from which the threshold comes, by the derivative of the logarithm of the mean of exp(θ‖ξ‖²).

    Args:
        pool: (m, 2F) float32, features of rows of the reference.
        n: rows of the reference.
        window: W.
        steepness: θ, per unit of MMD².
    """
    centred = pool - pool.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / np.float32(len(pool)))
    variances = np.maximum(variances.astype(np.float64), 0.0)
    # A fitted θ can exceed what the largest variance allows, where the law of the tail ends.
    theta = min(steepness, 0.4 * window / float(variances[-1]))
    tilt = 2 * theta * variances / window
    of_mean = 2 * float(((theta * variances / n / (1 - tilt)) ** 2).sum())
    influence = np.square(centred @ axes).astype(np.float64) @ (theta / window * tilt / (1 - tilt))
    return math.sqrt(of_mean + float(influence.var()) / n)


def count_alarms(scores: NDArray[np.float64], threshold: float, settings: OnlineSettings) -> tuple[int, int]:
    """Count the alarms of streams that begin anew after each, and the records in which one could have been raised.

    A window that begins anew decides again after W records, when the old window has left it: the same scores as those
    of a stream that went on. Streams that begin above the threshold are let go on for a window first.
    """
    wait = np.where(scores[:, 0] > threshold, settings.steps, 0)
    alarms = decisions = 0
    for column in scores.T[1:]:
        live = wait <= 0
        hit = live & (column > threshold)
        alarms += int(hit.sum())
        decisions += int(live.sum())
        wait = np.where(hit, settings.steps - 1, wait - 1)
    return alarms, decisions * settings.stride
