"""The statistic against the threshold, run by run."""

from __future__ import annotations

import math

from markupsafe import Markup

from driftline.components.mmd.report import formats, glyphs
from driftline.components.mmd.report.data import HistoryPoint
from driftline.components.mmd.report.svg import (
    Figure,
    Frame,
    Scale,
    axis_title,
    domain,
    drawable,
    drawing,
    element,
    label,
    line,
    nice_ticks,
    px,
    y_axis,
)

MAX_RUNS = 1000
"""Runs drawn: the newest ones."""

WIDE = Frame(width=880, height=340, left=64, right=856, top=46, bottom=286, x_ticks=6, y_ticks=5)
NARROW = Frame(width=360, height=310, left=50, right=344, top=46, bottom=256, x_ticks=3, y_ticks=4)


def run_trend(history: tuple[HistoryPoint, ...], level: float) -> Figure | None:
    """Draw the statistic and the threshold of each run at equal distances, in the order of time.

    Args:
        history: ascending by time, this run last.
        level: accepted rate of false alarms, for the caption.

    Returns:
        The figure, or None where there are fewer than two runs or none has a finite statistic.
    """
    runs = history[-MAX_RUNS:]
    if len(runs) < 2 or drawable([run.statistic for run in runs]).size == 0:
        return None
    alarms = sum(run.drift for run in runs)
    expected = level * len(runs)
    caption = (
        f"{formats.plural(alarms, 'alarm')} in {formats.plural(len(runs), 'run')}; on an unchanged "
        f"stream, at today's level, about {formats.about(expected)} would be expected."
    )
    if len(history) > len(runs):
        caption += f" {formats.plural(len(history) - len(runs), 'older run')} not drawn."
    return Figure(
        wide=_draw("trend-wide", WIDE, runs, alarms),
        narrow=_draw("trend-narrow", NARROW, runs, alarms),
        caption=caption,
        legend=(
            ("statistic", "MMD², no alarm"),
            *((("alarm", "MMD², alarm"),) if alarms else ()),
            ("threshold", "threshold"),
        ),
    )


def _draw(name: str, frame: Frame, runs: tuple[HistoryPoint, ...], alarms: int) -> Markup:
    values = drawable([0.0, *(run.statistic for run in runs), *(run.threshold for run in runs)])
    low, high = domain(float(values.min()), float(values.max()), padding=0.08)
    y = Scale(low, high, frame.bottom, frame.top)
    inset = min(24.0, (frame.right - frame.left) / len(runs) / 2)
    x = Scale(0, len(runs) - 1, frame.left + inset, frame.right - inset)

    parts = y_axis(frame, y, nice_ticks(low, high, frame.y_ticks), "MMD²")
    parts.append(line(frame.left, y(0.0), frame.right, y(0.0), "axis"))
    parts += _time_axis(frame, x, runs)
    parts.append(_path([(x(k), _place(y, run.threshold)) for k, run in enumerate(runs)], "threshold-line"))
    parts.append(_path([(x(k), _place(y, run.statistic)) for k, run in enumerate(runs)], "series"))
    spacing = (x.stop - x.start) / (len(runs) - 1)
    for k, run in enumerate(runs):
        at = _place(y, run.statistic)
        last = k == len(runs) - 1
        if not math.isfinite(at):
            continue
        if run.drift:
            mark = glyphs.triangle(x(k), at, min(7.5, max(4.5, 0.45 * spacing)), "run-alarm")
        elif last or spacing >= 9:
            mark = glyphs.circle(x(k), at, min(4.5, max(3.0, 0.3 * spacing)), "run-quiet")
        else:
            continue
        if last:
            parts.append(glyphs.circle(x(k), at, 11, "run-this"))
        parts.append(element("g", element("title", _tooltip(run)), mark))
    last_at = _place(y, runs[-1].statistic)
    if math.isfinite(last_at):
        before = _place(y, runs[-2].statistic)
        # On the side that the line does not come from.
        below = before < last_at and last_at + 28 < frame.bottom
        beside = last_at + 28 if below else last_at - 18
        parts.append(label("this run", frame.width - 4, beside, "end", "value-label"))
    return drawing(
        name,
        frame,
        "MMD² and threshold over the runs",
        f"Line chart of {len(runs)} runs from {formats.long_time(runs[0].created)} to "
        f"{formats.long_time(runs[-1].created)}, {formats.plural(alarms, 'alarm')}; the last statistic is "
        f"{formats.number(runs[-1].statistic)} against a threshold of {formats.number(runs[-1].threshold)}.",
        parts,
    )


def _place(y: Scale, value: float) -> float:
    """Return the pixel of a value, NaN where it is not finite; values beyond the scale stand at its edge."""
    return y(min(max(value, y.low), y.high)) if math.isfinite(value) else math.nan


def _path(points: list[tuple[float, float]], kind: str) -> Markup:
    """Return a line through the points, interrupted where one is not finite."""
    text, pen = "", "M"
    for u, v in points:
        if not math.isfinite(v):
            pen = "M"
            continue
        text += f"{pen}{px(round(u, 1))} {px(round(v, 1))}"
        pen = "L"
    return element("path", d=text, class_=kind)


def _time_axis(frame: Frame, x: Scale, runs: tuple[HistoryPoint, ...]) -> list[Markup]:
    """Return ticks with dates under some of the runs, the first and the last among them."""
    ticks = min(frame.x_ticks, len(runs))
    chosen = sorted({round(k * (len(runs) - 1) / (ticks - 1)) for k in range(ticks)})
    parts: list[Markup] = [line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")]
    for k, text in zip(chosen, formats.short_times([runs[k].created for k in chosen]), strict=True):
        at = x(k)
        anchor = "middle"
        # The outermost labels turn inwards where half of them would not fit.
        if at + 3.6 * len(text) > frame.width:
            anchor = "end"
        elif at - 3.6 * len(text) < 0:
            anchor = "start"
        parts.append(line(at, frame.bottom, at, frame.bottom + 5, "axis"))
        parts.append(label(text, at, frame.bottom + 20, anchor, "tick"))
    parts.append(axis_title(frame, "run (UTC)"))
    return parts


def _tooltip(run: HistoryPoint) -> str:
    verdict = "alarm" if run.drift else "no alarm"
    return (
        f"{formats.long_time(run.created)}: {verdict}, MMD² {formats.number(run.statistic)}, threshold "
        f"{formats.number(run.threshold)}, p {formats.p_value(run.p_value)}"
    )
