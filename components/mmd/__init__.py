"""Maximum Mean Discrepancy: the two-sample test, the online detector, the drift result and its report.

Two samples of vectors, compared once:

>>> import numpy as np
>>> from driftline.components.mmd import two_sample_test
>>> rng = np.random.default_rng(0)
>>> reference, current = rng.normal(size=(800, 4)), rng.normal(0.5, size=(800, 4))
>>> result = two_sample_test(reference, current)
>>> result.rejected, round(result.auc, 1)
(True, 0.8)

A stream, watched against a reference:

>>> from driftline.components.mmd import OnlineDetector, OnlineSettings, calibrate
>>> detector = OnlineDetector(calibrate(reference, OnlineSettings(window=40, steps=4, ert=1000, features=64)))
>>> bool(detector.update(current[:400]).alarms.any())
True
"""

from typing import TYPE_CHECKING

from driftline.components.public_names import on_demand

if TYPE_CHECKING:
    from driftline.components.mmd.calibration import calibrate
    from driftline.components.mmd.online import Calibration, OnlineDetector, OnlineSettings
    from driftline.components.mmd.two_sample import TestResult, two_sample_test

__all__ = ["Calibration", "OnlineDetector", "OnlineSettings", "TestResult", "calibrate", "two_sample_test"]

# The test needs JAX, a detector alone does not.
_HOMES = {
    "TestResult": "two_sample",
    "two_sample_test": "two_sample",
    "calibrate": "calibration",
    "Calibration": "online",
    "OnlineDetector": "online",
    "OnlineSettings": "online",
}
__getattr__ = on_demand(__name__, _HOMES)
