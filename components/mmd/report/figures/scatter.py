"""The picture of both samples along the first two principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.figures.svg import (
    Figure,
    Frame,
    Scale,
    baseline,
    circle,
    cross,
    domain,
    drawing,
    element,
    label,
    nice_ticks,
    px,
    x_axis,
    y_axis,
)

MAX_POINTS = 2000
"""Points drawn per sample: more would only cover one another, and the file must stay small."""

WIDE = Frame(width=880, height=520, left=52, right=868, top=34, bottom=466, x_ticks=8, y_ticks=6)
NARROW = Frame(width=360, height=372, left=44, right=352, top=34, bottom=316, x_ticks=4, y_ticks=5)
# The samples are drawn in turns, a part at a time, so that neither covers the other as a whole.
_TURNS = 8
# Beyond this ratio of the axes' lengths, one scale for both would flatten the cloud to a line.
_MAX_STRETCH = 5.0


@dataclass(frozen=True, slots=True)
class _Cloud:
    """A sample's points inside the picture, (p, 2) float64, and its mean, (2,) float64."""

    points: np.ndarray
    mean: np.ndarray


def sample_scatter(reference: np.ndarray, current: np.ndarray, ratios: tuple[float, ...]) -> Figure | None:
    """Draw both samples along two principal components, or as two strips along one.

    Args:
        reference: (p, 2) float32.
        current: (q, 2) float32.
        ratios: share of the pooled variance along each axis.

    Returns:
        The figure, or None where there is no finite point.
    """
    clouds = [_finite(reference), _finite(current)]
    total = sum(cloud.shape[0] for cloud in clouds)
    if total == 0:
        return None
    flat = not any(np.any(cloud[:, 1]) for cloud in clouds)
    pooled = np.concatenate(clouds)
    # Quantiles, so that a few stray points do not shrink all others to a dot.
    low, high = np.quantile(pooled, [0.005, 0.995], axis=0)
    reach = 0.5 * (high - low)
    low, high = np.maximum(pooled.min(axis=0), low - reach), np.minimum(pooled.max(axis=0), high + reach)
    beyond = int(np.any((pooled < low) | (pooled > high), axis=1).sum())
    drawn = [
        _Cloud(np.clip(_thin(cloud), low, high), np.clip(cloud.mean(axis=0), low, high) if len(cloud) else low)
        for cloud in clouds
    ]
    spans = [domain(float(low[k]), float(high[k]), padding=0.03) for k in (0, 1)]
    equal = not flat and 1 / _MAX_STRETCH <= _length(spans[0]) / _length(spans[1]) <= _MAX_STRETCH

    caption = "Each mark is a text. "
    if flat:
        caption += "The vectors vary along one direction only; height within a strip carries no meaning. "
    else:
        caption += (
            "One unit is equally long in both directions. " if equal else "The axes have different scales. "
        ) + "Two directions show only part of a difference: the test looks at all of them. "
    if total > sum(len(cloud.points) for cloud in drawn):
        caption += f"At most {formats.count(MAX_POINTS)} points of each sample are drawn. "
    if beyond:
        caption += f"{formats.plural(beyond, 'stray point')} beyond the frame {'is' if beyond == 1 else 'are'} "
        caption += "drawn at its edge. "
    titles = [_axis_title(k, ratios) for k in (0, 1)]
    sizes = [len(cloud) for cloud in clouds]

    def draw(name: str, frame: Frame) -> Markup:
        if flat:
            return _draw_strips(name, frame, drawn, spans[0], titles[0], sizes)
        return _draw_plane(name, frame, drawn, spans, equal, titles, sizes)

    return Figure(
        wide=draw("scatter-wide", WIDE),
        narrow=draw("scatter-narrow", NARROW),
        caption=caption.strip(),
        legend=(
            ("reference", "reference"),
            ("current", "current"),
            ("reference-mean", "mean of the reference"),
            ("current-mean", "mean of the current sample"),
        ),
    )


def _finite(points: np.ndarray) -> np.ndarray:
    values = points.astype(np.float64)
    return values[np.isfinite(values).all(axis=1)]


def _thin(points: np.ndarray) -> np.ndarray:
    """Return at most ``MAX_POINTS`` rows, equally spaced."""
    if len(points) <= MAX_POINTS:
        return points
    return points[np.arange(MAX_POINTS) * len(points) // MAX_POINTS]


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _axis_title(axis: int, ratios: tuple[float, ...]) -> str:
    title = f"Principal component {axis + 1}"
    return f"{title}, {formats.share(ratios[axis])} of the variance" if axis < len(ratios) else title


def _draw_plane(
    name: str,
    frame: Frame,
    clouds: list[_Cloud],
    spans: list[tuple[float, float]],
    equal: bool,
    titles: list[str],
    sizes: list[int],
) -> Markup:
    width, height = frame.right - frame.left, frame.bottom - frame.top
    if equal:
        # One scale for both axes: the shorter one is widened about its middle.
        unit = max(_length(spans[0]) / width, _length(spans[1]) / height)
        spans = [
            ((a + b - unit * pixels) / 2, (a + b + unit * pixels) / 2)
            for (a, b), pixels in zip(spans, (width, height), strict=True)
        ]
    x = Scale(*spans[0], frame.left, frame.right)
    y = Scale(*spans[1], frame.bottom, frame.top)
    parts = y_axis(frame, y, nice_ticks(y.low, y.high, frame.y_ticks), titles[1])
    parts += x_axis(frame, x, nice_ticks(x.low, x.high, frame.x_ticks), titles[0], grid=True)
    placed = [[(x(float(u)), y(float(v))) for u, v in cloud.points] for cloud in clouds]
    parts += _marks(placed, frame)
    for k, cloud in enumerate(clouds):
        parts += _mean(k, x(float(cloud.mean[0])), y(float(cloud.mean[1]))) if sizes[k] else []
    return _titled(name, frame, clouds, sizes, parts)


def _draw_strips(
    name: str,
    frame: Frame,
    clouds: list[_Cloud],
    span: tuple[float, float],
    title: str,
    sizes: list[int],
) -> Markup:
    x = Scale(*span, frame.left, frame.right)
    parts = x_axis(frame, x, nice_ticks(x.low, x.high, frame.x_ticks), title, grid=True)
    parts.append(baseline(frame))
    half = (frame.bottom - frame.top) / 2
    placed: list[list[tuple[float, float]]] = []
    for k, (cloud, kind) in enumerate(zip(clouds, ("reference", "current"), strict=True)):
        top = frame.top + k * half
        parts.append(label(kind, frame.left, top + 14, "start", "axis-title"))
        # The golden ratio spreads successive marks evenly over the strip's height, without a random number.
        heights = top + 30 + (half - 50) * (np.arange(len(cloud.points)) * 0.6180339887498949 % 1.0)
        placed.append([(x(float(u)), float(v)) for u, v in zip(cloud.points[:, 0], heights, strict=True)])
    parts += _marks(placed, frame)
    for k, cloud in enumerate(clouds):
        middle = frame.top + (k + 0.5) * half + 5
        parts += _mean(k, x(float(cloud.mean[0])), middle) if sizes[k] else []
    return _titled(name, frame, clouds, sizes, parts)


def _mean(sample: int, x: float, y: float) -> list[Markup]:
    """Return the mark of a sample's mean, 0 for the reference and 1 for the current one, on a halo."""
    if sample == 0:
        return [circle(x, y, 9, "mean-halo"), circle(x, y, 9, "mean-reference")]
    return [cross(x, y, 8, "mean-halo"), cross(x, y, 8, "mean-current")]


def _marks(placed: list[list[tuple[float, float]]], frame: Frame) -> list[Markup]:
    """Return both samples' marks in turns, as paths: a third of the bytes of single shapes."""
    most = max(len(points) for points in placed)
    small = frame.width < 500
    arm = 2.1 if small else 2.6
    if most <= 150:
        arm *= 1.5
    dot = px(2.1 * arm)
    double = px(2 * arm)
    strokes = f"l{double} {double}m-{double} 0l{double}-{double}"
    parts: list[Markup] = []
    for turn in range(_TURNS):
        dots = "".join(f"M{px(round(u, 1))} {px(round(v, 1))}h0" for u, v in placed[0][turn::_TURNS])
        if dots:
            parts.append(element("path", d=dots, class_="points-reference", stroke_width=dot))
        crosses = "".join(
            f"M{px(round(u - arm, 1))} {px(round(v - arm, 1))}{strokes}" for u, v in placed[1][turn::_TURNS]
        )
        if crosses:
            parts.append(element("path", d=crosses, class_="points-current"))
    return parts


def _titled(name: str, frame: Frame, clouds: list[_Cloud], sizes: list[int], parts: list[Markup]) -> Markup:
    means = "; ".join(
        f"mean of the {kind} sample at ({formats.number(float(cloud.mean[0]))}, {formats.number(float(cloud.mean[1]))})"
        for cloud, size, kind in zip(clouds, sizes, ("reference", "current"), strict=True)
        if size
    )
    return drawing(
        name,
        frame,
        "Both samples along the first principal components",
        f"Scatter plot of {formats.plural(sizes[0], 'text')} of the reference (dots) and "
        f"{formats.plural(sizes[1], 'text')} of the current sample (crosses); {means}.",
        parts,
    )
