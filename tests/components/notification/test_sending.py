"""Events on their way: real HTTP and TLS, and everything that receivers and networks do to them."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.http import from_http

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.events import STRUCTURED, drift_event
from driftline.components.notification import sending
from driftline.components.notification.sending import NotSentError, send
from driftline.components.secret import Secret
from tests.components.notification.receiver import Behaviour, answer, dies, drips, hangs, receiving
from tests.support.tls_proxy import authority

PASSWORD, KEY, TOKEN = "T0AB/s3cr3tPath", "q%2Fuery-k3y", "t0ken-of-mine"
PATH = f"/hooks/{PASSWORD}?key={KEY}"
SECRETS = ("s3cr3tPath", "T0AB", "uery-k3y", TOKEN)
EVENT = drift_event(
    "4f1c", "/driftline/drift-runs", "gs://lake/date=yesterday", datetime(2026, 11, 30, 0, 5, tzinfo=UTC),
    {"verdict": "drift found", "p_value": 0.002, "mmd2_interval": None, "name": "日本 é"},
)  # fmt: skip


class Clock:
    """Time that passes in pauses alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Generator[Clock]:
    """Time of the test's own, and no secret in any library's log."""
    caplog.set_level("DEBUG")
    clock = Clock()
    monkeypatch.setattr(sending, "time", clock)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield clock
    # The text that caplog has by now is that of the teardown alone.
    logged = "\n".join(map(logging.Formatter().format, caplog.get_records("call")))
    assert not [secret for secret in SECRETS if secret.lower() in logged.lower()], logged


class Sent:
    """What came of sending: the lines of the log, and the error."""

    def __init__(self, url: str, token: str | None = TOKEN) -> None:
        self.retries: list[dict[str, Any]] = []
        self.error: DriftlineError | None = None
        self.status = 0
        try:
            self.status = send(
                EVENT, url, None if token is None else Secret(token), lambda **fields: self.retries.append(fields)
            )
        except DriftlineError as error:
            self.error = error
        said = f"{self.retries} {self.error} {self.error!r} {getattr(self.error, '__cause__', None)!r}"
        assert not [secret for secret in SECRETS if secret.lower() in said.lower()], said
        assert "\n" not in str(self.error)


def test_a_receivers_library_reads_what_was_sent() -> None:
    with receiving() as receiver:
        assert Sent(receiver.url + PATH).status == 202
        (seen,) = receiver.seen
    event = from_http(seen.headers, seen.body)
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "4f1c",
        "source": "/driftline/drift-runs",
        "type": "driftline.drift.detected",
        "subject": "gs://lake/date=yesterday",
        "time": "2026-11-30T00:05:00.000Z",
        "datacontenttype": "application/json",
    }
    assert event.get_data() == EVENT["data"]
    assert (seen.method, seen.target) == ("POST", PATH)
    assert (seen.headers["Content-Type"], seen.headers["Authorization"]) == (STRUCTURED, f"Bearer {TOKEN}")


def test_without_a_token_nobody_logs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    with receiving() as receiver:
        assert Sent(receiver.url + PATH, None).status == 202
        assert "Authorization" not in receiver.seen[0].headers


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(500), answer(502, b"<html>bad gateway"), answer(503), answer(504), answer(599), answer(429),
        answer(408), answer(425), dies(), dies(b"HTTP/1.1 20"),
        dies(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), dies(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000),
        dies(b"HTTP/1.1 999999 OK\r\n\r\n"), dies(b"\x00" * 100), dies(b"no HTTP at all\r\n\r\n"),
        dies(b"HTTP/1.1 503 away\r\nContent-Length: 99\r\n\r\nhalf"),
    ],
)  # fmt: skip
def test_a_receiver_that_is_away_for_a_while_gets_the_same_event(behaviour: Behaviour, clock: Clock) -> None:
    with receiving(behaviour, behaviour, answer(200)) as receiver:
        sent = Sent(receiver.url + PATH)
        assert sent.status == 200
        assert len({(seen.target, seen.body, seen.headers["Authorization"]) for seen in receiver.seen}) == 1
        assert len(receiver.seen) == 3
        assert clock.pauses == [1, 2]
        assert [(line["attempt"], line["receiver"], line["next_in_s"]) for line in sent.retries] == [
            (1, receiver.url, 1.0),
            (2, receiver.url, 2.0),
        ]


@pytest.mark.parametrize("rest", [b"Content-Length: 99\r\n\r\nhalf", b"Content-", b"\r\n"])
def test_an_answer_that_breaks_off_after_its_status_is_an_answer(rest: bytes) -> None:
    with receiving(dies(b"HTTP/1.1 202 Accepted\r\n" + rest)) as receiver:
        assert Sent(receiver.url + PATH).status == 202
        assert len(receiver.seen) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("when", [lambda: "7", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=30))])
def test_retry_after_is_heeded(status: int, when: Callable[[], str], clock: Clock) -> None:
    with receiving(answer(status, Retry_After=when()), answer(204)) as receiver:
        assert Sent(receiver.url + PATH).status == 204
    (pause,) = clock.pauses
    assert pause == 7 or 7 < pause <= 30


@pytest.mark.parametrize(
    "header", ["", "soon", "-5", "0", "Fri, 31 Feb 2026 99:00:00 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"]
)
def test_a_retry_after_that_asks_for_nothing(header: str, clock: Clock) -> None:
    with receiving(answer(503, Retry_After=header), answer(204)) as receiver:
        assert Sent(receiver.url + PATH).status == 204
    assert clock.pauses == [1]


def test_a_longer_rest_than_there_is_time_for_ends_the_attempts(clock: Clock) -> None:
    with receiving(answer(429, b"slow down", Retry_After="3600")) as receiver:
        sent = Sent(receiver.url + PATH)
        assert len(receiver.seen) == 1
    assert isinstance(sent.error, NotSentError)
    assert str(sent.error).startswith(
        "notify_url: the receiver answers 429 Too Many Requests: slow down and asks for 3600 s of rest, at attempt 1; "
    )
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (
            answer(503, b"no healthy upstream\nmore"),
            "notify_url: the receiver answers 503 Service Unavailable: no healthy",
        ),
        (dies(), "notify_url: no answer (Remote end closed connection without response), at attempt"),
    ],
)
def test_a_receiver_that_stays_away_is_given_up(behaviour: Behaviour, message: str, clock: Clock) -> None:
    with receiving(behaviour) as receiver:
        sent = Sent(receiver.url + PATH)
        assert isinstance(sent.error, NotSentError)
        assert str(sent.error).startswith(message)
        assert str(sent.error).endswith(f"check the receiver and the network, and run the step again ({receiver.url})")
        assert len(receiver.seen) == len(clock.pauses) + 1
    assert clock.now - 100 <= sending.TRY_S
    assert clock.pauses[:5] == [1, 2, 4, 8, 16]


def test_nobody_there(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sent = Sent(f"http://127.0.0.1:{port}{PATH}")
    assert str(sent.error).startswith("notify_url: no answer (Connection refused), at attempt ")
    assert clock.now - 100 <= sending.TRY_S


@pytest.mark.parametrize("behaviour", [hangs, drips])
def test_a_receiver_that_keeps_the_line_open_is_given_up(
    behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(sending, "ATTEMPT_S", 0.1)
    with receiving(behaviour) as receiver:
        sent = Sent(receiver.url + PATH)
        assert isinstance(sent.error, NotSentError)
        assert "no answer" in str(sent.error)
    assert clock.now - 100 <= sending.TRY_S
    for thread in threading.enumerate():
        if thread.name == sending.ATTEMPT_THREAD:  # what an attempt logs after it was given up holds no secret either
            thread.join(10)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiving() as other, receiving(answer(status, Location=f"{other.url}{PATH}")) as receiver:
        sent = Sent(receiver.url + PATH)
        assert isinstance(sent.error, UsageError)
        assert " to 127.0.0.1:" in str(sent.error)
        assert "is not followed; give the URL it leads to" in str(sent.error)
        assert len(receiver.seen) == 1
        assert other.seen == []


@pytest.mark.parametrize(
    "location", ["", "/login", "http://[", f"https://user:{TOKEN}@other.example/{PASSWORD}", "//x/y"]
)
def test_a_redirect_anywhere_is_told_without_what_it_holds(location: str) -> None:
    with receiving(answer(302, Location=location)) as receiver:
        assert isinstance(Sent(receiver.url + PATH).error, UsageError)
        assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b"\n  endpoint\tis \x1b[31m inactive \r\nmore", "answers 400 Bad Request: endpoint is [31m inactive; "),
        (401, b"", "answers 401 Unauthorized; check the URL and the token"),
        (
            403,
            b'{"code": 403,\n "message": "no rights"}',
            'answers 403 Forbidden: {"code": 403, "message": "no rights"};',
        ),
        (404, f"Cannot POST {PATH}".encode(), "answers 404 Not Found: Cannot POST …?…; "),
        (404, b"Cannot POST \\/hooks\\/T0AB\\/S3CR3TPATH", "answers 404 Not Found: Cannot POST "),
        (401, f"the token Bearer {TOKEN} is old".encode(), "answers 401 Unauthorized: the token Bearer … is old; "),
        (400, f"key {KEY} or q/uery-k3y?".encode(), "answers 400 Bad Request: key … or …?; "),
        (400, b"no route /hooks/T0AB%2Fs3cr3tPath", "answers 400 Bad Request: no route "),
        (413, b"x" * 100_000, f"answers 413 Request Entity Too Large: {'x' * 199}…; "),
        (422, b"\xff\xfe \x00", "answers 422 Unprocessable Entity: "),
        (499, b"?", "answers 499: ?; "),
        (400, b"[" * 4000, "answers 400 Bad Request: [[["),
    ],
)
def test_a_refusal_fails_at_once(status: int, body: bytes, message: str, clock: Clock) -> None:
    with receiving(answer(status, body)) as receiver:
        sent = Sent(receiver.url + PATH)
        assert isinstance(sent.error, UsageError)
        assert message in str(sent.error)
        assert str(sent.error).startswith("notify_url: the receiver answers ")
        assert str(sent.error).endswith(f"check the URL and the token ({receiver.url})")
        assert str(sent.error).isprintable()
        assert len(receiver.seen) == 1
    assert clock.pauses == []


def test_a_refusal_that_breaks_off_is_one_all_the_same() -> None:
    with receiving(dies(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\n")) as receiver:
        sent = Sent(receiver.url + PATH)
        assert str(sent.error).startswith("notify_url: the receiver answers 403 Forbidden; check")
        assert len(receiver.seen) == 1


# The token's way --------------------------------------------------------------------------------------------------

INSIDE = (
    "http://localhost:8080", "http://127.0.0.1", "http://127.1.2.3", "http://[::1]:9", "http://broker-ingress",
    "http://broker-ingress.knative-eventing.svc.cluster.local/ns/default", "http://hook.argo-events.svc:12000/drift",
    "http://hook.argo-events.svc.:12000/drift", "HTTP://Hook.Argo-Events.SVC/drift",
)  # fmt: skip
OUTSIDE = (
    "http://events.example.org", "http://10.0.0.7", "http://8.8.8.8", "http://134744072", "http://0x08080808",
    "http://0", "http://[2001:db8::1]", "http://svc.example.org", "http://evilsvc.org", "http://hook.argo-events",
    "http://cluster.local.example.org", "http://169.254.169.254",
)  # fmt: skip


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What would go out as the header, without a network."""
    headers: list[str | None] = []

    def post(url: str, body: bytes, authorization: Secret | None, secrets: list[str]) -> Any:
        headers.append(authorization.reveal() if authorization else None)
        return sending._Answer(202, "")

    monkeypatch.setattr(sending, "_post", post)
    return headers


@pytest.mark.parametrize("url", [*INSIDE, "https://events.example.org/x", "https://10.0.0.7"])
def test_a_token_goes_by_https_or_stays_inside(url: str, posted: list[str | None]) -> None:
    assert Sent(url).status == 202
    assert posted == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("url", OUTSIDE)
def test_a_token_never_goes_out_in_the_clear(url: str, posted: list[str | None]) -> None:
    sent = Sent(url)
    assert isinstance(sent.error, UsageError)
    assert str(sent.error).startswith("notify_url: http would show the token to all on the way; give https://")
    assert posted == []
    assert Sent(url, None).status == 202
    assert posted == [None]


@pytest.mark.parametrize("token", ["", "  \n", "Bearer ", "two\nlines", "naïve", "a\x00b", "a\r\nX-Other: b"])
def test_a_token_that_is_none(token: str, posted: list[str | None]) -> None:
    sent = Sent("https://events.example.org/x", token)
    assert str(sent.error).startswith("DRIFTLINE_NOTIFY_TOKEN: expected a token on one line, got ")
    assert posted == []


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"Bearer {TOKEN}", f"  Bearer {TOKEN} "])
def test_a_token_as_secrets_hold_it(token: str, posted: list[str | None]) -> None:
    assert Sent("https://events.example.org/x", token).status == 202
    assert posted == [f"Bearer {TOKEN}"]


def test_a_proxy_of_the_environment_is_not_asked_for_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert Sent(receiver.url + PATH).status == 202
        assert (len(receiver.seen), proxy.seen) == (1, [])
        assert Sent(f"http://events.example.org{PATH}", None).status == 202
        assert [seen.target for seen in proxy.seen] == [f"http://events.example.org{PATH}"]


# TLS --------------------------------------------------------------------------------------------------------------


def test_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    certificate = authority(tmp_path / "known", "receiver")
    other, _ = authority(tmp_path / "other", "somebody else")
    with receiving(answer(503), answer(202), certificate=certificate) as receiver:
        for bundle in (None, other):
            if bundle is not None:
                monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
            sent = Sent(receiver.url + PATH)
            assert isinstance(sent.error, UsageError)
            assert str(sent.error).startswith("notify_url: the certificate is not trusted (")
            assert clock.pauses == []
        assert receiver.seen == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        assert Sent(receiver.url + PATH).status == 202
        assert [seen.headers["Authorization"] for seen in receiver.seen] == [f"Bearer {TOKEN}"] * 2
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    sent = Sent(receiver.url + PATH)
    assert str(sent.error).startswith("notify_url: nothing can be sent (Could not find a suitable TLS CA certificate")


def test_a_receiver_that_speaks_no_tls_is_one_that_is_away(clock: Clock) -> None:
    with receiving() as receiver:
        sent = Sent(receiver.url.replace("http:", "https:") + PATH)
        assert isinstance(sent.error, NotSentError)
        assert str(sent.error).startswith("notify_url: no answer (")
        assert receiver.seen == []
    assert len(clock.pauses) > 5
