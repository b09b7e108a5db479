"""What an online detector is given: its settings, and the reference with the threshold found for it.

Made by :func:`driftline.components.mmd.calibration.calibrate`, stored as bytes, and read by each
:class:`driftline.components.mmd.online.OnlineDetector`. NumPy alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from driftline.components.errors import DAMAGED_ARCHIVE, DataError, UsageError
from driftline.components.kernel.theory.random_features import RandomFeatures
from driftline.components.random_bits import check_seed

WindowKind = Literal["ewma", "sliding"]
AlarmPolicy = Literal["continue", "restart"]

MAX_STEPS: Final = 100
MIN_ERT_WINDOWS: Final = 5
"""No decision is made in the first window; a run of fewer windows than this is mostly that."""
_CALIBRATION_FORMAT: Final = "driftline.online-calibration"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class OnlineSettings:
    """What a detector watches for.

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

    ert: float = 10_000
    window: int = 200
    kind: WindowKind = "ewma"
    steps: int = 20
    features: int = 512
    kernel: str = "rbf"
    on_alarm: AlarmPolicy = "continue"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, get_args(WindowKind)),
            ("on_alarm", self.on_alarm, get_args(AlarmPolicy)),
        ):
            if value not in known:
                raise UsageError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if not 2 <= self.steps <= MAX_STEPS:
            raise UsageError(f"steps: expected 2 to {MAX_STEPS} scores a window, got {self.steps}")
        if self.window < 2 * self.steps or self.window % self.steps:
            raise UsageError(
                f"window: expected a multiple of steps = {self.steps}, at least {2 * self.steps} records, "
                f"got {self.window}"
            )
        if self.features < 1:
            raise UsageError(f"features: expected at least 1 frequency, got {self.features}")
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
    """A reference and the threshold found for it: all that a detector needs. Memory: 4·d·F + 16·F + 8·d bytes.

    Attributes:
        settings: the settings it was made for.
        features: the random features; a vector's are taken after subtracting ``centre``.
        centre: (d,) float64, mean of the reference.
        mean: (2F,) float64, μ.
        rows: n, rows of the reference.
        threshold: what the score is compared with once the window is full, in units of MMD².
        spread: how far a single detector's run length may be from the ERT because the reference is finite: standard
            deviation of its logarithm over references of n rows. Over many references, false alarms come at one in
            ERT records; 0.2 says that the run length of a given one is within about 20% of that, two times in three.
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
