"""The histogram of the permutation distribution, with the observed statistic and the threshold."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.figures.svg import (
    Figure,
    Frame,
    Scale,
    diamond,
    domain,
    drawable,
    drawing,
    element,
    is_point,
    label,
    line,
    nice_ticks,
    px,
    x_axis,
    x_tick,
    y_axis,
)

WIDE = Frame(width=880, height=360, left=52, right=868, top=74, bottom=306, x_ticks=8, y_ticks=4)
NARROW = Frame(width=360, height=320, left=40, right=352, top=74, bottom=264, x_ticks=4, y_ticks=4)
_MAX_BINS = 48
# How far, in lengths of the permuted range, the observed value may lie outside before the axis is broken:
# unbroken, the bars keep more than half of the width.
_REACH = 0.75


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Return the edges of equal bins over ``values``, (bins + 1,) float64, by Freedman and Diaconis' rule.

    Args:
        values: (n,) float64, finite, n ≥ 1.
    """
    low, high = float(values.min()), float(values.max())
    if is_point(low, high):
        # One bar in the middle of an axis opened about the value.
        low, high = domain(low, high)
        return np.linspace(low, high, 10)
    lower, upper = np.quantile(values, [0.25, 0.75])
    width = 2.0 * float(upper - lower) / values.size ** (1 / 3)
    wanted = (high - low) / width if width > 0 else math.inf
    bins = int(min(max(wanted, 6.0), float(_MAX_BINS)))
    return np.linspace(low, high, bins + 1)


def permutation_histogram(
    permuted: np.ndarray, observed: float, threshold: float, quantity: str = "MMD²"
) -> Figure | None:
    """Draw the permuted statistics, where the observed one stands among them, and where an alarm begins.

    Where the observed value lies far outside the permuted range, the axis is broken and the value stands in a
    strip of its own, so that the bars keep their width.

    Args:
        permuted: (B,) float64, the statistic under each permutation.
        observed: the statistic.
        threshold: the statistic above which the test rejects; drawn where it is finite.
        quantity: name of the statistic, for the axis and the title.

    Returns:
        The figure, or None where no permuted value is finite.
    """
    values = drawable(permuted)
    if values.size == 0:
        return None
    edges = bin_edges(values)
    counts, _ = np.histogram(values, edges)
    low, high = _main_range(edges, threshold)
    drawn = low <= threshold <= high
    caption = (
        f"Bars: the {quantity} of {formats.plural(values.size, 'random shuffle')} of the same texts, "
        "which is what chance alone makes of them. "
        + (
            "The upright line marks the observed value."
            if _side(edges, observed, threshold) == 0
            else "The observed value lies far outside, so the axis is broken before it."
        )
    )
    return Figure(
        wide=_draw("histogram-wide", WIDE, edges, counts, observed, threshold, quantity),
        narrow=_draw("histogram-narrow", NARROW, edges, counts, observed, threshold, quantity),
        caption=caption,
        legend=(
            ("permuted", "shuffled at random"),
            *((("observed", "observed"),) if math.isfinite(observed) else ()),
            *((("threshold", "threshold; alarms lie in the shaded region"),) if drawn else ()),
        ),
    )


def _side(edges: np.ndarray, observed: float, threshold: float) -> int:
    """Return 1 or -1 where the observed value stands behind a break to the right or to the left, else 0."""
    low, high = _main_range(edges, threshold)
    reach = _REACH * (high - low)
    if not math.isfinite(observed):
        return 0
    return 1 if observed > high + reach else -1 if observed < low - reach else 0


def _main_range(edges: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the range of the bars, stretched to the threshold unless that is absurdly far."""
    low, high = float(edges[0]), float(edges[-1])
    if math.isfinite(threshold) and low - (high - low) <= threshold <= high + (high - low):
        return min(low, threshold), max(high, threshold)
    return low, high


def _draw(
    name: str,
    frame: Frame,
    edges: np.ndarray,
    counts: np.ndarray,
    observed: float,
    threshold: float,
    quantity: str,
) -> Markup:
    low, high = _main_range(edges, threshold)
    side = _side(edges, observed, threshold)
    strip = 0.2 * (frame.right - frame.left)
    if side == 0 and math.isfinite(observed):
        low, high = min(low, observed), max(high, observed)
    low, high = domain(low, high, padding=0.04)
    start = frame.left + (strip if side < 0 else 0)
    stop = frame.right - (strip if side > 0 else 0)
    x = Scale(low, high, start, stop)
    tallest = int(counts.max())
    y = Scale(0, max(1.0, 1.05 * tallest), frame.bottom, frame.top)

    whole = [tick for tick in nice_ticks(0, y.high, frame.y_ticks) if tick == round(tick)]
    parts = y_axis(frame, y, whole, "shuffles")
    shown_threshold = math.isfinite(threshold) and low <= threshold <= high
    if shown_threshold:
        # A statistic in this region raises an alarm.
        left = x(threshold)
        parts.append(
            element(
                "rect",
                x=left,
                y=frame.top,
                width=frame.right - left,
                height=frame.bottom - frame.top,
                class_="alarm-region",
            )
        )
    parts += _bars(x, y, edges, counts)
    parts.append(line(start, frame.bottom, stop, frame.bottom, "axis"))
    at = x(observed) if side == 0 and math.isfinite(observed) else math.nan
    if side:
        at = frame.right - strip / 2 if side > 0 else frame.left + strip / 2
        inner = stop if side > 0 else start
        outer = frame.right if side > 0 else frame.left
        parts += _break(frame, inner, outer)
        parts += x_tick(frame, at, formats.number(observed))
    ticks = nice_ticks(low, high, frame.x_ticks if side == 0 else frame.x_ticks - 1)
    if side:
        # About the room that two labels take beside one another.
        ticks = [tick for tick in ticks if abs(x(tick) - at) > 60]
    parts += x_axis(frame, x, ticks, quantity)
    if shown_threshold:
        parts += _marker(frame, x(threshold), 54, f"threshold {formats.number(threshold)}", "threshold", at)
    if math.isfinite(at):
        beside = x(threshold) if shown_threshold else math.nan
        parts += _marker(frame, at, 30, f"observed {formats.number(observed)}", "observed", beside)
        parts.append(diamond(at, frame.bottom, 7, "observed-mark"))
    return drawing(
        name,
        frame,
        f"Permutation distribution of the {quantity}",
        f"Histogram of {int(counts.sum())} permuted statistics from {formats.number(float(edges[0]))} to "
        f"{formats.number(float(edges[-1]))}, tallest bar {tallest}. Observed {formats.number(observed)}"
        + (", drawn behind a break of the axis" if side else "")
        + f". Threshold {formats.number(threshold)}.",
        parts,
    )


def _bars(x: Scale, y: Scale, edges: np.ndarray, counts: np.ndarray) -> list[Markup]:
    """Return one bar for each bin that is not empty; hovering over a bar names its range and its count."""
    bars: list[Markup] = []
    for bin_low, bin_high, height in zip(edges[:-1], edges[1:], counts, strict=True):
        if height == 0:
            continue
        left, right, top = x(float(bin_low)), x(float(bin_high)), y(float(height))
        # A hairline of background between bars, unless they are hairlines themselves.
        gap = min(1.0, 0.2 * (right - left))
        bars.append(
            element(
                "rect",
                element(
                    "title",
                    f"{formats.number(float(bin_low))} to {formats.number(float(bin_high))}: "
                    f"{formats.plural(int(height), 'shuffle')}",
                ),
                x=left + gap / 2,
                y=top,
                width=max(right - left - gap, 0.5),
                height=y.start - top,
                class_="bar",
            )
        )
    return bars


def _break(frame: Frame, inner: float, outer: float) -> list[Markup]:
    """Return the axis beyond the break, and the two strokes that mark the break."""
    towards = 1 if outer > inner else -1
    begin = inner + towards * 10
    strokes = f"M{px(inner - 4)} {px(frame.bottom + 7)}l8 -14M{px(begin - 4)} {px(frame.bottom + 7)}l8 -14"
    return [
        line(begin, frame.bottom, outer, frame.bottom, "axis"),
        element("path", d=strokes, class_="axis-break"),
    ]


def _marker(frame: Frame, x: float, row: float, text: str, kind: str, other: float) -> list[Markup]:
    """Return a vertical line with its label at height ``row``, on the side away from the other marker."""
    # About the width of a letter at the label's size: text cannot be measured without a browser.
    width = 8.3 * len(text)
    rightwards = x > other or (math.isnan(other) and x < (frame.left + frame.right) / 2)
    begin = x - 6 if rightwards else x + 6 - width
    begin = min(max(begin, 2), frame.width - 2 - width)
    anchor, at = ("start", begin) if rightwards else ("end", begin + width)
    return [
        line(x, row + 7, x, frame.bottom, f"{kind}-line"),
        label(text, at, row, anchor, f"{kind}-label"),
    ]
