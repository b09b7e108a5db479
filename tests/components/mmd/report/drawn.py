"""Reads drawings back: values from pixels, by the axes' own labels."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest


def parse(markup) -> ET.Element:
    """Parse a drawing; it must be well-formed by itself, and hold no number that is not finite."""
    assert not re.search(r"\b(nan|inf)\b", markup, re.IGNORECASE)
    root = ET.fromstring(str(markup))
    assert root.get("role") == "img"
    names = {element.get("id") for element in root.iter() if element.get("id")}
    assert {root.get("aria-labelledby"), root.get("aria-describedby")} == names
    assert root.find("title").text
    assert root.find("desc").text
    return root


def of(root: ET.Element, kind: str, tag: str | None = None) -> list[ET.Element]:
    return [e for e in root.iter() if e.get("class") == kind and (tag is None or e.tag == tag)]


def number(element: ET.Element, name: str) -> float:
    return float(element.get(name))


def tick_positions(root: ET.Element, baseline: float) -> dict[float, float]:
    """Return the value and the x of each plain tick label under the horizontal axis."""
    labels = [e for e in of(root, "tick", "text") if number(e, "y") == pytest.approx(baseline + 20)]
    return {float(e.text.replace("\N{MINUS SIGN}", "-").replace(",", "")): number(e, "x") for e in labels}


def read_x(root: ET.Element, baseline: float, x: float) -> float:
    """Return the value that the axis's own labels give to a pixel."""
    ticks = sorted(tick_positions(root, baseline).items())
    (v0, x0), (v1, x1) = ticks[0], ticks[1]
    return v0 + (x - x0) / (x1 - x0) * (v1 - v0)


def bar_counts(root: ET.Element, frame) -> list[float]:
    """Return each bar's count, as the vertical axis's own labels read it."""
    labels = [e for e in of(root, "tick", "text") if e.get("text-anchor") == "end" and number(e, "x") < frame.left]
    (v0, y0), (v1, y1) = [(float(e.text.replace(",", "")), number(e, "y")) for e in labels][:2]
    return [number(bar, "height") * (v1 - v0) / (y0 - y1) for bar in of(root, "bar")]
