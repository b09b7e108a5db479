"""What is asked of an encoder: what decides its vectors, and apart from it what decides only its speed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from driftline.components.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
SegmentPooling = Literal["", "mean", "max"]

PRECISIONS: Final = get_args(Precision)
SEGMENT_POOLINGS: Final = get_args(SegmentPooling)


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What decides a model's vectors of given texts.

    Attributes:
        prompt: name of one of the model's prompts, such as ``"document"``; empty for the model's default.
        precision: number type of the forward pass; auto is float32 on a CPU and float16 on a GPU. (Vectors are float32
            whatever the precision.)
        dimension: of the vectors: the leading numbers of a Matryoshka model's, brought back to length 1 where the model
            normalises; 0 for all.
        max_tokens: tokens of a text that are looked at; 0 for the model's maximum, which is never exceeded.
        segments: what becomes of a longer text: ``""`` cuts it; ``"mean"`` and ``"max"`` pool the vectors of
            overlapping windows that cover it.
        overlap: tokens that neighbouring windows share; 0 for an eighth of a window.

    Raises:
        UsageError: a value is out of range.
    """

    prompt: str = ""
    precision: Precision = "auto"
    dimension: int = 0
    max_tokens: int = 0
    segments: SegmentPooling = ""
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision: expected {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.segments not in SEGMENT_POOLINGS:
            raise UsageError(f"segments: expected mean, max or nothing, got {self.segments!r}")
        for name in ("dimension", "max_tokens", "overlap"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: expected 1 or more, or 0 for the model's own, got {getattr(self, name)}")
        if self.overlap and not self.segments:
            raise UsageError("overlap: it is that of segments; set segments to mean or max as well")

    @classmethod
    def of(
        cls, prompt: str, precision: str, dimension: int, max_tokens: int, segments: str | None, overlap: int
    ) -> EncoderSettings:
        """Make settings of plain values, as commands and pipelines have them; None for no segments.

        Raises:
            UsageError: a value is out of range.
        """
        return cls(
            prompt, cast("Precision", precision), dimension, max_tokens, cast("SegmentPooling", segments or ""), overlap
        )

    def identity(self) -> str:
        """Return the settings as a string that two encoders share only where they give the same vectors."""
        return json.dumps([self.prompt, self.precision, self.dimension, self.max_tokens, self.segments, self.overlap])


@dataclass(frozen=True, slots=True)
class Tuning:
    """What decides an encoder's speed on one machine. Vectors differ by rounding alone.

    Attributes:
        batch_tokens: tokens of a forward pass; 0 for 2,048 on a CPU and 16,384 on a GPU.
        streams: forward passes at a time, on a CPU; 0 for one a thread.
        threads: CPU threads of all streams together; 0 for PyTorch's own choice.
        compile: whether `torch.compile` translates the model; needs a C++ compiler on a CPU, Triton on a GPU.

    Raises:
        UsageError: a value is out of range.
    """

    batch_tokens: int = 0
    streams: int = 0
    threads: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "streams", "threads"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: expected 1 or more, or 0 for the default, got {getattr(self, name)}")
