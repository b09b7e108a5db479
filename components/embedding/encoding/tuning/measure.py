"""A model's speed on this machine, by tuning: what `driftline bench encode` prints and remembers."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers.utils import logging as transformers_logging

from driftline.components.embedding.encoding.encoder import Encoder, cpu_threads
from driftline.components.embedding.encoding.forward.engine import DTYPES
from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
from driftline.components.errors import DataError

ROUNDS: Final = 3
"""Every tuning is measured so often, in turn with the others, and the median is kept."""

_CPU_BATCHES: Final = (256, 512, 1024, 2048, 4096)
_GPU_BATCHES: Final = (4096, 16_384, 65_536, 131_072)
_MATRIX_ROWS: Final = 4096
_MATRIX_SECONDS: Final = 0.3

# Lengths of English film reviews in tokens, as quartiles 19, 28 and 37 with a long tail: a log-normal of this median
# and spread, cut at the model's maximum.
_MEDIAN_TOKENS: Final = 28.0
_SPREAD: Final = 0.55


@dataclass(frozen=True, slots=True)
class Measurement:
    """The speed of one tuning.

    Attributes:
        precision: number type of the forward pass.
        tuning: what was set; every value settled.
        texts_per_second: median over the rounds.
        tokens_per_second: median over the rounds, padding not counted.
        matrix_share: of the rate at which this device multiplies matrices of the model's own shapes in this precision:
            what the model's linear layers take of it.
        memory_mb: peak so far, of the process on a CPU, of the device's allocations on a GPU.
    """

    precision: str
    tuning: Tuning
    texts_per_second: float
    tokens_per_second: float
    matrix_share: float
    memory_mb: float


def measure(
    folder: Path,
    name: str,
    settings: EncoderSettings,
    texts: Sequence[str],
    *,
    torch_compile: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Measurement]:
    """Measure a model with one precision by batch size and streams, interleaved.

    Args:
        folder: the model.
        name: what the user called it.
        settings: what decides its vectors, the precision among it.
        texts: what to encode, as many as take a second or more.
        torch_compile: whether to measure it translated by `torch.compile`.
        on_progress: called with how many measurements are done, and of how many.

    Returns:
        The tunings, the fastest first.

    Raises:
        DataError: the model cannot be loaded, or there are no texts.
    """
    if not texts:
        raise DataError("texts: there are none to measure with; give some")
    layers = _linear_layers(folder)
    encoder = Encoder.load(folder, name, settings, tuning=Tuning(compile=torch_compile))
    rate = _matrix_rate(layers, encoder.precision, encoder.device)
    flops = sum(2.0 * rows * columns for rows, columns in layers)
    tunings = _tunings(encoder.device, torch_compile=torch_compile)
    seconds: dict[Tuning, list[float]] = {tuning: [] for tuning in tunings}
    tokens = 0
    for tuning in tunings:  # once unmeasured: threads start, memory is laid out
        encoder.tune(tuning)
        tokens = encoder.encode(texts[: max(1, len(texts) // 8)]).tokens
    for turn in range(ROUNDS):
        for place, tuning in enumerate(tunings):
            encoder.tune(tuning)
            began = time.perf_counter()
            tokens = encoder.encode(texts).tokens
            seconds[tuning].append(time.perf_counter() - began)
            on_progress(turn * len(tunings) + place + 1, ROUNDS * len(tunings))
    memory = _memory_mb(encoder.device)
    found = [
        Measurement(
            precision=encoder.precision,
            tuning=tuning,
            texts_per_second=len(texts) / median,
            tokens_per_second=tokens / median,
            matrix_share=tokens * flops / median / rate if rate else 0.0,
            memory_mb=memory,
        )
        for tuning, median in ((tuning, statistics.median(times)) for tuning, times in seconds.items())
    ]
    return sorted(found, key=lambda one: -one.tokens_per_second)


def drawn_texts(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Return texts of random words whose lengths are spread as those of film reviews are.

    Args:
        folder: the model, whose vocabulary the words are drawn from.
        count: how many.
        seed: of the draw.
    """
    tokenizer: Any = cast("Any", _on_cpu(folder)[0]).tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 2)
    if not words:
        raise DataError("texts: the model's vocabulary has no words to draw from; give texts to measure with")
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(_MEDIAN_TOKENS), _SPREAD, count)).astype(int).clip(1, 2000)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def _tunings(device: str, *, torch_compile: bool) -> list[Tuning]:
    if device != "cpu":
        return [Tuning(tokens, compile=torch_compile) for tokens in _GPU_BATCHES]
    threads = cpu_threads()
    streams = sorted({1, *(2**power for power in range(1, threads.bit_length()) if threads % 2**power == 0), threads})
    splits = [(count, threads) for count in streams]
    if threads >= 4:  # where two threads share a core, half as many may do as much
        splits.append((threads // 2, threads // 2))
    return [Tuning(tokens, count, all_of, torch_compile) for tokens in _CPU_BATCHES for count, all_of in splits]


def _on_cpu(folder: Path) -> SentenceTransformer:
    transformers_logging.disable_progress_bar()
    return SentenceTransformer(
        str(folder),
        device="cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )


def _linear_layers(folder: Path) -> list[tuple[int, int]]:
    """Return the shapes of the transformer's linear layers, (results, inputs) each."""
    transformer: nn.Module | None = getattr(_on_cpu(folder)[0], "auto_model", None)
    modules = [] if transformer is None else transformer.modules()
    # BERT's pooling head is loaded with the model, and never run.
    layers = [module for module in modules if type(module) is nn.Linear]
    pooler = getattr(getattr(transformer, "pooler", None), "dense", None)
    return [(layer.out_features, layer.in_features) for layer in layers if layer is not pooler]


def _matrix_rate(layers: Sequence[tuple[int, int]], precision: str, device: str) -> float:
    """Return the rate of PyTorch's products of the layers' shapes, in floating-point operations a second."""
    if not layers:
        return 0.0
    dtype, place = DTYPES[precision], torch.device(device)
    best = 0.0
    with torch.inference_mode():
        for rows, columns in sorted(set(layers)):
            x = torch.randn(_MATRIX_ROWS, columns, device=place).to(dtype)
            weight = torch.randn(rows, columns, device=place).to(dtype)
            nn.functional.linear(x, weight)
            fastest, began = float("inf"), time.perf_counter()
            while time.perf_counter() - began < _MATRIX_SECONDS:
                start = time.perf_counter()
                nn.functional.linear(x, weight)
                if place.type == "cuda":
                    torch.cuda.synchronize()
                fastest = min(fastest, time.perf_counter() - start)
            best = max(best, 2.0 * _MATRIX_ROWS * rows * columns / fastest)
    return best


def _memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
