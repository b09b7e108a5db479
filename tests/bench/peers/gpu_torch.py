"""PyTorch tiles: the statistic by blocks of the kernel matrix, the upper half of them, TF32 allowed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from worker import Array, Case, serve

# In this environment or the peers'.
torch: Any = importlib.import_module("torch")
TILE = 16384


def kernel_sum(a: Any, b: Any, gamma: float, symmetric: bool) -> float:
    """Return the sum of the kernel matrix of a and b; of a with itself, by the upper half of the tiles."""
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    a_norms, b_norms = (-gamma * (v * v).sum(1) for v in (a, b))
    for i in range(0, len(a), TILE):
        for j in range(i if symmetric else 0, len(b), TILE):
            exponents = torch.addmm(b_norms[None, j : j + TILE], a[i : i + TILE], b[j : j + TILE].T, alpha=2 * gamma)
            tile = exponents.add_(a_norms[i : i + TILE, None]).clamp_(max=0).exp_().sum(1).double().sum()
            total += 2 * tile if symmetric and j > i else tile
    return float(total)


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Compute MMD²_u."""
    on_gpu = torch.cuda.is_available()
    torch.set_float32_matmul_precision("high")
    n, gamma = case.rows, case.gamma
    with torch.inference_mode():
        a, b = (torch.from_numpy(v).to("cuda" if on_gpu else "cpu") for v in (x, y))
        within = kernel_sum(a, a, gamma, True) - n + kernel_sum(b, b, gamma, True) - n
        statistic = within / (n * (n - 1)) - 2 * kernel_sum(a, b, gamma, False) / n**2
    peak = {"device_memory_mb": torch.cuda.max_memory_allocated() / 2**20} if on_gpu else {}
    return {"statistic": statistic, **peak}


if __name__ == "__main__":
    serve(run)
