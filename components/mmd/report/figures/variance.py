"""The share of the variance that each kept component explains, and their running sum."""

from __future__ import annotations

import itertools
import math

from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.figures.svg import (
    Figure,
    Frame,
    Scale,
    axis_title,
    baseline,
    circle,
    drawing,
    element,
    label,
    nice_ticks,
    px,
    y_axis,
)

WIDE = Frame(width=880, height=300, left=52, right=868, top=40, bottom=246, x_ticks=40, y_ticks=4)
NARROW = Frame(width=360, height=290, left=48, right=352, top=40, bottom=236, x_ticks=16, y_ticks=4)


def variance_bars(ratios: tuple[float, ...]) -> Figure | None:
    """Draw a bar for each component up to what fits, and the cumulative share above.

    Args:
        ratios: share of the pooled variance along each kept component, descending, each in [0, 1].

    Returns:
        The figure, or None where no share is finite.
    """
    shares = [min(max(ratio, 0.0), 1.0) if math.isfinite(ratio) else 0.0 for ratio in ratios]
    if not any(math.isfinite(ratio) for ratio in ratios):
        return None
    cumulative = [min(total, 1.0) for total in itertools.accumulate(shares)]
    holding = "which holds" if len(shares) == 1 else "which together hold"
    kept = formats.plural(len(shares), "component")
    return Figure(
        wide=_draw("variance-wide", WIDE, shares, cumulative),
        narrow=_draw("variance-narrow", NARROW, shares, cumulative),
        caption=f"The projection keeps {kept}, {holding} {formats.share(cumulative[-1])} of the pooled "
        "variance; the test does not see what lies outside.",
        legend=(("component", "one component"), ("cumulative", "running sum")),
    )


def _draw(name: str, frame: Frame, shares: list[float], cumulative: list[float]) -> Markup:
    shown = min(len(shares), frame.x_ticks)
    hidden = len(shares) - shown
    rest = cumulative[-1] - cumulative[shown - 1]
    # A remainder takes the room of three bars at the right, for its words.
    right = frame.right - (0.16 * (frame.right - frame.left) if hidden else 0)
    slot = min((right - frame.left) / shown, 64.0)
    y = Scale(0.0, 1.0, frame.bottom, frame.top)
    parts = y_axis(frame, y, nice_ticks(0, 1, frame.y_ticks), "share of the variance", lambda t: f"{100 * t:.0f}%")
    every = next(step for step in (1, 5, 10, 20) if slot * step >= 22)
    points: list[tuple[float, float]] = []
    for k in range(shown):
        middle = frame.left + (k + 0.5) * slot
        top = y(shares[k])
        parts.append(
            element(
                "rect",
                element("title", f"component {k + 1}: {formats.share(shares[k])}"),
                x=middle - 0.36 * slot,
                y=top,
                width=0.72 * slot,
                height=frame.bottom - top,
                class_="bar",
            )
        )
        if k == 0 or (k + 1) % every == 0:
            parts.append(label(str(k + 1), middle, frame.bottom + 20, kind="tick"))
        points.append((middle, y(cumulative[k])))
    parts.append(baseline(frame))
    parts.append(axis_title(frame, "principal component"))
    path = "M" + "L".join(f"{px(u)} {px(v)}" for u, v in points)
    parts.append(element("path", d=path, class_="cumulative-line"))
    parts += [circle(u, v, min(4.0, 0.22 * slot), "cumulative-mark") for u, v in points]
    parts += _end_labels(frame, points, cumulative[shown - 1], hidden, rest, right)
    return drawing(
        name,
        frame,
        "Explained variance by component",
        f"Bars of the first {shown} of {len(shares)} components, the first {formats.share(shares[0])}; the "
        f"running sum reaches {formats.share(cumulative[shown - 1])}"
        + (f", and {formats.share(cumulative[-1])} with the {hidden} components not drawn." if hidden else "."),
        parts,
    )


def _end_labels(
    frame: Frame, points: list[tuple[float, float]], reached: float, hidden: int, rest: float, right: float
) -> list[Markup]:
    """Return the label of the running sum's last value, and what the bars that are not drawn would add."""
    u, v = points[-1]
    text = formats.share(reached)
    if u < frame.width / 2:
        # Beside the last bar, whose half is at most 23 px wide.
        parts = [label(text, u + 30, max(v, frame.top) + 5, "start", "value-label")]
    else:
        above = v - frame.top >= 24
        parts = [label(text, u, v - 12 if above else v + 22, "end", "value-label")]
    if hidden:
        middle = (right + frame.right) / 2
        parts.append(label(f"{formats.count(hidden)} more", middle, frame.bottom - 32, kind="value-label"))
        parts.append(label(f"+ {formats.share(rest)}", middle, frame.bottom - 12, kind="tick"))
    return parts
