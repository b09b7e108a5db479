"""What can go wrong between here and Google Cloud Storage: what is tried again, and the one line for what is not."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import requests
import urllib3.exceptions
from google.api_core import exceptions as api_errors
from google.api_core import retry as api_retry
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as storage_errors
from google.cloud.storage.retry import DEFAULT_RETRY

from driftline.components.errors import StorageError, one_line

# A connection that broke, at whichever layer it was noticed. JSONDecodeError: an answer cut short where nothing
# states its length.
_BROKEN = (
    ConnectionError,
    TimeoutError,
    http.client.HTTPException,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.JSONDecodeError,
    urllib3.exceptions.HTTPError,
)
FAILURES = (
    api_errors.GoogleAPIError,
    auth_errors.GoogleAuthError,
    storage_errors.InvalidResponse,
    storage_errors.DataCorruption,
    requests.exceptions.RequestException,
    *_BROKEN,
)
"""Every error that Google's libraries, and what they stand on, raise at a request."""

_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


def status_of(error: BaseException) -> int | None:
    """The HTTP status of a failure, or None where there was no answer."""
    if isinstance(error, api_errors.GoogleAPICallError):
        return None if error.code is None else int(error.code)
    if isinstance(error, storage_errors.InvalidResponse):
        return int(error.response.status_code)
    return None


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may well succeed a little later."""
    if isinstance(error, auth_errors.TransportError):
        return True
    if isinstance(error, auth_errors.GoogleAuthError):
        return bool(getattr(error, "retryable", False))
    status = status_of(error)
    if status is not None:
        return status in _TRY_AGAIN
    return isinstance(error, (*_BROKEN, api_errors.RetryError))


@dataclass(frozen=True, slots=True)
class Retries:
    """How long failed requests are tried again, and how often. Only monotonic clocks are read.

    Attributes:
        deadline_s: Seconds for all attempts at one request together: rides out a minute of throttling or a load
            balancer's restart, and still fails a step while its operator is looking.
        first_delay_s: Seconds before the second attempt, at most: each delay is drawn between none and a bound that
            doubles, so that tasks that failed together do not come back together.
        longest_delay_s: Seconds that no delay exceeds: a store that is back is noticed within them.
    """

    deadline_s: float = 120.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 8.0

    def of_calls(self) -> api_retry.Retry:
        """The same for calls of google-cloud-storage about metadata."""
        return api_retry.Retry(
            predicate=is_transient,
            initial=self.first_delay_s,
            maximum=self.longest_delay_s,
            timeout=self.deadline_s,
        )

    def of_uploads(self) -> api_retry.Retry:
        """The same for google-cloud-storage's uploads, which know themselves what to send again."""
        return DEFAULT_RETRY.with_delay(self.first_delay_s, self.longest_delay_s).with_timeout(self.deadline_s)

    def run(self, attempt: Callable[[], T], stop: threading.Event | None = None) -> T:
        """Call `attempt` until it succeeds, fails for good, the deadline has passed or `stop` is set.

        Raises:
            Exception: What the last attempt raised.
        """
        began = time.monotonic()
        stop = stop or threading.Event()
        delays = iter(api_retry.exponential_sleep_generator(self.first_delay_s, self.longest_delay_s))
        while True:
            try:
                return attempt()
            except FAILURES as error:
                delay = next(delays)
                late = time.monotonic() - began + delay > self.deadline_s
                if late or not is_transient(error) or stop.wait(delay):
                    raise


def failure(uri: str, doing: str, error: BaseException) -> StorageError:
    """Turn a library's error into one clear line."""
    status = status_of(error)
    if isinstance(error, auth_errors.TransportError):
        reason = "Google's token service cannot be reached; check the network"
    elif isinstance(error, auth_errors.GoogleAuthError) or status == 401:
        reason = "no valid Google Cloud credentials; run as a service account (Workload Identity) or set them up"
    elif status == 403:
        reason = "no permission; grant this service account roles/storage.objectUser on the bucket"
    elif status == 404:
        reason = "there is no such object; check the URI, and whether it was replaced or removed meanwhile"
    elif isinstance(error, storage_errors.DataCorruption):
        reason = "the bytes were damaged on their way (their CRC-32C differs); run it again"
    elif status is not None and 400 <= status < 500 and status not in _TRY_AGAIN:
        reason = f"Google Cloud Storage refuses the request ({one_line(error)}); check the URI"
    else:
        reason = f"Google Cloud Storage cannot be reached ({one_line(error)}); check the network and run it again"
    return StorageError(f"{uri}: cannot {doing}: {reason}")


@contextmanager
def reported(uri: str, doing: str) -> Generator[None]:
    """Turn the body's failures into StorageErrors of one line."""
    try:
        yield
    except StorageError:
        raise
    except FAILURES as error:
        raise failure(uri, doing, error) from error
