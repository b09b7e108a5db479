"""The steps that follow a drift run's result: an event to its receiver, and an error where there is drift."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from driftline.components.errors import DataError, DriftlineError, UsageError
from driftline.components.events import NOTIFY_URL, check_notify_url, drift_event, shown
from driftline.components.mmd.report.formats import p_value as shown_p_value
from driftline.components.mmd.result import SKIPPED, DriftResult, SkippedResult
from driftline.components.notification.sending import TOKEN, send
from driftline.components.sampling.identity import SampleIdentity
from driftline.components.secret import Secret
from driftline.components.steps import logged_step
from driftline.components.storage.objects.store import read_json

SOURCE: Final = "/driftline/drift-runs"
"""The events' source: runs of the drift pipeline, whichever of them."""

URL_VARIABLE: Final = "DRIFTLINE_NOTIFY_URL"


class DriftFound(DriftlineError):  # noqa: N818  it names what was found, not a mistake
    """There is drift, and the run was asked to fail over it."""


def notify(*, report_uri: str, notify_url: str) -> None:
    """Post the event of a run with drift to its receiver; without drift or a receiver, log that.

    Args:
        report_uri: where the run's report is; its result, ``result.json``, lies beside it.
        notify_url: URL that takes CloudEvents; empty for that of the variable DRIFTLINE_NOTIFY_URL, or for nobody. The
            variable DRIFTLINE_NOTIFY_TOKEN may hold a token for either.

    Raises:
        UsageError: the URL is none, or the receiver refuses the event or the token.
        NotSentError: the receiver gave no answer, or failed, for two minutes.
        DataError: the result is none of this version of Driftline.
    """
    with logged_step("notify") as clock:
        found = _result_beside(report_uri)
        name, url = NOTIFY_URL, notify_url.strip()
        if not url:
            name, url = URL_VARIABLE, os.environ.get(URL_VARIABLE, "").strip()
        check_notify_url(url, name)
        if isinstance(found, SkippedResult) or not found.drift:
            clock.log("progress", sent_to="nobody", why=_no_drift(found))
            return
        if not url:
            clock.log("progress", sent_to="nobody", why="no notify_url is given", report=found.report_uri)
            return
        token = os.environ.get(TOKEN, "")
        event = event_of(found)

        def on_retry(**fields: Any) -> None:
            clock.log("progress", **fields)

        status = send(event, url, Secret(token) if token else None, on_retry, name=name)
        clock.log("progress", sent_to=shown(url), status=status, id=event["id"], report=found.report_uri)


def fail_on_drift(*, report_uri: str, asked_for: bool = True) -> None:
    """Raise an error where a run found drift.

    Args:
        report_uri: where the run's report is; its result, ``result.json``, lies beside it.
        asked_for: whether to; if not, nothing is done.

    Raises:
        DriftFound: there is drift.
        DataError: the result is none of this version of Driftline.
    """
    with logged_step("fail-on-drift") as clock:
        if not asked_for:
            clock.log("progress", why="fail_on_drift is false: the run stays green")
            return
        found = _result_beside(report_uri)
        if isinstance(found, SkippedResult) or not found.drift:
            clock.log("progress", why=_no_drift(found))
            return
        raise DriftFound(
            f"{found.verdict}: p = {shown_p_value(found.p_value)} at level {found.level:g}; report {found.report_uri}"
        )


def event_of(result: DriftResult) -> dict[str, Any]:
    """Return the CloudEvent of a result with drift: the same bytes at every call, without any text."""
    moment = datetime.fromisoformat(result.created)
    return drift_event(
        # Of results of before runs had names, the moment and the window are the name.
        result.run or f"{result.created} {result.current.digest}",
        SOURCE,
        result.current.asked or result.current.uri,
        moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        {
            "verdict": result.verdict,
            "p_value": _finite(result.p_value),
            "level": _finite(result.level),
            "method": result.method,
            "mmd2": _finite(result.mmd2),
            "mmd2_interval": None if result.mmd2_interval is None else [*map(_finite, result.mmd2_interval)],
            "auc": _finite(result.auc),
            "model": result.current.model,
            "revision": result.current.revision,
            "reference": _window(result.reference),
            "current": _window(result.current),
            "report_uri": result.report_uri,
            "run": result.run,
            "job": result.job,
            "as_of": result.as_of,
        },
    )


def _window(side: SampleIdentity) -> dict[str, Any]:
    return {"uri": side.uri, "asked": side.asked or side.uri, "rows": side.rows, "sampled": side.sampled}


def _finite(value: float) -> float | None:
    """Return a number as JSON has it, which has no NaN."""
    return value if math.isfinite(value) else None


def _no_drift(result: DriftResult | SkippedResult) -> str:
    if isinstance(result, SkippedResult):
        return f"the run was skipped: {result.reason}"
    return f"{result.verdict}: p = {shown_p_value(result.p_value)} at level {result.level:g}"


def _result_beside(report_uri: str) -> DriftResult | SkippedResult:
    folder, slash, name = report_uri.strip().rpartition("/")
    if not name:
        raise UsageError(f"report_uri: expected the place of a run's report, such as …/report.html, got {report_uri!r}")
    place = f"{folder}{slash}result.json"
    content = read_json(place)
    try:
        record = cast("Mapping[str, Any]", content)
        return SkippedResult.from_json(record) if record["status"] == SKIPPED else DriftResult.from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is not there" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{place}: expected a drift result ({reason}); give the report_uri of a run of this version of Driftline"
        ) from error
