"""Maximum Mean Discrepancy: the two-sample test, the online detector, the drift result and its report.

>>> from driftline.components.mmd import two_sample_test
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.components.mmd.two_sample import TestResult, two_sample_test

__all__ = ["TestResult", "two_sample_test"]


def __getattr__(name: str) -> Any:
    """Load the test, and with it JAX, when it is asked for: a process that serves the online detector needs neither."""
    if name in __all__:
        from driftline.components.mmd import two_sample

        return getattr(two_sample, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
