"""Maximum Mean Discrepancy: the two-sample test, the drift result and its report.

>>> from driftline.components.mmd import two_sample_test
"""

from driftline.components.mmd.two_sample import TestResult, two_sample_test

__all__ = ["TestResult", "two_sample_test"]
