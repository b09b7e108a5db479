"""The marks of the figures, told apart by shape as well as by colour, and their keys for the legends."""

from __future__ import annotations

from markupsafe import Markup

from driftline.components.mmd.report.figures.svg import element, line, px


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
