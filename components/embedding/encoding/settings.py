"""What is asked of an encoder: what decides its vectors, and apart from it what decides only its speed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Literal

from driftline.components.errors import UsageError
from driftline.components.settings import Setting, check_settings

Precision = Literal["auto", "float32", "bfloat16", "float16"]
SegmentPooling = Literal["mean", "max", ""]


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What decides a model's vectors of given texts. Vectors are float32, whatever the precision.

    Of the vectors of a Matryoshka model the leading numbers are taken, and brought back to length 1 where the model
    normalises. The model's maximum of tokens is never exceeded.

    Raises:
        UsageError: a value is out of range.
    """

    prompt: Annotated[
        str, Setting("Name of one of the model's prompts, such as document", "the model's default", metavar="NAME")
    ] = ""
    precision: Annotated[
        Precision,
        Setting("Number type of the model: float32, bfloat16, float16, or auto, float32 on a CPU, float16 on a GPU"),
    ] = "auto"
    dimension: Annotated[
        int, Setting("Leading numbers of a Matryoshka model's vectors to keep", "all", least=0, metavar="D")
    ] = 0
    max_tokens: Annotated[int, Setting("Tokens of a text to look at", "the model's maximum", least=0, metavar="T")] = 0
    segments: Annotated[
        SegmentPooling,
        Setting("Embed longer texts by overlapping windows, pooled by mean or max", "cutting them"),
    ] = ""
    overlap: Annotated[
        int, Setting("Tokens that neighbouring windows share", "an eighth of a window", least=0, metavar="T")
    ] = 0

    def __post_init__(self) -> None:
        check_settings(self)
        if self.overlap and not self.segments:
            raise UsageError("overlap: it is that of segments; set segments to mean or max as well")

    def identity(self) -> str:
        """Return the settings as a string that two encoders share only where they give the same vectors."""
        return json.dumps([self.prompt, self.precision, self.dimension, self.max_tokens, self.segments, self.overlap])

    def vector_revision(self, model_revision: str) -> str:
        """Return the revision of vectors: the model's and, where they are not the defaults, these settings.

        `sha256:0123456789abcdef;prompt=query`, for example. Vectors compare only where their revisions are equal.

        Args:
            model_revision: identity of the model's content.
        """
        changed = [
            f";{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return model_revision + "".join(changed)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What decides an encoder's speed on one machine. Vectors differ by rounding alone.

    Raises:
        UsageError: a value is out of range.
    """

    batch_tokens: Annotated[int, Setting("Tokens of a forward pass", "2,048 on a CPU and 16,384 on a GPU", least=0)] = 0
    streams: Annotated[int, Setting("Forward passes at a time, on a CPU", "one a thread", least=0)] = 0
    threads: Annotated[int, Setting("CPU threads of all streams together", "PyTorch's own choice", least=0)] = 0
    compile: Annotated[
        bool, Setting("`torch.compile` translates the model; needs a C++ compiler on a CPU, Triton on a GPU")
    ] = False

    def __post_init__(self) -> None:
        check_settings(self)
