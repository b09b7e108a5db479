"""What the V2 protocol says of the server and of a model."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from driftline.serving.server.protocols.tensors import INPUT, OUTPUT
from driftline.serving.server.service import TextModel

NAME: Final = "driftline"
EXTENSIONS: Final = ("binary_tensor_data",)
PLATFORM: Final = "driftline_encoder"


def server_metadata() -> dict[str, object]:
    """Return the server's name, version and extensions of the protocol."""
    return {"name": NAME, "version": version("driftline"), "extensions": [*EXTENSIONS]}


def input_tensors() -> list[dict[str, object]]:
    """Return the tensors that a model takes; -1 is any size."""
    return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]


def output_tensors(model: TextModel) -> list[dict[str, object]]:
    """Return the tensors that a model gives."""
    return [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, model.dimension or -1]}]


def model_metadata(model: TextModel) -> dict[str, object]:
    """Return a model's name, version and tensors."""
    return {
        "name": model.name,
        "versions": [model.revision] if model.revision else [],
        "platform": PLATFORM,
        "inputs": input_tensors(),
        "outputs": output_tensors(model),
    }
