"""The figures that Kubeflow's UI shows of a run: sorted by name, ten at most, six decimals."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from driftline.components.drift_settings import DriftSettings
from driftline.components.mmd.effect import Interval
from driftline.components.mmd.outcome import Outcome
from driftline.components.mmd.result import KernelFinding
from driftline.components.mmd.run_metrics import run_metrics, skipped_run_metrics
from driftline.components.sampling.component import sample
from driftline.components.sampling.identity import Run, SampleIdentity
from driftline.components.sampling.pooled import PooledSample
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import LOCAL

SHOWN = 10
"""Rows of a page of the UI's table."""
DECIMALS = 6
"""Decimals of a number that the metadata store keeps."""

NOON = "2026-11-30T12:00:00+00:00"
RUN = Run("0" * 32, "job", NOON, NOON, "/out", "/out", "/out/history")
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NUMBER = rf"{MINUS}?[\d,]+(?:\.\d+)?(?:{TIMES}10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"


def read(text: str) -> float:
    """Return a number as it was written for people."""
    assert re.fullmatch(NUMBER, text), text
    mantissa, _, power = text.replace(MINUS, "-").replace(",", "").partition(f"{TIMES}10")
    return float(f"{mantissa}e{power.translate(SUPERSCRIPTS) or 0}")


def read_p(text: str) -> float:
    """Return a p-value, or its bound, as it was written for people."""
    bare = text.lstrip("<≤> ")
    return read(f"1{TIMES}{bare}" if bare.startswith("10⁻") else bare)


@dataclasses.dataclass(frozen=True)
class Found:
    """A test's outcome, and the rows that it is of."""

    outcome: Outcome
    pooled: PooledSample

    @property
    def figures(self) -> dict[str, float | str]:
        return run_metrics(self.outcome, self.pooled)


def found(n: int = 1000, m: int = 900, permutations: int = 500, **changes: Any) -> Found:
    """Return what a run would hand to its figures: drift by one kernel, but for changes of the outcome's fields."""
    x, y = (SampleIdentity(f"/{name}", "sha256:0", "m", "r", 4, 2 * rows, rows) for name, rows in (("x", n), ("y", m)))
    whole: dict[str, Any] = {
        "method": "exact",
        "why": "asked for",
        "combination": "",
        "statistic": 0.0032,
        "p_value": 1 / 501,
        "threshold": 1e-4,
        "level": 0.05,
        "rejected": True,
        "permuted": (0.0,) * permutations,
        "kernels": (KernelFinding("rbf", 0.5, 1.0, 0.0032, 1 / 501, 1.0),),
        "leading_kernel": 0,
        "mmd2": 0.00321,
        "interval": Interval(0.00281, 0.00367, 2e-4),
        "auc": 0.613,
        "feature_error_bound": 0.0,
    }
    return Found(Outcome(**whole | changes), PooledSample(RUN, DriftSettings(), x, y, "text", ("text",), 0.0))


def between(low: float, high: float) -> Interval:
    return Interval(low, high, 0.0)


estimates = st.one_of(
    st.floats(-2.0, 2.0),
    st.sampled_from(
        [0.0, -0.0, 1e-9, -1e-9, 3.2e-7, -5.2e-5, 9.9999e-5, 0.00099996, 1e-300, 5e-324, 123456.7, 999999.6]
    ),
    st.tuples(st.floats(1.0, 10.0), st.integers(-320, 8)).map(lambda pair: pair[0] * 10.0 ** pair[1]),
)
intervals = st.one_of(
    st.none(),
    st.tuples(estimates, estimates).map(lambda ends: between(*sorted(map(abs, ends)))),
)
permuted = st.integers(1, 2000).flatmap(
    lambda permutations: st.integers(0, permutations).map(
        lambda above: (permutations, (1 + above) / (1 + permutations))
    )
)
limits = st.one_of(st.floats(0.0, 1.0), st.sampled_from([1e-12, 1e-300, 1e-9, 9.99e-10, 0.0099999, 0.9999]))
judged = st.one_of(
    st.tuples(st.sampled_from(["exact", "features"]), permuted),
    st.tuples(st.just("cross"), limits.map(lambda p: (0, p))),
)
sides = st.integers(2, 10**9)
any_found = st.builds(
    lambda rejected, mmd2, interval, judged, auc, n, m: found(
        n,
        m,
        rejected=rejected,
        mmd2=mmd2,
        interval=interval,
        method=judged[0],
        permutations=judged[1][0],
        p_value=judged[1][1],
        auc=auc,
    ),
    st.booleans(), estimates, intervals, judged, st.floats(0.0, 1.0), sides, sides,
)  # fmt: skip


@given(any_found)
def test_a_page_holds_all_of_them_and_the_verdict_is_the_first(case: Found):
    shown = case.figures
    assert sorted(shown) == ["Verdict", "auc", "mmd2", "p_value", "rows_current", "rows_reference"]
    assert len(shown) <= SHOWN
    assert shown["Verdict"] == ("drift found" if case.outcome.rejected else "no drift found")
    for value in shown.values():
        assert type(value) in (float, str)
        assert value != ""
        assert "\n" not in str(value)


@given(any_found)
@example(found(mmd2=1e-9, interval=between(5e-10, 2e-9), method="cross", permutations=0, p_value=1e-12))
@example(found(mmd2=-5.2e-5, interval=between(0.0, 4.2e-4)))
def test_the_store_s_six_decimals_take_nothing_away(case: Found):
    kept = {name: round(value, DECIMALS) for name, value in case.figures.items() if isinstance(value, float)}
    assert sorted(kept) == ["auc", "rows_current", "rows_reference"]
    assert (kept["rows_reference"], kept["rows_current"]) == (case.pooled.n, case.pooled.current.sampled)
    # A share of pairs: to a millionth it is told from one half, and from all.
    assert abs(kept["auc"] - case.outcome.auc) <= 0.5 * 10.0**-DECIMALS * (1 + 1e-9)


@given(any_found)
@example(found(mmd2=-5.2e-5, interval=between(0.0, 4.2e-4)))
@example(found(mmd2=1e-9, interval=between(1e-9, 1e-9)))
@example(found(mmd2=0.00099996, interval=between(0.00099994, 0.0010004)))
@example(found(mmd2=9.99951e-5, interval=between(9.9994e-5, 1.00001e-4)))
def test_the_estimate_is_within_its_interval_as_shown(case: Found):
    text, estimate, interval = case.figures["mmd2"], case.outcome.mmd2, case.outcome.interval
    assert isinstance(text, str)
    if interval is None:
        assert read(text) == pytest.approx(estimate, rel=5.1e-3, abs=1e-320)
        return
    parts = re.fullmatch(rf"({NUMBER}) \(95%: ({NUMBER}) to ({NUMBER})\)", text)
    assert parts is not None, text
    shown, low, high = map(read, parts.groups())
    assert low <= shown <= high
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=5.1e-3, abs=1e-320)
    if interval.low <= estimate <= interval.high:
        assert shown == pytest.approx(estimate, rel=5.1e-3, abs=1e-320)


@given(any_found)
@example(found(method="cross", permutations=0, p_value=1e-12))
@example(found(method="cross", permutations=0, p_value=0.0))
def test_a_small_p_value_does_not_become_nought(case: Found):
    text, p = case.figures["p_value"], case.outcome.p_value
    assert isinstance(text, str)
    assert re.search("[1-9]", text)
    assert read_p(text) > 0
    if text.startswith("≤"):
        assert p == pytest.approx(1 / (1 + case.outcome.permutations))
    if text[0].isdigit():
        assert read_p(text) == pytest.approx(p, rel=0.06)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"method": "cross", "permutations": 0, "p_value": 1e-12}, {"p_value": "< 10⁻⁹"}),
        ({"permutations": 500, "p_value": 1 / 501}, {"p_value": "≤ 0.0020"}),
        ({"permutations": 500, "p_value": 0.343}, {"p_value": "0.343"}),
        (
            {"mmd2": 1e-9, "interval": between(5e-10, 2e-9)},
            {"mmd2": f"1.00{TIMES}10⁻⁹ (95%: 5.00{TIMES}10⁻¹⁰ to 2.00{TIMES}10⁻⁹)"},
        ),
        ({"mmd2": -5.2e-5, "interval": between(0.0, 4.2e-4)}, {"mmd2": "0 (95%: 0 to 0.000420)"}),
        ({"mmd2": 0.00321, "interval": between(0.00281, 0.00367)}, {"mmd2": "0.00321 (95%: 0.00281 to 0.00367)"}),
        ({"mmd2": -5.2e-5, "interval": None}, {"mmd2": f"{MINUS}5.20{TIMES}10⁻⁵"}),
        ({"rejected": False, "auc": 0.5032}, {"Verdict": "no drift found", "auc": 0.5032}),
        ({"n": 3, "m": 70_000}, {"rows_reference": 3.0, "rows_current": 70_000.0}),
    ],
)
def test_as_people_read_them(changes: dict[str, Any], shown: dict[str, Any]):
    assert found(**changes).figures.items() >= shown.items()


def test_a_number_that_there_is_not_is_left_out():
    assert "auc" not in found(auc=math.nan).figures


def test_of_a_skipped_run_there_is_but_the_verdict():
    assert skipped_run_metrics() == {"Verdict": "skipped"}
    assert set(skipped_run_metrics()) < set(found().figures)


def test_no_figure_repeats_a_parameter():
    parameters = {field.name for field in dataclasses.fields(DriftSettings)}
    for function in (sample.python_func, drift_pipeline(LOCAL).pipeline_func):  # pyright: ignore[reportFunctionMemberAccess]
        parameters |= set(inspect.signature(function).parameters)
    shown = found().figures
    assert not parameters & set(shown)
    assert str(found().outcome.level) not in map(str, shown.values())
