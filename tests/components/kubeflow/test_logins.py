"""Who asks: each way to log in, what is wrong with it, and that no secret shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from driftline.components.errors import UsageError
from driftline.components.kubeflow import logins
from driftline.components.kubeflow.logins import Login, choose_login
from tests.support.http_server import TestServer, serving

SECRET = "s3cret-value"


def sent(login: Login) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in login.headers().items()}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a secret; no pod's token lies on this machine."""
    monkeypatch.setattr(logins, "DEFAULT_POD_TOKEN", str(tmp_path / "none"))
    place = tmp_path / "secret"
    place.write_text(f"{SECRET}\n", encoding="ascii")
    return place


def test_nobody(path: Path) -> None:
    assert sent(choose_login({})) == {}


@pytest.mark.parametrize("of", ["variable", "file", "pod", "pod by default"])
def test_a_token(path: Path, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if of == "pod by default":
        monkeypatch.setattr(logins, "DEFAULT_POD_TOKEN", str(path))
    login = {
        "variable": lambda: choose_login({"DRIFTLINE_KFP_TOKEN": SECRET}),
        "file": lambda: choose_login({}, token_file=str(path)),
        "pod": lambda: choose_login({"KF_PIPELINES_SA_TOKEN_PATH": str(path)}),
        "pod by default": lambda: choose_login({}),
    }[of]()
    assert sent(login) == {"Authorization": f"Bearer {SECRET}"}
    path.write_text("replaced", encoding="ascii")  # such tokens last an hour
    assert sent(login) == {"Authorization": f"Bearer {SECRET if of == 'variable' else 'replaced'}"}


@pytest.mark.parametrize("text", ["a=1; b=2", "Cookie: a=1; b=2\n"])
def test_cookies(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
    assert sent(choose_login({}, cookies_file=str(path))) == {"Cookie": "a=1; b=2"}
    assert sent(choose_login({"DRIFTLINE_KFP_COOKIES": text})) == {"Cookie": "a=1; b=2"}


def test_a_login_that_is_given_comes_before_the_pods_and_a_file_before_a_variable(path: Path) -> None:
    environment = {"KF_PIPELINES_SA_TOKEN_PATH": "/none", "DRIFTLINE_KFP_TOKEN": "other"}
    assert sent(choose_login(environment, token_file=str(path))) == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("login", "message"),
    [
        (lambda path: choose_login({}, token_file="/none/at/all"), r"^token-file /none/at/all: No such file"),
        (
            lambda path: choose_login({"KF_PIPELINES_SA_TOKEN_PATH": "/none"}),
            r"^KF_PIPELINES_SA_TOKEN_PATH /none: No s",
        ),
        (lambda path: choose_login({}, cookies_file=str(path)), "expected cookies as NAME=VALUE"),
        (
            lambda path: choose_login({"DRIFTLINE_KFP_TOKEN": "a\nb"}),
            "expected a token on one line, got more than that",
        ),
        (lambda path: choose_login({"DRIFTLINE_KFP_TOKEN": "Bearer "}), "expected a token on one line, got nothing"),
        (
            lambda path: choose_login({"DRIFTLINE_KFP_TOKEN": SECRET}, cookies_file=str(path)),
            "login: expected one, got DRIFTLINE_KFP_TOKEN and cookies-file; leave all but one out",
        ),
    ],
)
def test_what_is_wrong_is_one_line_without_the_secret(path: Path, login: Callable[[Path], Login], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sent(login(path))
    assert SECRET not in str(caught.value)


def test_no_secret_shows(path: Path) -> None:
    for login in (
        choose_login({"DRIFTLINE_KFP_TOKEN": SECRET}),
        choose_login({}, token_file=str(path)),
        choose_login({"DRIFTLINE_KFP_COOKIES": f"a={SECRET}"}),
    ):
        assert SECRET not in repr(login) + str(login) + login.words + repr(login.headers())


class Google(BaseHTTPRequestHandler):
    """Google's token endpoint: an OpenID token for the audience that the signed request asks for."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        payload = asked["assertion"][0].split(".")[1]
        token = f"{payload}.{payload}.signed"
        body = json.dumps({"id_token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_identity_aware_proxy(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "private_key": key.decode(), "client_email": "me@p.iam.gserviceaccount.com"}
    credentials = tmp_path / "credentials.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    login = choose_login({}, iap_client_id="c.apps.googleusercontent.com")
    credentials.write_text("{}", encoding="utf-8")
    with pytest.raises(
        UsageError, match=r"^iap-client-id c\.apps\.googleusercontent\.com: Google gives no token for it"
    ):
        login.headers()
    with serving(TestServer(Google)) as url:
        credentials.write_text(json.dumps({**account, "token_uri": url}), encoding="utf-8")
        first, second = sent(login), sent(login)
    assert first == second, "a token is used until it expires"
    assert first["Authorization"].startswith("Bearer ey")
    assert first["Authorization"].endswith(".signed")
