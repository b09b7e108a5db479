"""Online drift: a stream of vectors watched against a reference, with a known time between false alarms.

The reference is kept as one vector, μ = mean of φ over its n rows, φ being random Fourier features
(:mod:`driftline.components.kernel.theory.random_features`). The stream is kept as the weighted mean w = Σ ωᵢ·φ(xᵢ) of
its recent records, over one of two windows:

- ``ewma``: ωᵢ falls geometrically with age, like that of Keriven, Garreau and Poli, "NEWMA: a new method for scalable
  model-free online change-point detection", IEEE TSP 2020. The state is one vector.
- ``sliding``: the last W records weigh the same, the others nothing. The state is W/stride vectors.

The decay of ``ewma`` is (W − 1)/(W + 1), so that both windows come to the effective sample size 1/Σωᵢ² = W, and with it
to the same noise. The score is the unbiased estimate of MMD² between the reference and where the window's records come
from (Gretton et al. 2012, Lemma 6, with weights; φ has norm 1, so that a record paired with itself counts Σωᵢ² = q):

    score = (‖w‖² − q)/(1 − q) − 2·w·μ + (n‖μ‖² − 1)/(n − 1)

Its mean is 0 without drift, from the first records on. Its noise is proportional to q + 1/n; the threshold follows that
while a window fills. The threshold is found by
:func:`driftline.components.mmd.calibration.calibrate`, once; a detector then runs on NumPy alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DAMAGED_ARCHIVE, DataError, UsageError
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.random_bits import check_seed
from driftline.components.settings import Setting, check_settings

WindowKind = Literal["ewma", "sliding"]
AlarmPolicy = Literal["continue", "restart"]

MAX_STEPS: Final = 100
MIN_ERT_WINDOWS: Final = 5
"""No decision is made in the first window; a run of fewer windows than this is mostly that."""
_CALIBRATION_FORMAT: Final = "driftline.online-calibration"
_STATE_FORMAT: Final = "driftline.online-state"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class OnlineSettings:
    """The settings of a detector.

    Attributes:
        ert: expected run time: the mean number of records from a start, or a restart, to a false alarm.
            At least 5 windows.
        window: W, effective number of records that are compared with the reference. Twice the window halves the noise
            of the score, so that a smaller drift is seen, and a large one is seen later. The reference should have at
            least 20 windows: :attr:`Calibration.spread` is then about 0.2.
        kind: ``"ewma"`` or ``"sliding"``.
        steps: the score is computed ``steps`` times a window, every W/steps records, counted from the stream's first
            record. Alarms come at these records only. From 2 to 100, and W is a multiple with W/steps at least 2.
        features: F, number of random frequencies; the error of each kernel value is about 1/√F.
        kernel: name of a kernel of a distance, its bandwidth by the median heuristic on the reference.
        on_alarm: ``"continue"``: the window goes on, and there is one alarm for a drift that lasts: the next comes
            only after the score has been back under the threshold at least a window of records later.
            ``"restart"``: the window is emptied, so that a drift that lasts alarms again and again.
        seed: seed of the frequencies and of the calibration.

    Raises:
        UsageError: a setting out of range.
    """

    ert: Annotated[float, Setting("Mean number of records between false alarms", metavar="N")] = 100_000
    window: Annotated[
        int,
        Setting("Records that are compared with the reference: more see smaller drifts, later", metavar="W"),
    ] = 200
    kind: Annotated[
        WindowKind, Setting("Weights of the window's records: falling with age (ewma), or the same (sliding)")
    ] = "ewma"
    steps: Annotated[int, Setting("Scores for each window's worth of records")] = 20
    features: Annotated[int, Setting("Random frequencies of the kernel", least=1)] = 512
    kernel: Annotated[str, Setting("Kernel of a distance: rbf, laplace-l2, laplace-l1, imq or rq")] = "rbf"
    on_alarm: Annotated[
        AlarmPolicy,
        Setting("One alarm for a drift that lasts (continue), or a new window and another alarm (restart)"),
    ] = "continue"
    seed: Annotated[int, Setting("Seed of sampling and calibration", metavar="S")] = 0

    def __post_init__(self) -> None:
        check_settings(self)
        if not 2 <= self.steps <= MAX_STEPS:
            raise UsageError(f"steps: expected 2 to {MAX_STEPS} scores a window, got {self.steps}")
        if self.window < 2 * self.steps or self.window % self.steps:
            raise UsageError(
                f"window: expected a multiple of steps = {self.steps}, at least {2 * self.steps} records, "
                f"got {self.window}"
            )
        least = MIN_ERT_WINDOWS * self.window
        if not (math.isfinite(self.ert) and self.ert >= least):
            raise UsageError(
                f"ert: expected a number of records of at least {MIN_ERT_WINDOWS} windows, {least}, got {self.ert}; "
                "ask for a longer run or give a smaller window"
            )
        check_seed(self.seed)

    @property
    def stride(self) -> int:
        """Records from one score to the next."""
        return self.window // self.steps

    @property
    def decay(self) -> float:
        """Factor by which a record's weight falls with each later record; 1 inside a sliding window."""
        return (self.window - 1) / (self.window + 1) if self.kind == "ewma" else 1.0

    def squared_weights(self, records: int) -> float:
        """Return q = Σωᵢ² for weights that sum to 1, ``records`` records after the start; 1/q is the sample size."""
        if self.kind == "sliding":
            return 1 / min(records, self.window)
        a = self.decay
        return (1 - a) / (1 + a) * (1 + a**records) / (1 - a**records)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A reference with the threshold found for it: all that a detector needs. Memory: 4·d·F + 16·F + 8·d bytes.

    Attributes:
        settings: the settings it was made for.
        features: the random features; a vector's are taken after subtracting ``centre``.
        centre: (d,) float64, mean of the reference.
        mean: (2F,) float64, μ.
        rows: n, rows of the reference.
        threshold: the score above which an alarm is raised once the window is full, in units of MMD².
        spread: how far a single detector's run length may be from the ERT because the reference is finite: standard
            deviation of its logarithm over references of n rows. Over many references, false alarms come at one in
            ERT records; at 0.2 the run length of a given one is within about 20% of that, two times in three.
            It falls as n grows, and grows slowly with the ERT.
    """

    settings: OnlineSettings
    features: RandomFeatures
    centre: NDArray[np.float64]
    mean: NDArray[np.float64]
    rows: int
    threshold: float
    spread: float

    def threshold_at(self, squared_weights: float) -> float:
        """Return the threshold for a window of that Σωᵢ², by the noise it has."""
        full, rest = 1 / self.settings.window, 1 / self.rows
        return self.threshold * (squared_weights + rest) / (full + rest)

    def to_bytes(self) -> bytes:
        """Return an .npz file that :meth:`from_bytes` reads: arrays and a JSON header, no pickle."""
        header = {
            "settings": asdict(self.settings),
            "group": self.features.group,
            "rows": self.rows,
            "threshold": self.threshold,
            "spread": self.spread,
        }
        arrays = {"frequencies": self.features.frequencies, "centre": self.centre, "mean": self.mean}
        return pack(_CALIBRATION_FORMAT, header, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote. Raises DataError for anything else."""
        header, arrays = unpack(_CALIBRATION_FORMAT, data)
        try:
            settings = OnlineSettings(**header["settings"])
            d, count = arrays["frequencies"].shape
            check_arrays(arrays, {"centre": (d,), "mean": (2 * count,)})
            features = RandomFeatures(np.ascontiguousarray(arrays["frequencies"], np.float32), int(header["group"]))
            rows, threshold, spread = int(header["rows"]), float(header["threshold"]), float(header["spread"])
            return cls(settings, features, arrays["centre"], arrays["mean"], rows, threshold, spread)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{_CALIBRATION_FORMAT}: not as written ({error}); calibrate again") from error

    def digest(self) -> str:
        """Return a SHA-256 of the whole calibration, by which a state knows its own."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """The scores that one batch completed, oldest first; none when it ended before the next stride.

    Attributes:
        positions: (k,) int64, records of the stream up to and with each score.
        scores: (k,) float64, unbiased MMD², about 0 without drift and often below.
        thresholds: (k,) float64; infinite in the first window after a start, in which nothing is decided.
        sizes: (k,) float64, effective sample sizes 1/Σωᵢ².
        alarms: (k,) bool, where an alarm was raised.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    sizes: NDArray[np.float64]
    alarms: NDArray[np.bool_]


class OnlineDetector:
    """Watches one stream. One update costs O(k·d·F) for k records; memory is O(F) or, sliding, O(F·steps).

    Scores depend on the records and their order alone, and not on how they are cut into batches: records wait until a
    stride is full, and are mapped a stride at a time. Not safe for use by several threads at once.
    """

    def __init__(self, calibration: Calibration) -> None:
        """Start a new stream."""
        settings = calibration.settings
        self.calibration = calibration
        self._settings = settings
        self._digest = calibration.digest()
        stride, width = settings.stride, 2 * calibration.features.count
        # Newest last: the weights of a stride's records in its sum.
        self._decays = (settings.decay ** np.arange(stride - 1, -1, -1)).astype(np.float32)
        norms = np.linalg.norm(calibration.features.frequencies.astype(np.float64), axis=0)
        self._longest = float(np.finfo(np.float32).max) / (10 * max(1.0, float(norms.max())))
        n, mean = calibration.rows, calibration.mean
        self._within_reference = (n * float(mean @ mean) - 1) / (n - 1)
        self._phases = np.empty((stride, calibration.features.count), np.float32)
        self._mapped = np.empty((stride, width), np.float32)
        self._waiting = np.empty((stride, calibration.features.dimension), np.float32)
        self._sums = np.zeros((1 if settings.kind == "ewma" else settings.steps, width), np.float64)
        self._alarm_mean = np.zeros(width, np.float64)
        self._position = 0
        self._started = 0
        self._alarmed = -1
        self._latched = False

    @property
    def position(self) -> int:
        """Records seen so far, those that wait for their stride included."""
        return self._position

    @property
    def drifting(self) -> bool:
        """True from an alarm until the score is back under the threshold; always False under ``"restart"``."""
        return self._latched

    def update(self, vectors: NDArray[np.floating]) -> Readings:
        """Take the next records of the stream.

        Args:
            vectors: (k, d) of any float dtype, in the order of the stream; k may be 0, which changes nothing.

        Raises:
            DataError: rows that are not of d finite numbers of a sane size. Nothing of the batch has been taken then.
        """
        rows = self._checked(vectors)
        stride = self._settings.stride
        readings: list[tuple[int, float, float, float, bool]] = []
        taken = 0
        while taken < len(rows):
            held = self._position % stride
            count = min(stride - held, len(rows) - taken)
            self._waiting[held : held + count] = rows[taken : taken + count]
            taken += count
            self._position += count
            if self._position % stride == 0:
                self._add_stride()
                readings.append(self._decide())
        columns = list(zip(*readings, strict=True)) or [()] * 5
        return Readings(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.float64),
            np.array(columns[2], np.float64),
            np.array(columns[3], np.float64),
            np.array(columns[4], np.bool_),
        )

    def witness(self, vectors: NDArray[np.floating], *, at_alarm: bool = False) -> NDArray[np.float64]:
        """Return φ(x)·(μ − w) for each vector, (k,): how much more it looks like the reference than like the stream.

        The records with the lowest values are those that moved most.

        Args:
            vectors: (k, d), such as the records of the last window.
            at_alarm: compare with the window as it was at the latest alarm, and not as it is now; after a restart,
                that is the one to use.

        Raises:
            UsageError: no stride has been completed since the start, or no alarm been raised.
            DataError: vectors that :meth:`update` would not take.
        """
        rows = self._checked(vectors)
        if at_alarm and self._alarmed < 0:
            raise UsageError("witness: no alarm has been raised yet; compare with the window as it is now")
        if not at_alarm and not self._records():
            raise UsageError(
                f"witness: the window is empty; give at least {self._settings.stride} records to update first"
            )
        window = self._alarm_mean if at_alarm else self._window_mean()
        direction = self.calibration.mean - window
        values = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), 256):
            values[start : start + 256] = self.calibration.features.map(rows[start : start + 256]) @ direction
        return values

    def to_bytes(self) -> bytes:
        """Return the state as an .npz file without pickle; :meth:`from_bytes` goes on with the same bits."""
        header = {
            "calibration": self._digest,
            "position": self._position,
            "started": self._started,
            "alarmed": self._alarmed,
            "latched": self._latched,
        }
        waiting = self._waiting[: self._position % self._settings.stride]
        arrays = {"sums": self._sums, "waiting": waiting, "alarm_mean": self._alarm_mean}
        return pack(_STATE_FORMAT, header, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, calibration: Calibration) -> Self:
        """Return a detector that goes on where :meth:`to_bytes` was called.

        Raises:
            DataError: not such a state, or one of another calibration.
        """
        header, arrays = unpack(_STATE_FORMAT, data)
        detector = cls(calibration)
        if header.get("calibration") != detector._digest:
            raise DataError(
                f"{_STATE_FORMAT}: the state belongs to another calibration; give that one or start a new stream"
            )
        try:
            detector._position, detector._started = int(header["position"]), int(header["started"])
            detector._alarmed, detector._latched = int(header["alarmed"]), bool(header["latched"])
            held = detector._position % calibration.settings.stride
            width = detector._alarm_mean.shape
            shapes = {"sums": detector._sums.shape, "waiting": (held, len(calibration.centre)), "alarm_mean": width}
            check_arrays(arrays, shapes)
            detector._sums[:] = arrays["sums"]
            detector._waiting[:held] = arrays["waiting"]
            detector._alarm_mean[:] = arrays["alarm_mean"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{_STATE_FORMAT}: not as written ({error}); start a new stream") from error
        return detector

    def _checked(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the rows after subtracting the centre, float32."""
        d = len(self.calibration.centre)
        if vectors.ndim != 2 or vectors.shape[1] != d:
            raise DataError(
                f"vectors: expected rows of {d} numbers, got an array of shape {vectors.shape}; "
                "project the stream as the reference was"
            )
        centred = vectors - self.calibration.centre
        norms = np.sqrt(np.einsum("ij,ij->i", centred, centred))
        bad = np.flatnonzero(~(norms <= self._longest))
        if bad.size:
            raise DataError(
                f"vectors: row {bad[0]} of the batch is not finite or longer than {self._longest:.0e}; "
                "leave it out, or check the embeddings"
            )
        return centred.astype(np.float32)

    def _records(self) -> int:
        """Records in complete strides since the start."""
        return self._position - self._position % self._settings.stride - self._started

    def _add_stride(self) -> None:
        """Add the mapped records of a full stride to the window."""
        self.calibration.features.map_chunk(self._waiting, self._phases, self._mapped)
        added = self._decays @ self._mapped
        if self._settings.kind == "ewma":
            self._sums[0] *= self._settings.decay**self._settings.stride
            self._sums[0] += added
        else:
            place = (self._records() // self._settings.stride - 1) % self._settings.steps
            self._sums[place] = added

    def _window_mean(self) -> NDArray[np.float64]:
        records, a = self._records(), self._settings.decay
        if self._settings.kind == "ewma":
            return self._sums[0] * ((1 - a) / (1 - a**records))
        # Added up anew each time: a running sum would keep the rounding of all that ever passed through it.
        return self._sums.sum(axis=0) / min(records, self._settings.window)

    def _decide(self) -> tuple[int, float, float, float, bool]:
        """Score the window, and alarm or not: position, score, threshold, effective size, alarm."""
        records, settings = self._records(), self._settings
        window = self._window_mean()
        q = settings.squared_weights(records)
        score = (float(window @ window) - q) / (1 - q) - 2 * float(window @ self.calibration.mean)
        score += self._within_reference
        threshold = self.calibration.threshold_at(q) if records >= settings.window else math.inf
        above = score > threshold
        alarm = above and not self._latched
        if alarm:
            self._alarm_mean[:] = window
            self._alarmed = self._position
            if settings.on_alarm == "restart":
                self._sums[:] = 0
                self._started = self._position
            else:
                self._latched = True
        elif self._latched and not above and self._position - self._alarmed >= settings.window:
            self._latched = False
        return self._position, score, threshold, 1 / q, alarm


def pack(name: str, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return arrays and a header as an .npz file: a name, a version, no pickle."""
    text = json.dumps({"format": name, "version": _VERSION, **header}, sort_keys=True)
    target = io.BytesIO()
    np.savez(target, header=np.frombuffer(text.encode(), np.uint8), **arrays)  # pyright: ignore[reportArgumentType]
    return target.getvalue()


def unpack(name: str, data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what :func:`pack` wrote under that name. Raises DataError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
        found, version = header["format"], header["version"]
    except DAMAGED_ARCHIVE as error:
        raise DataError(f"{name}: expected bytes that Driftline wrote, got {len(data)} others ({error})") from error
    if (found, version) != (name, _VERSION):
        raise DataError(f"{name}: expected version {_VERSION} of it, got {found} version {version}; write it again")
    return header, arrays


def check_arrays(arrays: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless each array is there in its shape, of finite floats."""
    for key, shape in shapes.items():
        array = arrays[key]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{key}: expected finite numbers of shape {shape}, got {array.dtype} of {array.shape}")
