"""What this machine computes with."""

from __future__ import annotations

import functools
from pathlib import Path

import torch


def best_device() -> torch.device:
    """Return the device that a model is loaded on where none is named: as sentence-transformers chooses."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


@functools.cache
def cpu_threads() -> int:
    """Return the threads that PyTorch takes by itself; remembered, since an encoder's own threads change the answer."""
    return torch.get_num_threads()


def settled_precision(precision: str, device: torch.device) -> str:
    """Return the number type that a precision means on a device: auto is float32 on a CPU, float16 elsewhere."""
    if precision != "auto":
        return precision
    return "float32" if device.type == "cpu" else "float16"


def device_name(device: torch.device) -> str:
    """Return a name that machines with the same tuning share: of a GPU, or of the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    name = "CPU"
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {cpu_threads()} threads"
