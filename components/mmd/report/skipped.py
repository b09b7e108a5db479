"""The page of a run that was skipped: why, and what its windows held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from driftline.components.mmd.report import formats
from driftline.components.mmd.report.page import style, template
from driftline.components.mmd.result import FoundWindow, SkippedResult

_MAX_NAME: Final = 200
_MAX_REASON: Final = 500


def render_skipped(result: SkippedResult) -> str:
    """Return the page as one HTML document that loads nothing, like the report's.

    Args:
        result: what was found instead of enough to compare.
    """
    sides = result.reference, result.current
    rows: dict[str, Callable[[FoundWindow], str]] = {
        "Asked for": lambda side: formats.clean(side.asked, _MAX_NAME),
        "Window": lambda side: formats.clean(side.uri, _MAX_NAME),
        "Texts": lambda side: formats.count(side.rows),
        "Missing from the window": lambda side: formats.missing(side.missing),
    }
    return template("skipped.html.j2").render(
        css=style(),
        created=formats.long_time(result.created),
        reason=formats.clean(result.reason, _MAX_REASON),
        rows=[
            ("As of", formats.long_time(result.as_of), formats.long_time(result.as_of)),
            *((head, *map(cell, sides)) for head, cell in rows.items()),
        ],
    )
