"""Drift as a CloudEvent, for the monitor of a stream and the pipeline's notification.

CloudEvents 1.0: an id, a source, a type and the data. A receiver that gets an event twice knows it by source and id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from driftline.components.errors import UsageError

DRIFT_DETECTED: Final = "driftline.drift.detected"
"""The events' type."""

STRUCTURED: Final = "application/cloudevents+json; charset=utf-8"
"""Media type of an event that is one JSON document, its attributes beside its data."""

NOTIFY_URL: Final = "notify_url"

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_URL: Final = re.compile(
    rf"https?://(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?(?:[/?][^\s\\#]*)?",
    re.IGNORECASE,
)
_LAST_PORT: Final = 65_535


def drift_event(identity: str, source: str, subject: str, time: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a drift's CloudEvent as a JSON object.

    Args:
        identity: its id, the same in every sending of the event.
        source: the detector of the drift, a path of a URI.
        subject: the stream or window that drifted.
        time: when, with a time zone. It must not be the time of sending: the event has the same bytes every time.
        data: the facts of the drift.
    """
    return {
        "specversion": "1.0",
        "id": identity,
        "source": source,
        "type": DRIFT_DETECTED,
        "subject": subject,
        "time": rfc3339(time),
        "datacontenttype": "application/json",
        "data": dict(data),
    }


def rfc3339(time: datetime) -> str:
    """Return a time with a time zone as RFC 3339, in UTC and to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def structured(event: Mapping[str, Any]) -> bytes:
    """Return an event's content in structured mode, of the media type :data:`STRUCTURED`.

    Lone surrogates in names are replaced: they cannot be sent.
    """
    return json.dumps(event, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def check_notify_url(url: str, name: str = NOTIFY_URL) -> None:
    """Raise UsageError for a URL to which no event can be sent. An empty one stands for no URL, and is accepted.

    Args:
        url: the URL. No message shows it: the path of a webhook is its password.
        name: the user's name of it, for messages.
    """
    url = url.strip()
    if not url:
        return
    found = _URL.fullmatch(url)
    if found is not None and int(found["port"] or 0) <= _LAST_PORT:
        return
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError(
            f"{name}: expected no login in the URL, which whoever sees the run can read; give a token by the variable "
            "DRIFTLINE_NOTIFY_TOKEN"
        )
    raise UsageError(
        f"{name}: expected http:// or https://, a host and a path, such as https://events.example.org/drift (what was "
        "given is not shown: it may be a password)"
    )


def shown(url: str) -> str:
    """Return the part of a URL that may be shown: the scheme, the host and the port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
