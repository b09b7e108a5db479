"""KeOps: Gaussian sums by symbolic matrices, and the test by its product with a panel of labellings.

At its best on a CPU: float32, vectors scaled beforehand rather than distances, differences rather than inner products
(three times as slow there or more), and labellings 64 at a time (one formula of all 501 is slower). The benchmark
chooses the compiler's flags. Sums over rows are added in float64.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

from worker import Array, Case, serve

# In the peers' environment only.
torch: Any = importlib.import_module("torch")
LazyTensor: Any = importlib.import_module("pykeops.torch").LazyTensor
PANEL = 64


def gram(a: Any, b: Any) -> Any:
    """Return the symbolic kernel matrix exp(−‖a_i − b_j‖²)."""
    return (-((LazyTensor(a[:, None, :]) - LazyTensor(b[None, :, :])) ** 2).sum(-1)).exp()


def run(case: Case, x: Array, y: Array) -> Mapping[str, float]:
    """Compute MMD²_u by three sums, or all permuted sums by products with the pooled kernel matrix."""
    n = case.rows
    scale = math.sqrt(case.gamma)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x_scaled, y_scaled = (torch.from_numpy(v).to(device) * scale for v in (x, y))

    def total(a: Any, b: Any) -> float:
        return float(gram(a, b).sum(1).double().sum())

    if not case.permutations:
        within = total(x_scaled, x_scaled) - n + total(y_scaled, y_scaled) - n
        statistic = within / (n * (n - 1)) - 2 * total(x_scaled, y_scaled) / n**2
        return {"statistic": statistic, **device_memory()}
    pooled = torch.cat([x_scaled, y_scaled])
    generator = torch.Generator(device).manual_seed(0)
    observed = (torch.arange(2 * n, device=device) < n).float()
    shuffles = (torch.randperm(2 * n, generator=generator, device=device) for _ in range(case.permutations))
    labellings = [observed, *(observed[shuffle] for shuffle in shuffles)]
    # Row sums are the product with a column of ones.
    columns = torch.stack([torch.ones(2 * n, device=device), *labellings], dim=1)
    products: list[Any] = []
    for start in range(0, columns.shape[1], PANEL):
        panel = columns[:, start : start + PANEL]
        # A last, narrower panel would be compiled apart.
        padded = torch.nn.functional.pad(panel, (0, PANEL - panel.shape[1])).contiguous()
        products.append((gram(pooled, pooled) @ padded)[:, : panel.shape[1]])
    sums = torch.cat(products, dim=1).double() - columns.double()  # without the diagonal, which is 1
    rows, panels, labels = sums[:, 0], sums[:, 1:], columns[:, 1:].double()
    a, b, t = (labels * panels).sum(0), labels.T @ rows, rows.sum()
    values = (a + t - 2 * b + a) / (n * (n - 1)) - 2 * (b - a) / n**2
    p_value = float((values[1:] >= values[0]).sum() + 1) / len(values)
    return {"statistic": float(values[0]), "p_value": p_value, **device_memory()}


def device_memory() -> dict[str, float]:
    """Return the peak of the device's memory, on a GPU."""
    return {"device_memory_mb": torch.cuda.max_memory_allocated() / 2**20} if torch.cuda.is_available() else {}


if __name__ == "__main__":
    serve(run)
