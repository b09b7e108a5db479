"""How the API is asked, over HTTP: what is sent, tried again and refused, each refusal one line."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from driftline.components.errors import DriftlineError, UsageError
from driftline.components.kubeflow import connection
from driftline.components.kubeflow.client import Kubeflow, connect
from driftline.components.kubeflow.connection import Connection, Request, checked_host
from driftline.components.kubeflow.logins import Token
from driftline.components.kubeflow.refusals import KubeflowError, RefusedError, reason_of
from driftline.components.secret import Secret
from tests.support.http_server import TestServer, serving
from tests.support.kubeflow_double import KubeflowDouble, serving_kubeflow

LOGIN = Token(Secret("s3cret-value"))
PAGE = b"<!DOCTYPE html><html><title>Log in</title></html>"


class Gateway:
    """Answers from a list, the last one for ever.

    Attributes:
        asked: method, path and headers of every request.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def says(self, *answers: tuple[int, bytes] | tuple[int, bytes, dict[str, str]]) -> None:
        self.answers = [(*answer, {})[:3] for answer in answers]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def url(gateway: Gateway) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            gateway.asked.append((self.command, self.path, dict(self.headers)))
            left = gateway.answers
            status, body, headers = left.pop(0) if len(left) > 1 else left[0]
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(TestServer(Handler)) as address:
        yield address


def ask(url: str, method: Any = "GET", **more: Any) -> dict[str, Any]:
    return Connection(url, LOGIN).send(Request(method, "runs", **more))


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (
            (401, b'{"code":16,"message":"Request header error: no user identity"}'),
            RefusedError,
            "answers 401 Unauthorized: Request header error: no user identity; the token is that of "
            "DRIFTLINE_KFP_TOKEN: give one that has not expired",
        ),
        (
            (403, b"Jwt is expired"),
            RefusedError,
            "answers 403 Forbidden: Jwt is expired; the token is that of DRIFTLINE_KFP_TOKEN: check its rights, and "
            "the namespace",
        ),
        (
            (302, b"", {"Location": "https://login.example.com/auth?state=s3cret-value"}),
            RefusedError,
            "answers 302 Found to https://login.example.com/auth; the token is that of DRIFTLINE_KFP_TOKEN: give one "
            "that has not expired, or the address it leads to",
        ),
        (
            (200, PAGE),
            RefusedError,
            "answers 200 with a web page; the token is that of DRIFTLINE_KFP_TOKEN: give one that has not expired, or "
            "check the host",
        ),
        (
            (404, b'{"code":5,"message":"Failed: ResourceNotFoundError: Run x not found"}'),
            RefusedError,
            "Run x not found",
        ),
        (
            (409, b'{"error_message":"Failed to create","error_details":"a\\nb"}'),
            RefusedError,
            "Conflict: Failed to create",
        ),
        ((400, b""), RefusedError, "answers 400 Bad Request: nothing more"),
        ((500, b'{"code":13,"message":"InternalServerError: it broke\\ngoroutine 1"}'), KubeflowError, "it broke"),
        ((499, b"?"), RefusedError, "answers 499: ?"),
        ((501, b'{"code":12,"message":"Method Not Allowed"}'), KubeflowError, "Not Implemented: Method Not Allowed"),
        ((502, PAGE), KubeflowError, "answers 502 with a web page"),
        ((429, b"slow down"), KubeflowError, "Too Many Requests: slow down"),
        ((200, b"[]"), KubeflowError, "expected a JSON object, got something else; check the host"),
        ((200, b"nonsense"), KubeflowError, "expected a JSON object, got something else; check the host"),
    ],
)
def test_a_refusal_is_one_line(
    gateway: Gateway, url: str, answer: tuple[int, bytes], kind: type[DriftlineError], message: str
) -> None:
    gateway.says(answer)
    with pytest.raises(kind) as caught:
        ask(url, "POST", body={})
    text = str(caught.value)
    assert text.startswith(f"POST {url}/apis/v2beta1/runs: ")
    assert message in text
    assert "\n" not in text
    assert "s3cret" not in text


def test_a_get_is_tried_again_and_nothing_else_is(gateway: Gateway, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PAUSE_S", 0.01)
    gateway.says((503, b""), (0, b""), (200, b'{"runs": []}'))
    assert ask(url) == {"runs": []}
    assert len(gateway.asked) == 3
    gateway.says((0, b""), (200, b"{}"))
    with pytest.raises(KubeflowError, match=r"gives no answer \(.*\); check the host, the network"):
        ask(url, "POST", body={})
    assert len(gateway.asked) == 4
    gateway.says((503, b"starting"))
    with pytest.raises(KubeflowError, match="answers 503 Service Unavailable: starting"):
        ask(url)
    assert len(gateway.asked) == 8


def test_the_login_and_the_names_go_along(gateway: Gateway, url: str) -> None:
    gateway.says((200, b"{}"))
    ask(url, query={"filter": '{"a": "b c"}'})
    ((_, path, headers),) = gateway.asked
    assert path == "/apis/v2beta1/runs?filter=%7B%22a%22%3A%20%22b%20c%22%7D"
    assert headers["Authorization"] == "Bearer s3cret-value"


def test_no_login_is_taken_from_netrc(
    gateway: Gateway, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    gateway.says((200, b"{}"))
    Connection(url).send(Request("GET", "runs"))
    ask(url)
    assert [headers.get("Authorization") for _, _, headers in gateway.asked] == [None, "Bearer s3cret-value"]


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(KubeflowError, match="gives no answer \\(Connection refused\\); check the host") as caught:
            Connection(host, attempts=1).send(Request("GET", "runs"))
    assert caught.value.status == 0
    assert not isinstance(caught.value, UsageError)


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(KubeflowError, match=r"\(it took the request and was silent for 0.1 s\)"):
            Connection(host, answer_s=0.1, attempts=1).send(Request("GET", "runs"))


def test_no_certificate() -> None:
    """Plain HTTP where HTTPS was asked for."""
    with serving_kubeflow(KubeflowDouble()) as url, pytest.raises(KubeflowError, match="certificate is not trusted"):
        Connection(url.replace("http:", "https:"), attempts=1).send(Request("GET", "healthz"))


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("http://ml-pipeline:8888/", "http://ml-pipeline:8888"),
        ("https://kf.example.com/pipeline/", "https://kf.example.com/pipeline"),
        ("https://kf.example.com/pipeline/#/runs", "https://kf.example.com/pipeline"),
        ("http://localhost:8080/apis/v2beta1", "http://localhost:8080"),
    ],
)
def test_hosts(given: str, host: str) -> None:
    assert checked_host(given) == host


@pytest.mark.parametrize(
    "given", ["", "kf.example.com", "ftp://kf", "https://", "https://me:s3cret@kf", "http://kf?a=b"]
)
def test_what_is_no_host(given: str) -> None:
    with pytest.raises(UsageError, match=r"^host") as caught:
        checked_host(given)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("under", ["", "/pipeline"])
def test_the_api_is_found_behind_a_gateway(under: str) -> None:
    kubeflow = KubeflowDouble(under=under, release="2.17.0")
    with serving_kubeflow(kubeflow) as url:
        connection, health = connect(url)
        assert connection.host == url + under
        assert connection.send(Request("GET", "runs")) == {}
    assert (health.release, health.multi_user, health.spares_runs) == ("2.17.0", False, True)


@pytest.mark.parametrize(
    ("release", "spares"),
    [("2.16.1", False), ("2.17.0", True), ("2.18.0-rc1", True), ("3.0", True), ("unknown", False), ("", False)],
)
def test_what_a_release_can(release: str, spares: bool) -> None:
    with serving_kubeflow(KubeflowDouble(release=release)) as url:
        assert connect(url)[1].spares_runs is spares


@pytest.mark.parametrize("answer", [(401, b"no"), (302, b"", {"Location": "/dex/auth"}), (200, PAGE), (404, b"none")])
def test_a_host_that_does_not_let_in_is_one_line(gateway: Gateway, url: str, answer: tuple[int, bytes]) -> None:
    gateway.says(answer)
    with pytest.raises(RefusedError) as caught:
        connect(url)
    assert str(caught.value).startswith(f"GET {url}/")
    assert [path for _, path, _ in gateway.asked] == ["/apis/v2beta1/healthz", "/pipeline/apis/v2beta1/healthz"]


def test_another_api_is_named_as_such(gateway: Gateway, url: str) -> None:
    gateway.says((200, b'{"status": "ok"}'))
    with pytest.raises(RefusedError, match="answers, but is not the API of Kubeflow Pipelines; give the host"):
        connect(url)


def test_a_server_that_is_down_is_not_looked_for_elsewhere(gateway: Gateway, url: str) -> None:
    gateway.says((500, b"down"))
    with pytest.raises(KubeflowError, match="answers 500 Internal Server Error: down"):
        connect(url)
    assert len(gateway.asked) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"code":3,"message":"A: B: Invalid input error: level is wrong","details":[]}', "level is wrong"),
        (b'{"code":7,"message":"A: User \'me\' is not authorized"}', "A: User 'me' is not authorized"),
        (b'{"error":"no such place"}', "no such place"),
        (b'{"message":""}', '{"message":""}'),
        (b"\n\nupstream\tdown\n", "upstream down"),
        (b"", "nothing more"),
        (b"\xff", "\ufffd"),
        (b"x" * 1000, "x" * 399 + "…"),
    ],
)
def test_the_reason_of_an_answer(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


class TestSeveralUsers:
    @pytest.fixture
    def asking(self) -> Generator[Callable[[str], Kubeflow]]:
        with serving_kubeflow(KubeflowDouble(namespaces=("team",))) as url:
            yield lambda namespace: Kubeflow(Connection(url), namespace)

    def test_what_is_made_is_found_in_its_namespace(self, asking: Callable[[str], Kubeflow]) -> None:
        kubeflow = asking("team")
        made = kubeflow.create_pipeline("drift", "")
        assert kubeflow.find_pipeline("drift") == made
        assert kubeflow.experiment("e") == kubeflow.find_experiment("e") == kubeflow.experiment("e")
        assert kubeflow.find_pipeline("none") is None

    def test_a_wrong_namespace_is_one_line(self, asking: Callable[[str], Kubeflow]) -> None:
        with pytest.raises(
            RefusedError,
            match=r"answers 403 Forbidden: .*is not authorized.*: check its rights, and the namespace$",
        ):
            asking("other").runs()
