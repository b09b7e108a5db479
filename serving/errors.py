"""What goes wrong while serving, apart from wrong input (:mod:`driftline.components.errors`).

DriftlineError
├── PoisonError       a record or a request that can never be processed, however often it is tried
├── OverloadError     there is no room now; try again later
├── DeadlineError     the answer would have come too late
└── UnavailableError  something that is needed, the broker say, does not answer now
"""

from __future__ import annotations

from driftline.components.errors import DriftlineError


class PoisonError(DriftlineError):
    """A record that can never be processed; a dead letter.

    Attributes:
        reason: a short code for metrics and headers, of lower-case letters and hyphens, such as ``not-json``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class OverloadError(DriftlineError):
    """A queue is full.

    Attributes:
        retry_after_s: seconds after which there is likely to be room.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(DriftlineError):
    """The time that a request gave has passed before its answer was there."""


class UnavailableError(DriftlineError):
    """Something that is needed does not answer now."""
