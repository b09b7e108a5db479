"""Driftline, by its front door."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from worker import Array, Case, serve

from driftline.components.mmd.two_sample import two_sample_test


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Run the test; for the statistic alone, with the one permutation that is the fewest it takes."""
    permutations, level = (case.permutations, 0.05) if case.permutations else (1, 0.5)
    if case.search:
        two_sample_test(x, y, kernel="search", method="exact", permutations=permutations, level=level)
        return device_memory()
    result = two_sample_test(
        x, y, kernel="rbf", gamma=case.gamma, method="exact", permutations=permutations, level=level
    )
    return {"statistic": result.statistic, **device_memory()}


def device_memory() -> dict[str, float]:
    """Return the peak of the device's memory, which is known of a GPU only."""
    memory = jax.devices()[0].memory_stats() or {}
    return {"device_memory_mb": memory["peak_bytes_in_use"] / 2**20} if "peak_bytes_in_use" in memory else {}


if __name__ == "__main__":
    serve(run)
