"""Requests to Kubeflow Pipelines as values: sent over HTTP, or only shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError
from urllib3.util import Retry

from driftline.components.errors import UsageError
from driftline.components.kubeflow.logins import Login, NoLogin
from driftline.components.kubeflow.refusals import KubeflowError, is_page, refusal

API: Final = "/apis/v2beta1/"
CONNECT_S: Final = 10.0  # seconds until the host takes the connection: a gateway far away does in one
ANSWER_S: Final = 60.0  # seconds between two bytes of an answer: an upload is parsed, and a list of runs read, in some
READ_ATTEMPTS: Final = 4  # of a GET that finds no answer, or a server that restarts
_PAUSE_S: Final = 0.3  # before a second try; doubled each time
_RESTARTING: Final = (429, 502, 503, 504)
_REFUSED_BYTES: Final = 100_000  # of a refusal: a page, or a Go stack

_MADE: Final = re.compile("%3C(\\w+_id)%3E")  # in a URL, what stands for the id of something that would be made

Method = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked of the API.

    Attributes:
        method: the HTTP method.
        path: below ``/apis/v2beta1/``.
        query: what follows the question mark.
        body: a JSON object; None for none.
        file: name and content of a file to upload, in place of a body.
        makes: the key under which the answer has the id of what was made; empty where nothing is.
    """

    method: Method
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Mapping[str, Any] | None = None
    file: tuple[str, bytes] | None = None
    makes: str = ""

    @property
    def target(self) -> str:
        """The path with its query, as sent."""
        return API + self.path + (f"?{urlencode(self.query, quote_via=quote)}" if self.query else "")


class Sender(Protocol):
    """Asks, and returns the JSON object that comes back."""

    def send(self, request: Request) -> dict[str, Any]:
        """Ask.

        Raises:
            RefusedError: it is refused, and whoever asks can put that right.
            KubeflowError: there is no answer, or the server fails.
        """
        ...


class Connection:
    """Asks over HTTP. A GET is tried again where no answer comes; nothing else is, since it may have been done.

    Certificates are checked against the system's, or REQUESTS_CA_BUNDLE's; proxies are those of the environment.
    Redirects are not followed: the login would go along, and the API has none.
    """

    def __init__(
        self, host: str, login: Login | None = None, *, answer_s: float = ANSWER_S, attempts: int = READ_ATTEMPTS
    ) -> None:
        """Ask for nothing yet.

        Args:
            host: where the API is: ``http://`` or ``https://``, a host and, behind a gateway, a path.
            login: who asks; None for nobody.
            answer_s: seconds between two bytes of an answer.
            attempts: of a GET.

        Raises:
            UsageError: the host is not one, or holds a login.
        """
        self.host = checked_host(host)
        self.login: Login = login or NoLogin()
        self._answer_s = answer_s
        self._session = requests.Session()
        retries = Retry(
            total=attempts - 1,
            backoff_factor=_PAUSE_S,
            status_forcelist=_RESTARTING,
            allowed_methods={"GET"},
            raise_on_status=False,
        )
        once = Retry(total=0, raise_on_status=False)
        self._adapters = {True: HTTPAdapter(max_retries=retries), False: HTTPAdapter(max_retries=once)}

    def below(self, path: str) -> Connection:
        """Return the connection to the same host's API below a path."""
        other = Connection(self.host + path, self.login, answer_s=self._answer_s)
        other._adapters = self._adapters
        return other

    def send(self, request: Request) -> dict[str, Any]:
        """Ask; see :class:`Sender`."""
        url = self.host + API + request.path
        asked = f"{request.method} {url}"
        adapter = self._adapters[request.method == "GET"]
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        try:
            with self._session.request(
                request.method,
                self.host + request.target,
                json=request.body,
                files=None if request.file is None else {"uploadfile": request.file},
                headers={"Accept": "application/json"},
                auth=_Headers(self.login),
                timeout=(CONNECT_S, self._answer_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = response.content if response.ok else next(response.iter_content(_REFUSED_BYTES), b"")
                status, location = response.status_code, response.headers.get("Location", "")
        except requests.exceptions.SSLError as error:
            why = no_answer(error, self._answer_s)
            raise KubeflowError(
                f"{self.host}: its certificate is not trusted ({why}); set REQUESTS_CA_BUNDLE to the file of your "
                "authority's certificates"
            ) from error
        except (requests.exceptions.RequestException, OSError) as error:
            why = no_answer(error, self._answer_s)
            raise KubeflowError(
                f"{self.host}: gives no answer ({why}); check the host, the network, and that the API server runs"
            ) from error
        if status != HTTPStatus.OK or is_page(content):
            raise refusal(asked, status, content, location=location, login=self.login.words)
        try:
            answer = json.loads(content or b"{}")
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise KubeflowError(f"{asked}: expected a JSON object, got something else; check the host", status)
        return cast("dict[str, Any]", answer)


class DryRun:
    """Asks what changes nothing, and shows the rest instead of sending it.

    What would be made is answered with a name in the place of its id.
    """

    def __init__(self, sender: Sender, show: Callable[[str], None]) -> None:
        """Take what really asks.

        Args:
            sender: asks.
            show: is given a line of what would be sent.
        """
        self._sender = sender
        self._show = show

    def send(self, request: Request) -> dict[str, Any]:
        """Ask, or show; see :class:`Sender`."""
        if request.method == "GET":
            # Of what would be made there is nothing yet.
            return {} if _MADE.search(request.target) else self._sender.send(request)
        self._show(f"{request.method} " + _MADE.sub(r"<\1>", request.target))
        if request.file is not None:
            name, content = request.file
            self._show(f"  uploadfile: {name}, {len(content)} bytes")
        if request.body is not None:
            self._show("  " + json.dumps(request.body, ensure_ascii=False))
        return {**(request.body or request.query), request.makes: f"<{request.makes}>"} if request.makes else {}


def checked_host(host: str) -> str:
    """Return a host's address without the slash at its end, or that of the UI's page, or of the API below it.

    Raises:
        UsageError: it is no address, or holds a login.
    """
    address = host.strip().partition("#")[0].rstrip("/").removesuffix(API.rstrip("/"))
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"host: expected http:// or https:// and a host, got {host!r}")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"host {parts.hostname}: holds a login, which shows in lists of processes; give a token")
    if parts.query:
        raise UsageError(f"host {parts.hostname}: expected no question mark, got {parts.query!r} after one")
    return address


class _Headers(AuthBase):
    """Puts the login's headers in; without one, requests would look into ~/.netrc for one."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        for name, secret in self._login.headers().items():
            r.headers[name] = secret.reveal()
        return r


def no_answer(error: BaseException, answer_s: float) -> str:
    """Return why no answer came: the innermost cause of what requests raises, without the URL, which may hold secrets.

    Args:
        error: what was raised.
        answer_s: seconds of silence after which the answer was given up.
    """
    cause: BaseException | None = error
    innermost = error
    while cause is not None:
        if isinstance(cause, ReadTimeoutError):
            return f"it took the request and was silent for {answer_s:g} s"
        if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            return f"no connection within {CONNECT_S:g} s"
        innermost, cause = cause, _inner(cause)
    text = getattr(innermost, "strerror", None) or str(innermost).rpartition(": ")[2]
    return " ".join(str(text).split()) or type(innermost).__name__


def _inner(error: BaseException) -> BaseException | None:
    """Return what an error wraps: requests' have urllib3's as an argument, and these the socket's as a reason."""
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        if isinstance(inner, BaseException) and inner is not error:
            return inner
    return None
