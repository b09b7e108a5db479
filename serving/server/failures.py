"""Failures as a caller sees them: one status for each kind of error, in every protocol.

The statuses are chosen for a KafkaSource, too: 429 and 5xx are tried again, 400, 413, 415 and 422 go to its dead-letter
sink at once, since the same request would fail again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import grpc

from driftline.components.errors import DriftlineError, InputError
from driftline.serving.errors import DeadlineError, OverloadError, PoisonError, UnavailableError

LOGGER: Final = logging.getLogger(__name__)

CLIENT_GONE: Final = 499  # nobody sees it but the metrics

_RETRY_UNAVAILABLE_S: Final = 2.0  # a pod that loads or drains is out of the load balancer's sight by then
# Reasons of PoisonError for bodies that are not of the protocol's form; others are about what a well-formed one says.
_MALFORMED: Final = frozenset(
    ("not-json", "encoding", "not-an-object", "not-a-cloudevent", "cloudevent-data", "key-encoding")
)

_GRPC: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class RequestError(DriftlineError):
    """A request that the server refuses.

    Attributes:
        status: the HTTP status that says so.
        parameter: the part of the request that is wrong, as OpenAI's error object names it; empty for all of it.
        code: OpenAI's short code; empty for none.
    """

    def __init__(self, status: int, message: str, *, parameter: str = "", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.parameter = parameter
        self.code = code


class ClientGoneError(DriftlineError):
    """The client went away before its answer was there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed request's answer.

    Attributes:
        status: HTTP status.
        message: one line.
        retry_after_s: seconds to wait before another try; 0 where trying again is of no use or as good at once.
        parameter: see :class:`RequestError`.
        code: see :class:`RequestError`.
    """

    status: int
    message: str
    retry_after_s: float = 0.0
    parameter: str = ""
    code: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that go with it."""
        return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))} if self.retry_after_s else {}

    @property
    def grpc_status(self) -> grpc.StatusCode:
        """The same in gRPC."""
        return _GRPC.get(self.status, grpc.StatusCode.INTERNAL)


def failure_of(error: Exception) -> Failure:
    """Return a failed request's answer; an error that nobody expected is logged, and named in general terms only."""
    message = str(error).encode("utf-8", "replace").decode()  # half surrogate pairs in a name are no UTF-8
    match error:
        case RequestError():
            return Failure(error.status, message, parameter=error.parameter, code=error.code)
        case PoisonError():
            status = HTTPStatus.BAD_REQUEST if error.reason in _MALFORMED else HTTPStatus.UNPROCESSABLE_ENTITY
            return Failure(status, message, code=error.reason)
        case OverloadError():
            return Failure(HTTPStatus.TOO_MANY_REQUESTS, message, max(error.retry_after_s, 0.001), code="overload")
        case DeadlineError():
            return Failure(HTTPStatus.GATEWAY_TIMEOUT, message, code="deadline")
        case UnavailableError():
            return Failure(HTTPStatus.SERVICE_UNAVAILABLE, message, _RETRY_UNAVAILABLE_S, code="unavailable")
        case ClientGoneError():
            return Failure(CLIENT_GONE, message)
        case InputError():
            return Failure(HTTPStatus.UNPROCESSABLE_ENTITY, message)
        case _:
            LOGGER.error("a request failed unexpectedly", exc_info=error)
            return Failure(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log says more")
