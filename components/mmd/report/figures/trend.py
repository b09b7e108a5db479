"""Charts over the runs: the witness's AUC, and MMD² with its interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.data import HistoryPoint
from driftline.components.mmd.report.figures.svg import (
    Figure,
    Frame,
    Scale,
    axis_title,
    baseline,
    circle,
    domain,
    drawable,
    drawing,
    element,
    label,
    line,
    nice_ticks,
    px,
    triangle,
    x_tick,
    y_axis,
)

MAX_RUNS = 1000
"""Runs drawn: the newest ones."""

WIDE = Frame(width=880, height=340, left=64, right=856, top=46, bottom=286, x_ticks=6, y_ticks=5)
NARROW = Frame(width=360, height=310, left=50, right=344, top=46, bottom=256, x_ticks=3, y_ticks=4)
# γ is the median heuristic's, which varies with the texts. By this factor in γ, a fifth in length, MMD² of the same
# difference stays within some percent.
_SAME_GAMMA = 1.5
_CHANCE = 0.5


@dataclass(frozen=True, slots=True)
class _Series:
    """One chart's data of each run.

    Attributes:
        name: prefix of the drawings' ids.
        title: the drawing's title.
        axis: the vertical axis's title.
        values: a value for each run, NaN where it has none.
        intervals: an interval for each run, or None.
        joined: for each run, whether the line reaches it from the run before.
        base: value of a horizontal line, and its class.
        range: values that the axis shows in any case.
        write: formats a value.
    """

    name: str
    title: str
    axis: str
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    joined: tuple[bool, ...]
    base: tuple[float, str]
    range: tuple[float, ...]
    write: Callable[[float], str]


def auc_trend(history: tuple[HistoryPoint, ...], level: float) -> Figure | None:
    """Draw the witness's AUC of each run, at equal distances in the order of time.

    It is the one number that compares between runs of different kernels and methods.

    Args:
        history: ascending by time, this run last.
        level: accepted rate of false alarms, for the caption.

    Returns:
        The figure, or None where there are fewer than two runs or none has a finite value.
    """
    runs = history[-MAX_RUNS:]
    values = tuple(_share(run.auc) for run in runs)
    if len(runs) < 2 or drawable(values).size == 0:
        return None
    alarms = sum(run.drift for run in runs)
    caption = (
        f"{formats.plural(alarms, 'alarm')} in {formats.plural(len(runs), 'run')}; on an unchanged "
        f"stream, at today's level, about {formats.about(level * len(runs))} would be expected."
    )
    if len(history) > len(runs):
        caption += f" {formats.plural(len(history) - len(runs), 'older run')} not drawn."
    missing = sum(not math.isfinite(value) for value in values)
    if missing:
        caption += f" {formats.plural(missing, 'run')} recorded no AUC."
    series = _Series(
        name="auc",
        title="The witness's AUC over the runs",
        axis="witness AUC",
        values=values,
        intervals=(None,) * len(runs),
        joined=(True,) * len(runs),
        base=(_CHANCE, "chance-line"),
        range=(0.47, 0.6),
        write=lambda value: formats.share(value),
    )
    legend = (("run", "no alarm"), *((("alarm", "alarm"),) if alarms else ()), ("chance", "50%, chance"))
    return _figure(series, runs, caption, legend)


def mmd2_trend(history: tuple[HistoryPoint, ...]) -> Figure | None:
    """Draw MMD² of each run with its interval; a line joins runs whose leading kernels are alike.

    Args:
        history: ascending by time, this run last.

    Returns:
        The figure, or None where there are fewer than two runs or none has a finite value.
    """
    runs = history[-MAX_RUNS:]
    if len(runs) < 2 or drawable([run.mmd2 for run in runs]).size == 0:
        return None
    joined = (True, *(_alike(before, after) for before, after in itertools.pairwise(runs)))
    changes = joined.count(False)
    whiskers = any(_finite(run.mmd2_interval) for run in runs)
    caption = "MMD² under each run's leading kernel. "
    if changes:
        caption += (
            f"The line is interrupted {formats.plural(changes, 'time')}, where another kernel leads: "
            "values on its two sides do not compare."
        )
    else:
        caption += "The same kernel leads throughout, so that the values compare."
    series = _Series(
        name="mmd2",
        title="MMD² and its interval over the runs",
        axis="MMD²",
        values=tuple(run.mmd2 for run in runs),
        intervals=tuple(run.mmd2_interval if _finite(run.mmd2_interval) else None for run in runs),
        joined=joined,
        base=(0.0, "axis"),
        range=(0.0,),
        write=lambda value: formats.number(value),
    )
    legend = (
        ("run", "no alarm"),
        *((("alarm", "alarm"),) if any(run.drift for run in runs) else ()),
        *((("interval", "95% interval"),) if whiskers else ()),
    )
    return _figure(series, runs, caption, legend)


def _share(value: float) -> float:
    """Return a value limited to [0, 1], NaN where it is not finite."""
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else math.nan


def _alike(a: HistoryPoint, b: HistoryPoint) -> bool:
    """Return whether MMD² of two runs compares: the same family, and nearly the same length scale."""
    if a.kernel != b.kernel or not (a.gamma > 0 and b.gamma > 0):
        return False
    return abs(math.log(a.gamma) - math.log(b.gamma)) <= math.log(_SAME_GAMMA)


def _finite(interval: tuple[float, float] | None) -> bool:
    return interval is not None and all(math.isfinite(end) for end in interval)


def _figure(
    series: _Series, runs: tuple[HistoryPoint, ...], caption: str, legend: tuple[tuple[str, str], ...]
) -> Figure:
    return Figure(
        wide=_draw(f"{series.name}-wide", WIDE, series, runs),
        narrow=_draw(f"{series.name}-narrow", NARROW, series, runs),
        caption=caption,
        legend=legend,
    )


def _draw(name: str, frame: Frame, series: _Series, runs: tuple[HistoryPoint, ...]) -> Markup:
    ends = [end for interval in series.intervals if interval is not None for end in interval]
    seen = drawable([*series.range, *series.values, *ends])
    low, high = domain(float(seen.min()), float(seen.max()), padding=0.08)
    y = Scale(low, high, frame.bottom, frame.top)
    inset = min(24.0, (frame.right - frame.left) / len(runs) / 2)
    x = Scale(0, len(runs) - 1, frame.left + inset, frame.right - inset)

    ticks = nice_ticks(low, high, frame.y_ticks)
    parts = y_axis(frame, y, ticks, series.axis, formats.level_percent if series.base[0] else None)
    base, kind = series.base
    parts.append(line(frame.left, y(base), frame.right, y(base), kind))
    parts += _time_axis(frame, x, runs)
    spacing = (x.stop - x.start) / (len(runs) - 1)
    parts += _whiskers(x, y, series, spacing)
    heights = [_place(y, value) for value in series.values]
    parts.append(_path([(x(k), v) for k, v in enumerate(heights)], series.joined))
    parts += _marks(x, heights, series, runs, spacing)
    if math.isfinite(heights[-1]):
        before = heights[-2]
        # On the side that the line does not come from.
        below = before < heights[-1] and heights[-1] + 28 < frame.bottom
        beside = heights[-1] + 28 if below else heights[-1] - 18
        parts.append(label("this run", frame.width - 4, beside, "end", "value-label"))
    alarms = formats.plural(sum(run.drift for run in runs), "alarm")
    return drawing(
        name,
        frame,
        series.title,
        f"Line chart of {len(runs)} runs from {formats.long_time(runs[0].created)} to "
        f"{formats.long_time(runs[-1].created)}, {alarms}; the last value is {series.write(series.values[-1])}.",
        parts,
    )


def _whiskers(x: Scale, y: Scale, series: _Series, spacing: float) -> list[Markup]:
    """Return each run's interval as an upright bar, narrower where runs are many."""
    parts: list[Markup] = []
    for k, interval in enumerate(series.intervals):
        if interval is None:
            continue
        bottom, top = (_place(y, end) for end in interval)
        width = min(6.0, max(1.0, 0.5 * spacing))
        parts.append(element("line", x1=x(k), y1=bottom, x2=x(k), y2=top, class_="whisker", stroke_width=width))
    return parts


def _marks(
    x: Scale, heights: list[float], series: _Series, runs: tuple[HistoryPoint, ...], spacing: float
) -> list[Markup]:
    """Return a mark for each run that has a value and room for it; alarms and the last run always have."""
    parts: list[Markup] = []
    for k, (at, run) in enumerate(zip(heights, runs, strict=True)):
        last = k == len(runs) - 1
        if not math.isfinite(at):
            continue
        if run.drift:
            mark = triangle(x(k), at, min(7.5, max(4.5, 0.45 * spacing)), "run-alarm")
        elif last or spacing >= 9 or _alone(series, heights, k):
            mark = circle(x(k), at, min(4.5, max(1.5, 0.3 * spacing)), "run-quiet")
        else:
            continue
        if last:
            parts.append(circle(x(k), at, 11, "run-this"))
        parts.append(element("g", element("title", _tooltip(run)), mark))
    return parts


def _alone(series: _Series, heights: list[float], k: int) -> bool:
    """Return whether no line reaches a run, so that it would not be seen without a mark."""
    before = k > 0 and series.joined[k] and math.isfinite(heights[k - 1])
    after = k + 1 < len(heights) and series.joined[k + 1] and math.isfinite(heights[k + 1])
    return not (before or after)


def _place(y: Scale, value: float) -> float:
    """Return the pixel of a value, NaN where it is not finite; values beyond the scale stand at its edge."""
    return y(min(max(value, y.low), y.high)) if math.isfinite(value) else math.nan


def _path(points: list[tuple[float, float]], joined: tuple[bool, ...]) -> Markup:
    """Return a line through the points, interrupted where one is not finite or not joined to the one before."""
    text, pen = "", "M"
    for (u, v), reached in zip(points, joined, strict=True):
        if not math.isfinite(v):
            pen = "M"
            continue
        text += f"{pen if reached else 'M'}{px(round(u, 1))} {px(round(v, 1))}"
        pen = "L"
    return element("path", d=text, class_="series")


def _time_axis(frame: Frame, x: Scale, runs: tuple[HistoryPoint, ...]) -> list[Markup]:
    """Return ticks with dates under some of the runs, the first and the last among them."""
    ticks = min(frame.x_ticks, len(runs))
    chosen = sorted({round(k * (len(runs) - 1) / (ticks - 1)) for k in range(ticks)})
    parts: list[Markup] = [baseline(frame)]
    for k, text in zip(chosen, formats.short_times([runs[k].created for k in chosen]), strict=True):
        at = x(k)
        anchor = "middle"
        # The outermost labels turn inwards where half of them would not fit.
        if at + 3.6 * len(text) > frame.width:
            anchor = "end"
        elif at - 3.6 * len(text) < 0:
            anchor = "start"
        parts += x_tick(frame, at, text, anchor)
    parts.append(axis_title(frame, "run (UTC)"))
    return parts


def _tooltip(run: HistoryPoint) -> str:
    verdict = "alarm" if run.drift else "no alarm"
    interval = "" if run.mmd2_interval is None else f" ({formats.between(run.mmd2_interval)})"
    return (
        f"{formats.long_time(run.created)}: {verdict}, AUC {formats.share(run.auc)}, "
        f"MMD² {formats.number(run.mmd2)}{interval}, p {formats.p_value(run.p_value)}"
    )
