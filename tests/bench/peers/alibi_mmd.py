"""alibi-detect: MMDDrift with its PyTorch backend, kernel bandwidth given.

``batch_size_permutations`` is of its KeOps backend alone and is not taken here. Built and asked once: the detector
computes the reference's kernel matrix when it is built, and the rest when it is asked.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from worker import Array, Case, serve

detectors: Any = importlib.import_module("alibi_detect.cd")


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Build the detector on x and ask it about y."""
    began = time.perf_counter()
    sigma = np.array([math.sqrt(0.5 / case.gamma)], np.float32)
    detector = detectors.MMDDrift(
        x, backend="pytorch", n_permutations=case.permutations, sigma=sigma, device="cpu", p_val=0.05
    )
    built = time.perf_counter() - began
    data = detector.predict(y, return_p_val=True, return_distance=True)["data"]
    return {"statistic": float(data["distance"]), "p_value": float(data["p_val"]), "build_seconds": built}


if __name__ == "__main__":
    serve(run)
