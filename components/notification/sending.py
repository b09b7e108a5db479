"""Sending of an event: an HTTP POST, tried again for two minutes where the receiver is away or busy."""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_plus, urlsplit

import requests
from requests.utils import requote_uri
from urllib3.exceptions import HTTPError

from driftline.components.errors import DriftlineError, UsageError, one_line
from driftline.components.events import STRUCTURED, shown, structured
from driftline.components.images import VERSION
from driftline.components.kubeflow.connection import CONNECT_S, no_answer
from driftline.components.secret import Secret

TOKEN: Final = "DRIFTLINE_NOTIFY_TOKEN"

TRY_S: Final = 120.0  # receivers restart, and brokers move, within a minute; the task's own retries come on top
ATTEMPT_S: Final = 30.0  # for one whole attempt: receivers that keep an event answer within a second
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 20.0
ATTEMPT_THREAD: Final = "driftline-notify-attempt"

_LATER: Final = frozenset({408, 425, 429})  # of the 4xx, those that nobody needs to put right
_SERVER_ERRORS: Final = range(500, 600)
_REDIRECTS: Final = range(300, 400)
_TAKEN: Final = range(200, 300)

_ANSWER_BYTES: Final = 4096  # of a refusal
_SHOWN: Final = 200  # characters of it
_SECRET_CHARACTERS: Final = 4  # a shorter part of a URL is no password, and may be any word of an answer

_INSIDE: Final = (".svc", ".cluster.local")
_SERVICE: Final = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?", re.IGNORECASE)  # 134744072 is an address, no service


class NotSentError(DriftlineError):
    """An event's receiver is away, or fails."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The outcome of one attempt.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
        reason: the answer in a few words without secrets.
        wait_s: seconds that the receiver asks to be left alone.
        lasting: whether the same attempt would have the same answer again.
    """

    status: int
    reason: str
    wait_s: float = 0.0
    lasting: bool = False


def send(
    event: Mapping[str, Any], url: str, token: Secret | None, on_retry: Callable[..., None], *, name: str = "notify_url"
) -> int:
    """Post an event to its receiver in structured mode, and return when it is taken.

    A receiver may get it more than once, with the same id, where the answer to the first was lost.

    Args:
        event: the CloudEvent.
        url: of the receiver, as `events.check_notify_url` takes it.
        token: sent along as a bearer token; None for none.
        on_retry: called before each pause, with keywords for a line of the log; none of them holds a secret.
        name: the user's name of the URL, for messages.

    Returns:
        The status of the answer.

    Raises:
        UsageError: the receiver refuses, or the token would be readable on its way.
        NotSentError: the receiver was away or failed for two minutes.
    """
    place = shown(url)
    authorization = None if token is None else _authorization(token, url, name)
    secrets = [*_secrets(url, token)]
    body = structured(event)
    _keep_library_quiet()
    until, pause, attempts = time.monotonic() + TRY_S, _FIRST_PAUSE_S, 0
    while True:
        attempts += 1
        left = until - time.monotonic()
        answer = _within(min(ATTEMPT_S, left), lambda: _post(url, body, authorization, secrets))
        if answer.status in _TAKEN:
            return answer.status
        if answer.lasting:
            raise UsageError(f"{name}: {answer.reason}; check the URL and the token ({place})")
        wait = max(pause, answer.wait_s)
        if time.monotonic() + wait >= until:
            asked = f" and asks for {answer.wait_s:.0f} s of rest" if answer.wait_s > pause else ""
            raise NotSentError(
                f"{name}: {answer.reason}{asked}, at attempt {attempts}; check the receiver and the network, and run "
                f"the step again ({place})"
            )
        on_retry(attempt=attempts, receiver=place, why=answer.reason, next_in_s=round(wait, 1))
        time.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _keep_library_quiet() -> None:
    """Keep urllib3 from logging an attempt, given up or not: it shows the whole URL where headers are damaged."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "urllib3":
            logging.getLogger(name).addFilter(_is_of_no_attempt)


def _is_of_no_attempt(record: logging.LogRecord) -> bool:
    return record.threadName != ATTEMPT_THREAD


def _within(seconds: float, attempt: Callable[[], _Answer]) -> _Answer:
    """Return an attempt's answer, or a time-out of the whole attempt: a socket's own begins anew with each byte."""
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(attempt())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name=ATTEMPT_THREAD, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return answers[0] if answers else _Answer(0, f"no answer within {seconds:.3g} s")


def _post(url: str, body: bytes, authorization: Secret | None, secrets: list[str]) -> _Answer:
    """Make one attempt. Redirects are not followed: the token would go along, and the event not always."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if authorization is not None:
            request.headers["Authorization"] = authorization.reveal()
        return request

    with requests.Session() as session:
        # A proxy of the environment cannot reach the cluster's inside, and would read the token.
        session.trust_env = not _stays_inside(url)
        try:
            with session.post(
                url,
                data=body,
                headers={
                    "Content-Type": STRUCTURED,
                    "User-Agent": f"driftline/{VERSION}",
                    "Accept-Encoding": "identity",
                },
                auth=authorize,  # without one, requests would look into ~/.netrc for one
                timeout=(CONNECT_S, ATTEMPT_S),
                allow_redirects=False,
                stream=True,
            ) as response:
                return _answer(response, secrets)
        except requests.exceptions.SSLError as error:
            why = _without(secrets, no_answer(error, ATTEMPT_S))
            if _untrusted(error):
                reason = f"the certificate is not trusted ({why}); set REQUESTS_CA_BUNDLE to your authority's file"
                return _Answer(0, reason, lasting=True)
            return _Answer(0, f"no answer ({why})")
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, HTTPError) as error:
            return _Answer(0, f"no answer ({_without(secrets, no_answer(error, ATTEMPT_S))})")
        except (requests.exceptions.RequestException, ValueError) as error:
            # Of what is wrong with a URL the library's message holds the URL.
            return _Answer(0, f"the URL cannot be used ({type(error).__name__})", lasting=True)
        except OSError as error:  # of the file that REQUESTS_CA_BUNDLE names
            return _Answer(0, f"nothing can be sent ({_without(secrets, one_line(error))})", lasting=True)


def _answer(response: requests.Response, secrets: list[str]) -> _Answer:
    status = response.status_code
    named = f"the receiver answers {status}{_phrase(status)}"
    if status in _TAKEN:
        return _Answer(status, named)
    if status in _REDIRECTS:
        leads = re.match(r"https?://(?:[^/?#@\s]*@)?([\w.:-]+)", response.headers.get("Location", ""), re.IGNORECASE)
        place = "another path" if leads is None else leads[1]
        return _Answer(status, f"{named} to {place}, and is not followed; give the URL it leads to", lasting=True)
    try:
        content = _line(next(response.iter_content(_ANSWER_BYTES), b""), secrets)
    except requests.exceptions.RequestException:
        content = ""  # the connection broke during the answer; the status stands
    reason = f"{named}: {content}" if content else named
    if status in _LATER or status in _SERVER_ERRORS:
        return _Answer(status, reason, wait_s=_retry_after(response.headers.get("Retry-After", "")))
    return _Answer(status, reason, lasting=True)


def _line(content: bytes, secrets: list[str]) -> str:
    """Return the first line of an answer's beginning, cut, and without the URL's parts: some servers repeat them."""
    text = content.decode("utf-8", "replace")
    try:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        text = next((line for line in text.splitlines() if line.strip()), "")
    line = " ".join("".join(one if one.isprintable() else " " for one in _without(secrets, text)).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _retry_after(header: str) -> float:
    """Return the seconds that Retry-After asks for, a number or a date; 0 for none."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _authorization(token: Secret, url: str, name: str) -> Secret:
    """Return the header that holds a token, which goes by https, or stays on the machine or in the cluster.

    A cluster's brokers and event sources are asked by plain http as a rule, and their traffic does not leave it.
    """
    value = _bare(token)
    if not value or not value.isascii() or not value.isprintable():
        raise UsageError(f"{TOKEN}: expected a token on one line, got {'more than that' if value else 'nothing'}")
    if urlsplit(url).scheme != "https" and not _stays_inside(url):
        raise UsageError(
            f"{name}: http would show the token to all on the way; give https://, or a service of the cluster by a "
            f"name that ends in .svc ({shown(url)})"
        )
    return Secret(f"Bearer {value}")


def _bare(token: Secret) -> str:
    return re.sub(r"\ABearer(?:\s+|\Z)", "", token.reveal().strip())


def _stays_inside(url: str) -> bool:
    """Return whether a URL's plain-text traffic stays on this machine or in the cluster, by its host's name.

    A name without dots is a service of the pod's own namespace.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme != "http":
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return _SERVICE.fullmatch(host) is not None or host.endswith(_INSIDE)


def _untrusted(error: BaseException) -> bool:
    """Return whether a certificate was refused: other ends of a TLS connection may be a matter of the moment."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in seen:
            if isinstance(one, ssl.SSLCertVerificationError):
                return True
            seen.append(one)
            waiting += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    return False


def _secrets(url: str, token: Secret | None) -> Iterator[str]:
    """Yield the parts that no message may hold, the longest first: the URL's as given, sent and read, and the token."""
    found: set[str] = set()
    for address in (url, requote_uri(url)):
        parts = urlsplit(address)
        found |= {parts.path, parts.query, *re.split("[/&=;]", f"{parts.path}&{parts.query}")}
    if token is not None:
        found.add(_bare(token))
    found |= {unquote_plus(one) for one in found}
    yield from sorted((one for one in found if len(one) >= _SECRET_CHARACTERS), key=len, reverse=True)


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
    return text


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
