"""Tunings that were measured to be the fastest, by machine, model and precision: a JSON file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from driftline.components.embedding.encoding.encoder import cpu_threads, resolved_precision
from driftline.components.embedding.encoding.settings import Tuning
from driftline.components.errors import UsageError
from driftline.components.storage.objects.store import exists
from driftline.components.storage.objects.values import read_value, write_value

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class MeasuredTuning:
    """The best measurement for one model on one kind of machine.

    Attributes:
        device: name of the processor or GPU, see :func:`device_name`.
        revision: identity of the model's content.
        precision: number type of the forward pass.
        tuning: the fastest.
        texts_per_second: its rate.
        tokens_per_second: its rate, padding not counted.
    """

    device: str
    revision: str
    precision: str
    tuning: Tuning
    texts_per_second: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class EncoderTunings:
    """The tunings of a file, one for each device, model and precision.

    Attributes:
        version: of the format.
        entries: what was measured.
    """

    version: int = VERSION
    entries: tuple[MeasuredTuning, ...] = ()

    def tuning(self, device: str, revision: str, precision: str) -> Tuning | None:
        """Return the tuning measured for this device, model and precision, or None."""
        for entry in self.entries:
            if (entry.device, entry.revision, entry.precision) == (device, revision, precision):
                return entry.tuning
        return None

    def with_entry(self, new: MeasuredTuning) -> EncoderTunings:
        """Return the tunings with one added, in place of the one that it supersedes."""
        key = (new.device, new.revision, new.precision)
        others = [entry for entry in self.entries if (entry.device, entry.revision, entry.precision) != key]
        return dataclasses.replace(self, entries=(*others, new))


def read_tunings(uri: str) -> EncoderTunings:
    """Read tunings; none where there is no file.

    Raises:
        DataError: the file holds no tunings.
        StorageError: it cannot be read.
    """
    return read_value(uri, EncoderTunings) if exists(uri) else EncoderTunings()


def write_tunings(uri: str, tunings: EncoderTunings) -> None:
    """Write tunings, all or none.

    Raises:
        StorageError: it cannot be written.
    """
    write_value(uri, tunings)


def check_tunings(uri: str) -> None:
    """Refuse a file of tunings that is asked for and cannot be read; an empty name is none.

    Raises:
        UsageError: there is no such file.
        DataError: the file holds no tunings.
        StorageError: it cannot be read.
    """
    if uri and not exists(uri):
        raise UsageError(
            f"tunings: there is no file {uri}; give what `driftline bench encode --tunings` wrote, or leave it out"
        )
    if uri:
        read_tunings(uri)


def measured_tuning(uri: str, revision: str, precision: str) -> Tuning:
    """Return what a file of tunings says for this machine, or the defaults where it says nothing.

    Args:
        uri: the file; empty for none.
        revision: identity of the model's content.
        precision: as asked for; auto is what the device's default is.

    Raises:
        DataError: the file holds no tunings.
        StorageError: it cannot be read.
    """
    if not uri:
        return Tuning()
    device = best_device()
    found = read_tunings(uri).tuning(device_name(device), revision, resolved_precision(precision, device))
    return found or Tuning()


def best_device() -> torch.device:
    """Return the device that a model is loaded on where none is named: as sentence-transformers chooses."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


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
