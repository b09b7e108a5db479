"""Metadata: what the probes, and V2's routes, say of the server and of its models."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal, NotRequired

from typing_extensions import TypedDict

from driftline.serving.server.protocols.v2 import INPUT, OUTPUT

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

NAME: Final = "driftline"
EXTENSIONS: Final = ("binary_tensor_data",)
PLATFORM: Final = "driftline_encoder"


class Alive(TypedDict):
    """Liveness at KServe's own route."""

    status: Literal["alive", "dead"]
    reason: NotRequired[str]


class Live(TypedDict):
    """Liveness of the server."""

    live: bool
    reason: NotRequired[str]


class Ready(TypedDict):
    """Readiness of all models."""

    ready: bool
    reason: NotRequired[str]


class ModelReady(TypedDict):
    """Readiness of a model."""

    name: str
    ready: bool
    reason: NotRequired[str]


class Error(TypedDict):
    """A failed request's answer."""

    error: str


class ModelNames(TypedDict):
    """Names of the models."""

    models: list[str]


class Server(TypedDict):
    """Name, version and V2's extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class Tensor(TypedDict):
    """A tensor of a model; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class Model(TypedDict):
    """Name, version and tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


def server_metadata() -> Server:
    """Return the server's name, version and extensions of the protocol."""
    return {"name": NAME, "version": version("driftline"), "extensions": [*EXTENSIONS]}


def input_tensors() -> list[Tensor]:
    """Return the tensors that a model takes."""
    return [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}]


def output_tensors(model: ServedModel) -> list[Tensor]:
    """Return the tensors that a model gives."""
    return [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, model.dimension or -1]}]


def model_metadata(model: ServedModel) -> Model:
    """Return a model's name, version and tensors."""
    return {
        "name": model.name,
        "versions": [model.revision] if model.revision else [],
        "platform": PLATFORM,
        "inputs": input_tensors(),
        "outputs": output_tensors(model),
    }
