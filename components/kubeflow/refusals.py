"""Error answers of Kubeflow Pipelines, or of a gateway before it, each as one line.

The API answers ``{"code", "message", "details"}``; its upload ``{"error_message", "error_details"}``, the latter a Go
stack. A gateway answers with a redirect to its login page, or with that page itself.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

from driftline.components.errors import DriftlineError, UsageError

_SHOWN: Final = 400  # characters; the server repeats the request in some of its messages
_REDIRECTS: Final = range(300, 400)
_LATER: Final = frozenset({408, 425, 429})  # of the 4xx, those that nobody needs to put right
# "Failed to create a run: Failed to fetch …: Invalid input error: what is wrong": the causes, innermost last.
_CAUSE: Final = re.compile(r"(?:Invalid input error|Already exist error|\b\w*Error(?: code \d+)?): ")


class KubeflowError(DriftlineError):
    """Kubeflow Pipelines gives no answer, or fails.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RefusedError(UsageError):
    """Kubeflow Pipelines refuses what was asked, and whoever asked can put that right.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def refusal(
    asked: str, status: int, body: bytes, *, location: str = "", login: str = ""
) -> KubeflowError | RefusedError:
    """Return the error that an answer stands for.

    Args:
        asked: the method and the URL, without the query.
        status: the HTTP status.
        body: the answer, or its beginning.
        location: where a redirect leads.
        login: who asked, in words.
    """
    named = f"{asked}: answers {status}{_phrase(status)}"
    if status in _REDIRECTS:
        target = urlsplit(location)
        place = f"{target.scheme}://{target.netloc}{target.path}" if target.netloc else target.path
        return RefusedError(
            f"{named} to {place or 'nowhere'}; {login}: give one that has not expired, or the address it leads to",
            status,
        )
    if is_page(body):
        message = (
            f"{asked}: answers {status} with a web page; {login}: give one that has not expired, or check the host"
        )
        return RefusedError(message, status) if status < 500 else KubeflowError(message, status)
    reason = reason_of(body)
    if status == HTTPStatus.UNAUTHORIZED:
        return RefusedError(f"{named}: {reason}; {login}: give one that has not expired", status)
    if status == HTTPStatus.FORBIDDEN:
        return RefusedError(f"{named}: {reason}; {login}: check its rights, and the namespace", status)
    if status in range(400, 500) and status not in _LATER:
        return RefusedError(f"{named}: {reason}", status)
    return KubeflowError(f"{named}: {reason}", status)


def is_page(body: bytes) -> bool:
    """Return whether an answer is a page for people."""
    return body.lstrip()[:64].lower().startswith((b"<!doctype", b"<html", b"<head", b"<!--"))


def reason_of(body: bytes) -> str:
    """Return an answer's innermost cause, on one line."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    text = body.decode("utf-8", "replace")
    if isinstance(answer, dict):
        fields = cast("dict[str, Any]", answer)
        text = str(fields.get("message") or fields.get("error_message") or fields.get("error") or text)
    # A Go stack follows on further lines; the request, with its names, is repeated in "(request: …)".
    text = " ".join(text.partition("\n")[0].split()) or " ".join(text.split())
    causes = [*_CAUSE.finditer(text)]
    if causes and causes[-1].end() < len(text):
        text = text[causes[-1].end() :]
    return (text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…") or "nothing more"


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
