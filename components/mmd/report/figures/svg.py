"""Scales, axes, marks and elements of the report's figures: inline SVG whose colours are the style sheet's.

Each figure is drawn twice, wide and narrow, and the style sheet shows the one that fits: a single drawing
scaled down to a phone would have letters too small to read. No element refers to another one by its id in a
URL, since such references resolve against the embedding page in a ``srcdoc`` frame.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from driftline.components.mmd.report import formats

# Far inside float64, so that differences and squares of what is drawn stay finite.
_HUGE = 1e150
# Below it, a length counts as zero: dividing by it might overflow.
_TINY = 1e-150


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in two sizes.

    Attributes:
        wide: the ``<svg>`` for a page of 720 px or more.
        narrow: the ``<svg>`` for a phone.
        caption: a description in a sentence or two.
        legend: the marks in it, each a name of :data:`KEYS` and words.
    """

    wide: Markup
    narrow: Markup
    caption: str
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """The plot area inside a drawing, in px from its upper left corner.

    Attributes:
        width: width of the drawing.
        height: height of the drawing.
        left: left edge of the plot area.
        right: right edge.
        top: upper edge.
        bottom: lower edge.
        x_ticks: how many ticks the horizontal axis should have, about.
        y_ticks: how many the vertical one should have, about.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: int
    y_ticks: int


@dataclass(frozen=True, slots=True)
class Scale:
    """The affine map from data [low, high] to pixels [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def drawable(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the finite values among ``values``, (n,) float64, limited to ±1e150."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return np.clip(array[np.isfinite(array)], -_HUGE, _HUGE)


def is_point(low: float, high: float) -> bool:
    """Return whether [low, high] is too short to be drawn as an interval."""
    return high - low <= max(1e-9 * max(abs(low), abs(high)), _TINY)


def domain(low: float, high: float, padding: float = 0.0) -> tuple[float, float]:
    """Return [low, high] widened by a share of its length; one of length zero is opened about its value."""
    if is_point(low, high):
        largest = max(abs(low), abs(high))
        half = 0.5 * largest if largest > _TINY else 0.5
        return low - half, high + half
    margin = padding * (high - low)
    return low - margin, high + margin


def nice_step(span: float, target: int) -> float:
    """Return the step, 1, 2, 2.5 or 5 times a power of ten, that cuts ``span`` into some ``target`` parts."""
    raw = span / max(1, target)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in (1.0, 2.0, 2.5, 5.0) if m * power >= raw * 0.999), 10.0 * power)


def nice_ticks(low: float, high: float, target: int) -> list[float]:
    """Return round numbers within [low, high], ascending and equally spaced. Expects low < high."""
    step = nice_step(high - low, target)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> tuple[list[str], str]:
    """Return short labels for ticks, and the power of ten they are to be multiplied by, ``""`` for none."""
    largest = max((abs(tick) for tick in ticks), default=0.0)
    if largest == 0:
        return ["0" for _ in ticks], ""
    exponent = math.floor(math.log10(largest) + 1e-9)
    plain = -4 <= exponent < 5
    # Two factors: 10 ** -exponent itself may lie outside float64.
    scaled = [tick if plain else tick / 10.0 ** (exponent / 2) / 10.0 ** (exponent / 2) for tick in ticks]
    gaps = [b - a for a, b in itertools.pairwise(scaled)] or [scaled[0]]
    smallest = min(abs(gap) for gap in gaps)
    decimals = next((d for d in range(12) if abs(round(smallest, d) - smallest) <= 1e-6 * smallest), 12)
    labels = [
        formats.signed(f"{value:,.{decimals}f}") if tick else "0" for tick, value in zip(ticks, scaled, strict=True)
    ]
    return labels, "" if plain else formats.power_of_ten(exponent)


def px(value: float) -> str:
    """Return a pixel coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(name: str, *children: str | Markup, **attributes: str | float) -> Markup:
    """Return an element; children and values are escaped unless they are markup already.

    ``class_`` stands for ``class``, and an underscore inside a name for a hyphen.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else px(value))}"'
        for key, value in attributes.items()
    )
    body = Markup("").join(children)
    return Markup(f"<{name}{written}>{body}</{name}>")


def label(text: str, x: float, y: float, anchor: str = "middle", kind: str = "") -> Markup:
    """Return a text element; ``kind`` is its class."""
    attributes: dict[str, str | float] = {"x": x, "y": y, "text_anchor": anchor}
    return element("text", text, **attributes, **({"class_": kind} if kind else {}))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """Return a straight line; ``kind`` is its class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def drawing(name: str, frame: Frame, title: str, description: str, children: Sequence[Markup]) -> Markup:
    """Return an ``<svg>`` that reads as one image, with a title and a description in words."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *children,
        viewBox=f"0 0 {px(frame.width)} {px(frame.height)}",
        role="img",
        aria_labelledby=f"{name}-title",
        aria_describedby=f"{name}-desc",
        class_="plot",
    )


def x_axis(frame: Frame, scale: Scale, ticks: Sequence[float], title: str, grid: bool = False) -> list[Markup]:
    """Return the horizontal axis: ticks, labels, title, and vertical grid lines where asked for."""
    labels, unit = tick_labels(ticks)
    parts: list[Markup] = []
    for tick, text in zip(ticks, labels, strict=True):
        x = scale(tick)
        if grid:
            parts.append(line(x, frame.top, x, frame.bottom, "grid"))
        parts += x_tick(frame, x, text)
    parts.append(axis_title(frame, f"{title} ({unit})" if unit else title))
    return parts


def x_tick(frame: Frame, x: float, text: str, anchor: str = "middle") -> list[Markup]:
    """Return one tick of the horizontal axis with its label."""
    return [
        line(x, frame.bottom, x, frame.bottom + 5, "axis"),
        label(text, x, frame.bottom + 20, anchor, "tick"),
    ]


def baseline(frame: Frame) -> Markup:
    """Return the line of the horizontal axis."""
    return line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")


def axis_title(frame: Frame, title: str) -> Markup:
    """Return the title of the horizontal axis, under its right end."""
    return label(title, frame.right, frame.bottom + 42, "end", "axis-title")


def y_axis(
    frame: Frame,
    scale: Scale,
    ticks: Sequence[float],
    title: str,
    write: Callable[[float], str] | None = None,
) -> list[Markup]:
    """Return the vertical axis: grid lines, labels by ``write`` or as plain numbers, and the title above."""
    labels, unit = tick_labels(ticks)
    if write is not None:
        labels, unit = [write(tick) for tick in ticks], ""
    parts: list[Markup] = []
    for tick, text in zip(ticks, labels, strict=True):
        y = scale(tick)
        parts.append(line(frame.left, y, frame.right, y, "grid"))
        parts.append(label(text, frame.left - 8, y + 4, "end", "tick"))
    parts.append(label(f"{title} ({unit})" if unit else title, 0, frame.top - 14, "start", "axis-title"))
    return parts


def diamond(x: float, y: float, radius: float, kind: str) -> Markup:
    """Return a filled diamond, the observed value's mark."""
    points = f"{px(x)},{px(y - radius)} {px(x + radius)},{px(y)} {px(x)},{px(y + radius)} {px(x - radius)},{px(y)}"
    return element("polygon", points=points, class_=kind)


def triangle(x: float, y: float, radius: float, kind: str) -> Markup:
    """Return a filled triangle, an alarm's mark."""
    half, rise = 0.95 * radius, 0.75 * radius
    points = f"{px(x)},{px(y - radius)} {px(x + half)},{px(y + rise)} {px(x - half)},{px(y + rise)}"
    return element("polygon", points=points, class_=kind)


def circle(x: float, y: float, radius: float, kind: str) -> Markup:
    """Return a circle: a point of the reference, or a run without an alarm."""
    return element("circle", cx=x, cy=y, r=radius, class_=kind)


def cross(x: float, y: float, radius: float, kind: str) -> Markup:
    """Return a slanted cross, a point of the current sample."""
    x1, x2, y1, y2 = px(x - radius), px(x + radius), px(y - radius), px(y + radius)
    return element("path", d=f"M{x1} {y1}L{x2} {y2}M{x1} {y2}L{x2} {y1}", class_=kind)


def _key(*marks: Markup) -> Markup:
    body = Markup("").join(marks)
    return element("svg", body, viewBox="0 0 24 16", class_="key", aria_hidden="true", focusable="false")


KEYS: dict[str, Markup] = {
    "reference": _key(circle(12, 8, 4.5, "mark-reference")),
    "current": _key(cross(12, 8, 4.5, "mark-current")),
    "reference-mean": _key(circle(12, 8, 6.5, "mean-halo"), circle(12, 8, 6.5, "mean-reference")),
    "current-mean": _key(cross(12, 8, 6, "mean-halo"), cross(12, 8, 6, "mean-current")),
    "permuted": _key(element("rect", x=5, y=2, width=14, height=12, class_="bar")),
    "observed": _key(line(12, 0, 12, 16, "observed-line"), diamond(12, 8, 5.5, "observed-mark")),
    "threshold": _key(line(0, 8, 24, 8, "threshold-line")),
    "run": _key(line(0, 8, 24, 8, "series"), circle(12, 8, 4, "run-quiet")),
    "interval": _key(line(12, 0, 12, 16, "whisker")),
    "chance": _key(line(0, 8, 24, 8, "chance-line")),
    "alarm": _key(triangle(12, 8, 7, "run-alarm")),
    "quiet": _key(element("path", d="M5 8.5l5 5l9 -11", class_="badge-mark")),
    "component": _key(element("rect", x=6, y=1, width=12, height=14, class_="bar")),
    "cumulative": _key(line(0, 8, 24, 8, "cumulative-line"), circle(12, 8, 3.5, "cumulative-mark")),
}
"""Legend keys by name; decoration only, since a word stands beside each."""
