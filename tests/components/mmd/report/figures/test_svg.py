from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.mmd.report.figures import svg

FINITE = st.floats(min_value=-1e150, max_value=1e150)


@given(FINITE, FINITE, st.integers(2, 10))
def test_ticks_lie_inside_ascend_and_are_few(a, b, target):
    low, high = svg.domain(min(a, b), max(a, b), padding=0.04)
    ticks = svg.nice_ticks(low, high, target)
    slack = 1e-6 * (high - low)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert all(later > earlier for earlier, later in itertools.pairwise(ticks))
    assert 1 <= len(ticks) <= 2 * target + 2
    labels, _ = svg.tick_labels(ticks)
    assert len(set(labels)) == len(labels)
    assert "nan" not in "".join(labels)


@pytest.mark.parametrize(
    ("low", "high", "ticks", "labels", "unit"),
    [
        (0, 10, [0, 2.5, 5, 7.5, 10], ["0", "2.5", "5.0", "7.5", "10.0"], ""),
        (-0.0002, 0.0005, [-0.0002, 0, 0.0002, 0.0004], ["-0.0002", "0", "0.0002", "0.0004"], ""),
        (0, 4e-7, [0, 1e-7, 2e-7, 3e-7, 4e-7], ["0", "1", "2", "3", "4"], "10⁻⁷"),
        (0, 4e9, [0, 1e9, 2e9, 3e9, 4e9], ["0", "1", "2", "3", "4"], "10⁹"),
        (0, 40000, [0, 10000, 20000, 30000, 40000], ["0", "10,000", "20,000", "30,000", "40,000"], ""),
    ],
)
def test_ticks_are_round_and_their_labels_short(low, high, ticks, labels, unit):
    found = svg.nice_ticks(low, high, 4)
    assert found == pytest.approx(ticks)
    written, factor = svg.tick_labels(found)
    assert [text.replace("\N{MINUS SIGN}", "-") for text in written] == labels
    assert factor.removeprefix("\N{MULTIPLICATION SIGN}") == unit


@given(FINITE)
def test_a_domain_of_length_zero_is_opened(value):
    low, high = svg.domain(value, value)
    assert low < value < high or (value == 0 and low < 0 < high)


def test_drawable_drops_what_is_not_finite_and_limits_the_rest():
    assert svg.drawable([1.0, math.nan, math.inf, -1e300]).tolist() == [1.0, -1e150]
    assert svg.drawable(np.zeros((2, 2))).shape == (4,)


def test_scale_maps_its_ends_to_its_ends():
    scale = svg.Scale(-1, 3, 100, 20)
    assert [scale(-1), scale(1), scale(3)] == [100, 60, 20]


def test_elements_escape_children_and_values():
    made = svg.element("text", "<b>&", class_='a"b', stroke_width=1.0)
    assert made == '<text class="a&#34;b" stroke-width="1">&lt;b&gt;&amp;</text>'


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.256, "1.26"), (-0.001, "0"), (120.0, "120")])
def test_pixels_are_short(value, text):
    assert svg.px(value) == text
