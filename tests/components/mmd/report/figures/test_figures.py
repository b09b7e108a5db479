from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.mmd.report.figures import histogram, scatter, variance
from tests.components.mmd.report.drawn import bar_counts, number, of, parse, read_x


@pytest.mark.parametrize("permutations", [19, 500, 10_000])
@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_bars_hold_every_permutation(permutations, size):
    values = np.random.default_rng(5).normal(size=permutations)
    figure = histogram.permutation_histogram(values, 0.3, 1.6)
    frame = histogram.WIDE if size == "wide" else histogram.NARROW
    root = parse(getattr(figure, size))
    # Heights carry two decimals of a pixel.
    assert sum(bar_counts(root, frame)) == pytest.approx(permutations, rel=5e-3)
    titles = [bar.find("title").text for bar in of(root, "bar")]
    assert sum(int(t.rsplit(": ", 1)[1].split()[0].replace(",", "")) for t in titles) == permutations


@pytest.mark.parametrize("observed", [-1.7, 0.0, 0.42, 4.0])
def test_observed_and_threshold_stand_where_the_axis_says(observed):
    values = np.random.default_rng(6).normal(size=2000)
    root = parse(histogram.permutation_histogram(values, observed, 1.6).wide)
    baseline = histogram.WIDE.bottom
    (line,), (limit,) = of(root, "observed-line"), of(root, "threshold-line")
    assert line.get("x1") == line.get("x2")
    assert read_x(root, baseline, number(line, "x1")) == pytest.approx(observed, abs=0.02)
    assert read_x(root, baseline, number(limit, "x1")) == pytest.approx(1.6, abs=0.02)
    (region,) = of(root, "alarm-region")
    assert number(region, "x") == pytest.approx(number(limit, "x1"))
    assert not of(root, "axis-break")


@pytest.mark.parametrize(("observed", "side"), [(1e9, "right"), (0.1, "right"), (-1e9, "left"), (-0.1, "left")])
@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_a_far_value_stands_behind_a_break_and_leaves_the_bars_their_width(observed, side, size):
    values = 1e-4 * np.random.default_rng(7).normal(size=500)
    figure = histogram.permutation_histogram(values, observed, 1.6e-4)
    frame = histogram.WIDE if size == "wide" else histogram.NARROW
    root = parse(getattr(figure, size))
    assert len(of(root, "axis-break")) == 1
    assert "axis is broken" in figure.caption
    bars = of(root, "bar")
    first, last = number(bars[0], "x"), number(bars[-1], "x") + number(bars[-1], "width")
    at = number(of(root, "observed-line")[0], "x1")
    assert frame.left < at < frame.right
    assert at > last if side == "right" else at < first
    assert last - first > 0.6 * (frame.right - frame.left)


def test_equal_permuted_values_make_one_bar():
    root = parse(histogram.permutation_histogram(np.full(19, 1e-9), 1e-9, math.inf).wide)
    assert len(of(root, "bar")) == 1
    assert not of(root, "threshold-line")
    assert not of(root, "alarm-region")


def test_no_finite_permutation_makes_no_histogram():
    assert histogram.permutation_histogram(np.full(19, np.nan), 0.0, 0.0) is None


@pytest.mark.parametrize("quantity", ["MMD²", "combined statistic"])
def test_the_axis_says_what_the_statistic_is(quantity):
    figure = histogram.permutation_histogram(np.linspace(-1, 1, 99), 0.5, 0.9, quantity)
    for markup in (figure.wide, figure.narrow):
        root = parse(markup)
        assert quantity in [e.text for e in of(root, "axis-title")]
        assert root.find("title").text == f"Permutation distribution of the {quantity}"
    assert figure.caption.startswith(f"Bars: the {quantity} of 99 random shuffles")
    assert ("MMD" in figure.wide + figure.caption) == (quantity == "MMD²")


EXTREME = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(EXTREME, min_size=1, max_size=40), EXTREME, EXTREME)
def test_no_value_breaks_the_histogram(permuted, observed, threshold):
    figure = histogram.permutation_histogram(np.array(permuted), observed, threshold)
    assert (figure is None) == (not np.isfinite(permuted).any())
    if figure is not None:
        for frame, markup in ((histogram.WIDE, figure.wide), (histogram.NARROW, figure.narrow)):
            root = parse(markup)
            for e in [*of(root, "observed-line"), *of(root, "threshold-line"), *of(root, "axis", "line")]:
                assert 0 <= number(e, "x1") <= frame.width


def marks(root, kind: str) -> list[tuple[float, float]]:
    paths = "".join(e.get("d") for e in of(root, kind))
    return [(float(x), float(y)) for x, y in re.findall(r"M(-?[\d.]+) (-?[\d.]+)", paths)]


def test_every_point_is_drawn_where_the_axes_say():
    rng = np.random.default_rng(8)
    reference, current = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
    root = parse(scatter.sample_scatter(reference, current, (0.6, 0.2)).wide)
    dots = marks(root, "points-reference")
    assert (len(dots), len(marks(root, "points-current"))) == (40, 30)
    drawn = sorted(read_x(root, scatter.WIDE.bottom, x) for x, _ in dots)
    assert drawn == pytest.approx(sorted(reference[:, 0]), abs=0.02)
    titles = " ".join(e.text for e in of(root, "axis-title"))
    assert "component 1, 60.0% of the variance" in titles
    assert "component 2, 20.0% of the variance" in titles


def test_one_unit_is_equally_long_in_both_directions():
    rng = np.random.default_rng(9)
    points = rng.normal(size=(300, 2)) * [3, 1]
    root = parse(scatter.sample_scatter(points[:150], points[150:], (0.9, 0.1)).wide)
    xs = [x for x, _ in marks(root, "points-reference")]
    ys = [y for _, y in marks(root, "points-reference")]
    assert np.std(xs) / np.std(ys) == pytest.approx(np.std(points[:150, 0]) / np.std(points[:150, 1]), rel=0.02)


@pytest.mark.parametrize(("rows", "drawn"), [(1, 1), (5000, scatter.MAX_POINTS)])
def test_the_number_of_points_is_capped(rows, drawn):
    points = np.random.default_rng(10).normal(size=(rows, 2))
    figure = scatter.sample_scatter(points, points, (0.5, 0.3))
    root = parse(figure.wide)
    assert len(marks(root, "points-reference")) == drawn
    assert len(of(root, "points-current")) > 0
    assert ("At most 2,000 points" in figure.caption) == (rows > scatter.MAX_POINTS)


def test_stray_points_stand_at_the_edge_and_are_counted():
    points = np.random.default_rng(11).normal(size=(1000, 2))
    points[0] = [1e12, -1e12]
    figure = scatter.sample_scatter(points, points[1:], (0.5, 0.3))
    assert "1 stray point beyond the frame is drawn at its edge" in figure.caption
    xs = [x for x, _ in marks(parse(figure.wide), "points-reference")]
    assert np.std(xs) > 30
    assert max(xs) <= scatter.WIDE.right


def test_one_dimension_makes_two_strips_that_do_not_overlap():
    points = np.c_[np.random.default_rng(12).normal(size=200), np.zeros(200)]
    figure = scatter.sample_scatter(points, points + np.array([1.0, 0.0]), (1.0,))
    root = parse(figure.narrow)
    upper, lower = marks(root, "points-reference"), marks(root, "points-current")
    assert max(y for _, y in upper) < min(y for _, y in lower)
    assert "one direction only" in figure.caption


def test_points_that_are_not_finite_are_left_out():
    bad = np.array([[np.nan, 1.0], [np.inf, 0.0]])
    assert scatter.sample_scatter(bad, bad[:0], (0.5,)) is None
    root = parse(scatter.sample_scatter(np.r_[bad, [[1.0, 2.0]]], bad, (0.5,)).wide)
    assert len(marks(root, "points-reference")) == 1


@pytest.mark.parametrize(("kept", "bars"), [(1, 1), (2, 2), (40, 40), (1024, 40)])
def test_variance_has_a_bar_for_each_component_that_fits(kept, bars):
    ratios = tuple(0.9 / kept for _ in range(kept))
    figure = variance.variance_bars(ratios)
    root = parse(figure.wide)
    frame = variance.WIDE
    heights = [number(bar, "height") / (frame.bottom - frame.top) for bar in of(root, "bar")]
    assert len(heights) == bars
    assert heights == pytest.approx([0.9 / kept] * bars, abs=1e-4)
    summed = [number(e, "cy") for e in of(root, "cumulative-mark")]
    assert (frame.bottom - summed[-1]) / (frame.bottom - frame.top) == pytest.approx(0.9 * bars / kept, abs=1e-3)
    more = [e.text for e in root.iter("text") if (e.text or "").endswith(" more")]
    assert more == ([f"{kept - bars} more"] if kept > bars else [])
    assert "90.0% of the pooled" in figure.caption


def test_variance_without_a_finite_share_is_not_drawn():
    assert variance.variance_bars(()) is None
    assert variance.variance_bars((math.nan,)) is None
    assert "2.0" not in variance.variance_bars((math.nan, 0.5)).caption
