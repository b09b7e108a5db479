"""What can be asked of a drift run: every setting, its default and the values that it takes, checked before any work.

A pipeline's first step makes :class:`DriftSettings` of what it was given, and later steps read them from the artifacts
that they are handed: each setting is checked once, at once, and means the same to all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, cast

from driftline.components.errors import UsageError
from driftline.components.random_bits import check_seed
from driftline.components.settings import (
    MAX_TASKS,
    REFUSE,
    SKIP,
    Setting,
    check_settings,
    filled,
    in_pipelines,
    option_names,
)

Method = Literal["exact", "cross", "features"]
AUTO: Final = "auto"
METHODS: Final = (AUTO, "exact", "cross", "features")

EXACT_ROWS: Final = 200_000
"""Up to this many pooled rows ``auto`` takes the exact method: 20 billion pairs."""

CROSS_ROWS: Final = 4
"""Rows of a sample that the cross method takes at least: two for each half."""

SEARCH: Final = "search"
"""In place of a kernel's name: many kernels in one test."""
KERNELS: Final = ("rbf", "laplace-l2", "laplace-l1", "imq", "rq", "linear", "polynomial")
"""Families of kernels (:mod:`driftline.components.kernel.theory.families`)."""
WITHOUT_FEATURES: Final = ("linear", "polynomial")
"""Those that are of no distance, and so have no random Fourier features."""

MEDIAN: Final = "median"
Gamma = float | Literal["median"]

COMBINATIONS: Final = ("studentised", "fuse", "agg")
DEFAULT_COMBINATION: Final = "studentised"
"""Ways to make one statistic of many kernels' (:mod:`driftline.components.mmd.search`)."""

MAX_PERMUTATIONS: Final = 1_000_000
"""Ceiling of the permutations: their statistics, 8 bytes each, travel between steps."""

COMPARE: Final = "compare"
WHEN_SMALL: Final = (SKIP, REFUSE)
WHEN_PARTIAL: Final = (COMPARE, SKIP, REFUSE)
"""What becomes of a run whose window is small, or lacks some of its days."""

_TRADES: Final = {
    "exact": "every pair of texts is compared, and the p-value is a permutation test's, exact at any size",
    "cross": (
        "the witness is learnt on one half of each sample and judged on the other: half of the pairs, no permutation "
        "of the kernel matrix, and somewhat less power"
    ),
    "features": (
        "the kernel is approximated by random Fourier features: time and memory grow with the rows, not with their "
        "square; MMD² carries a stated error, and the finest differences may be missed; the p-value stays exact"
    ),
}


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The method of a run.

    Attributes:
        method: what is done.
        why: who chose it, and what it trades, as a sentence without its full stop.
    """

    method: Method
    why: str


def choose_method(asked: str, n: int, m: int) -> MethodChoice:
    """Settle on a method for samples of n and m rows. Raises UsageError for an unknown one."""
    check_method(asked)
    if asked != AUTO:
        return MethodChoice(cast("Method", asked), f"asked for: {_TRADES[asked]}")
    picked: Method = "exact" if n + m <= EXACT_ROWS else "features"
    size = f"{n + m:,} rows are {'within' if picked == 'exact' else 'past'} the {EXACT_ROWS:,} of the exact method"
    return MethodChoice(picked, f"chosen by size ({size}): {_TRADES[picked]}")


def check_method(method: str) -> None:
    """Raise UsageError for a method that is not there."""
    if method not in METHODS:
        raise UsageError(f"method: unknown {method!r}; choose one of: {', '.join(METHODS)}")


def check_combination(combination: str) -> None:
    """Raise UsageError for a combination that is not there."""
    if combination not in COMBINATIONS:
        raise UsageError(f"combination: unknown {combination!r}; choose one of: {', '.join(COMBINATIONS)}")


def check_kernel(kernel: str, gamma: str | float) -> None:
    """Raise UsageError for an unknown kernel, a gamma out of range, or one given for a search, which has its own."""
    bandwidth = parse_gamma(gamma)
    if kernel != SEARCH and kernel not in KERNELS:
        raise UsageError(f"kernel: unknown {kernel!r}; choose {SEARCH} or one of: {', '.join(KERNELS)}")
    if kernel == SEARCH and bandwidth != MEDIAN:
        raise UsageError(
            f"gamma: {gamma} was given with the kernel search, which has bandwidths of its own; leave it out, or name "
            "one kernel"
        )


def check_features(kernel: str, method: str) -> None:
    """Raise UsageError for a kernel that has no random features under the method that needs them."""
    if method == "features" and kernel in WITHOUT_FEATURES:
        raise UsageError(
            f"method: features need a kernel of a distance, and {kernel} is none; name another kernel, or the method "
            "exact"
        )


def parse_gamma(gamma: str | float) -> Gamma:
    """Read ``"median"`` or a positive number. Raises UsageError for anything else."""
    if gamma == MEDIAN:
        return MEDIAN
    try:
        value = float(gamma)
    except ValueError:
        raise UsageError(f"gamma: expected 'median' or a number above 0, got {gamma!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"gamma: expected 'median' or a finite number above 0, got {gamma!r}")
    return value


def check_permutations(permutations: int, level: float) -> None:
    """Raise UsageError where the level is not in (0, 1), or no p-value of so many permutations can reach it."""
    if not 0 < level < 1:
        raise UsageError(f"level: expected a number between 0 and 1, both excluded, got {level}")
    if permutations > MAX_PERMUTATIONS:
        raise UsageError(f"permutations: expected at most {MAX_PERMUTATIONS}, got {permutations}")
    if permutations < 1 or 1 / (permutations + 1) > level:
        needed = next(b for b in range(max(1, int(1 / level) - 2), int(1 / level) + 3) if 1 / (b + 1) <= level)
        raise UsageError(
            f"permutations: {permutations} are too few for level {level}: the smallest p-value would be "
            f"{1 / (max(permutations, 0) + 1):.3g}; take at least {needed}"
        )


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """The settings of a drift run, by the names of the pipeline's parameters."""

    output_history: Annotated[
        str,
        Setting(
            "Folder of past results for the trend",
            "the folder history below the output folder, before any placeholder",
            option="history",
            metavar="DIR",
        ),
    ] = ""
    window_as_of: Annotated[
        str,
        Setting(
            "The moment that windows are relative to, an ISO 8601 date or time, in UTC",
            "now",
            option="as-of",
            metavar="TIME",
        ),
    ] = ""
    window_max_rows: Annotated[
        int,
        Setting(
            "At most this many rows of each window, chosen by the seed", "all", least=0, option="max-rows", metavar="N"
        ),
    ] = 0
    window_min_rows: Annotated[
        int,
        Setting(
            "Rows that each window must have to be compared",
            "the least that a test takes",
            least=0,
            option="min-rows",
            metavar="N",
        ),
    ] = 0
    window_when_small: Annotated[
        str,
        Setting(
            "What becomes of a run with an empty window or one of fewer rows, skip or refuse",
            choices=WHEN_SMALL,
            option="when-small",
        ),
    ] = SKIP
    window_when_partial: Annotated[
        str,
        Setting(
            "What becomes of a run with a window that lacks some of its days, compare, skip or refuse",
            choices=WHEN_PARTIAL,
            option="when-partial",
        ),
    ] = COMPARE
    pca_components: Annotated[
        int, Setting("Principal components to compare", "whole vectors", least=0, option="components")
    ] = 32
    kernel: Annotated[
        str,
        Setting(
            f"Name of a kernel ({', '.join(KERNELS)}), or search for kernels of several shapes and widths in one test",
            choices=(SEARCH, *KERNELS),
            metavar="NAME",
        ),
    ] = SEARCH
    kernel_gamma: Annotated[
        str, Setting("Inverse squared length scale of one kernel, a number above 0, or median", option="gamma")
    ] = MEDIAN
    kernel_combination: Annotated[
        str,
        Setting(
            "How the kernels of a search are combined: studentised, fuse (MMD-FUSE) or agg (MMDAgg)",
            choices=COMBINATIONS,
            option="combination",
        ),
    ] = DEFAULT_COMBINATION
    kernel_tasks: Annotated[
        int,
        Setting("Tasks to share the kernel matrix among", least=1, most=MAX_TASKS, option="tasks", metavar="T"),
    ] = 4
    test_method: Annotated[
        str,
        Setting(
            "exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto, by size",
            choices=METHODS,
            option="method",
        ),
    ] = AUTO
    test_permutations: Annotated[
        int, Setting("Random permutations behind the p-value", least=1, option="permutations")
    ] = 500
    test_level: Annotated[
        float, Setting("Accepted rate of false alarms, between 0 and 1", above=0, below=1, option="level")
    ] = 0.05
    seed: Annotated[int, Setting("Seed of sampling and permutations", metavar="S")] = 0
    text_column: Annotated[
        str,
        Setting(
            "Carried column that holds the texts to show in the report", "text, where it is carried", metavar="NAME"
        ),
    ] = ""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return settings, checked. What is left out or empty, or 0 where 0 means nothing, is the default.

        A box that is cleared in Kubeflow's form is sent as an empty text.

        Raises:
            UsageError: a setting is out of range; it is named as the pipeline names it.
        """
        bare = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        values = filled(cls, "a drift run", bare)
        values["kernel_gamma"] = str(values["kernel_gamma"])  # given as a number, it travels as a text
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        if self.window_max_rows < 0 or self.window_max_rows == 1:
            raise UsageError(f"window_max_rows: expected at least 2 rows, or 0 for all, got {self.window_max_rows}")
        check_seed(self.seed)
        with in_pipelines(IN_PIPELINES):
            check_kernel(self.kernel, self.kernel_gamma)
            check_combination(self.kernel_combination)
            check_method(self.test_method)
            check_features(self.kernel, self.test_method)
            check_permutations(self.test_permutations, self.test_level)
        check_settings(self)

    def check_for(self, n: int, m: int, dimension: int) -> None:
        """Raise UsageError for what does not go with samples of n and m rows of vectors of a dimension."""
        most = min(dimension, n + m - 1)
        if self.pca_components > most:
            raise UsageError(
                f"pca_components: expected at most {most} for {n + m} vectors of dimension {dimension}, or 0 for whole "
                f"vectors, got {self.pca_components}"
            )
        if self.test_method == "cross" and min(n, m) < CROSS_ROWS:
            raise UsageError(
                f"test_method: cross halves each window, which takes {CROSS_ROWS} rows of each, got {n} and {m}; take "
                "exact, or more rows"
            )
        if choose_method(self.test_method, n, m).method == "features" and self.kernel in WITHOUT_FEATURES:
            raise UsageError(
                f"kernel: {self.kernel} takes the test_method exact or cross, and so many rows ({n + m:,}) the method "
                "features unless told; name one of the two, or another kernel"
            )


IN_PIPELINES: Final[Mapping[str, str]] = {"out": "output_folder", **option_names(DriftSettings)}
"""What the pipeline calls settings that have shorter names in a library or on a command line."""
