"""Logins to Kubeflow Pipelines: nobody, a bearer token, a pod's own token, cookies, or Identity-Aware Proxy.

Tokens and cookies come from environment variables and files, never from a command line, which other users of a machine
can read. What may have been replaced meanwhile, a file's content, is read anew for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from driftline.components.errors import UsageError, one_line
from driftline.components.secret import Secret

TOKEN: Final = "DRIFTLINE_KFP_TOKEN"
COOKIES: Final = "DRIFTLINE_KFP_COOKIES"
POD_TOKEN_PATH: Final = "KF_PIPELINES_SA_TOKEN_PATH"
DEFAULT_POD_TOKEN: Final = "/var/run/secrets/kubeflow/pipelines/token"
AUDIENCE: Final = "pipelines.kubeflow.org"


class Login(Protocol):
    """The headers that identify the user in each request."""

    @property
    def words(self) -> str:
        """A description for messages; never the secret."""
        ...

    def headers(self) -> Mapping[str, Secret]:
        """Return the headers, as of now.

        Raises:
            UsageError: a file cannot be read, or no token can be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoLogin:
    """Nobody: a cluster's inside where no one has to log in, or a forwarded port."""

    words: str = "no login was given"

    def headers(self) -> Mapping[str, Secret]:
        """Return none."""
        return {}


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, given as it is."""

    token: Secret
    words: str = f"the token is that of {TOKEN}"

    def headers(self) -> Mapping[str, Secret]:
        """Return the token."""
        return _bearer(self.token.reveal(), TOKEN)


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A bearer token in a file, where something replaces it before it expires.

    Attributes:
        path: the file.
        option: how the user named it, for messages.
    """

    path: str
    option: str = "token-file"

    @property
    def words(self) -> str:
        """The file's name."""
        return f"the token is that of {self.path}"

    def headers(self) -> Mapping[str, Secret]:
        """Return the file's token."""
        what = f"{self.option} {self.path}"
        return _bearer(_read(self.path, what, "a token"), what)


@dataclass(frozen=True, slots=True)
class PodToken:
    """The token that Kubernetes projects into a pod for the API server's audience."""

    path: str

    @property
    def words(self) -> str:
        """The file's name, and what the token must be for."""
        return f"the token is the pod's, {self.path}, which must be for the audience {AUDIENCE}"

    def headers(self) -> Mapping[str, Secret]:
        """Return the file's token."""
        what = f"{POD_TOKEN_PATH} {self.path}"
        return _bearer(_read(self.path, what, "the pod's projected token"), what)


@dataclass(frozen=True, slots=True)
class Cookies:
    """The cookies that a gateway gave a browser: ``authservice_session=…`` or ``oauth2-proxy-kubeflow=…``."""

    cookies: Secret
    words: str = f"the cookies are those of {COOKIES}"

    def headers(self) -> Mapping[str, Secret]:
        """Return the cookies."""
        return _cookies(self.cookies.reveal(), COOKIES)


@dataclass(frozen=True, slots=True)
class CookiesFile:
    """A browser's cookies, in a file."""

    path: str

    @property
    def words(self) -> str:
        """The file's name."""
        return f"the cookies are those of {self.path}"

    def headers(self) -> Mapping[str, Secret]:
        """Return the file's cookies."""
        what = f"cookies-file {self.path}"
        return _cookies(_read(self.path, what, "cookies"), what)


class IdentityAwareProxy:
    """Google's Identity-Aware Proxy: an OpenID token of the default credentials for the proxy's OAuth client."""

    def __init__(self, client_id: str) -> None:
        """Ask for nothing yet.

        Args:
            client_id: the proxy's OAuth client, ``….apps.googleusercontent.com``.
        """
        self._client_id = client_id
        self._credentials: Any = None

    @property
    def words(self) -> str:
        """The client."""
        return f"the token is one for the Identity-Aware Proxy's client {self._client_id}"

    def headers(self) -> Mapping[str, Secret]:
        """Return a token that is valid now; Google's last an hour."""
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
        from google.oauth2.id_token import fetch_id_token_credentials

        try:
            if self._credentials is None:
                self._credentials = fetch_id_token_credentials(self._client_id, request=Request())
            if not self._credentials.valid:
                self._credentials.refresh(Request())
        except GoogleAuthError as error:
            reason = one_line(error)
            raise UsageError(
                f"iap-client-id {self._client_id}: Google gives no token for it ({reason}); use a service account's "
                "default credentials"
            ) from error
        return _bearer(str(self._credentials.token), "Google")


def choose_login(
    environment: Mapping[str, str], *, token_file: str = "", cookies_file: str = "", iap_client_id: str = ""
) -> Login:
    """Return the one login that is given; a pod's own token where none is, and there is one.

    Args:
        environment: the process's variables.
        token_file: file that holds a bearer token.
        cookies_file: file that holds a browser's cookies.
        iap_client_id: OAuth client of the Identity-Aware Proxy.

    Raises:
        UsageError: more than one is given.
    """
    given: dict[str, Login] = {}
    if token_file:
        given["token-file"] = TokenFile(token_file)
    elif environment.get(TOKEN):
        given[TOKEN] = Token(Secret(environment[TOKEN]))
    if cookies_file:
        given["cookies-file"] = CookiesFile(cookies_file)
    elif environment.get(COOKIES):
        given[COOKIES] = Cookies(Secret(environment[COOKIES]))
    if iap_client_id:
        given["iap-client-id"] = IdentityAwareProxy(iap_client_id)
    if len(given) > 1:
        raise UsageError(f"login: expected one, got {' and '.join(given)}; leave all but one out")
    for login in given.values():
        return login
    pod = environment.get(POD_TOKEN_PATH) or DEFAULT_POD_TOKEN
    if environment.get(POD_TOKEN_PATH) or Path(pod).is_file():
        return PodToken(pod)
    return NoLogin()


def _read(path: str, what: str, content: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is not plain text"
        raise UsageError(f"{what}: {reason}; name a file that holds {content}") from error


def _bearer(token: str, what: str) -> Mapping[str, Secret]:
    return {"Authorization": Secret(f"Bearer {_header(token.removeprefix('Bearer ').strip(), what, 'a token')}")}


def _cookies(cookies: str, what: str) -> Mapping[str, Secret]:
    cookies = _header(cookies.strip().removeprefix("Cookie:").strip(), what, "cookies")
    if "=" not in cookies:
        raise UsageError(f"{what}: expected cookies as NAME=VALUE; NAME=VALUE, as the browser sends them")
    return {"Cookie": Secret(cookies)}


def _header(value: str, what: str, content: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise UsageError(f"{what}: expected {content} on one line, got {'more than that' if value else 'nothing'}")
    return value
