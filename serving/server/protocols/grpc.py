"""The V2 protocol in gRPC: KServe's servicer, with our inference, our health and statuses that say what is wrong.

A message is read as the REST protocol's JSON would be, by the same type, its texts aside.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from grpc import aio

from driftline.components.errors import UsageError
from driftline.serving.server.failures import RequestError, failure_of
from driftline.serving.server.health import ServerHealth
from driftline.serving.server.kserve_parts import (
    DataPlane,
    InferenceServicer,
    Model,
    ModelNotFound,
    ModelRepository,
    ModelRepositoryExtension,
    add_GRPCInferenceServiceServicer_to_server,
    messages,
)
from driftline.serving.server.metadata import input_tensors, output_tensors, server_metadata
from driftline.serving.server.metrics import Outcome, ServerMetrics
from driftline.serving.server.protocols.v2 import (
    OUTPUT,
    REQUEST,
    V2Request,
    decoded,
    float_bytes,
    read_bytes_tensor,
)
from driftline.serving.server.service import EmbeddingService, Options

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

Answer = TypeVar("Answer")

_MESSAGE_HEAD_BYTES: Final = 64 * 1024  # what a message has beside its texts


class RegisteredModel(Model):
    """A served model, as KServe's registry knows it."""

    def __init__(self, served: ServedModel, health: ServerHealth) -> None:
        super().__init__(served.name)
        self._served = served
        self._health = health

    async def healthy(self) -> bool:
        """Return whether it takes texts."""
        return self._health.model_unready(self._served) is None

    def get_input_types(self) -> list[dict[str, object]]:
        """Return its input tensors."""
        return [{**tensor} for tensor in input_tensors()]

    def get_output_types(self) -> list[dict[str, object]]:
        """Return its output tensors."""
        return [{**tensor} for tensor in output_tensors(self._served)]


class HealthAwareDataPlane(DataPlane):
    """KServe's data plane, with the server's own health instead of one that is always good."""

    def __init__(self, registry: ModelRepository, health: ServerHealth) -> None:
        super().__init__(model_registry=registry)
        self._health = health

    async def live(self) -> dict[str, str]:  # pyright: ignore[reportIncompatibleMethodOverride] - static there
        """Return whether the process need not be restarted."""
        return {"status": "alive" if self._health.dead() is None else "dead"}

    async def ready(self) -> bool:
        """Return whether all models take texts."""
        return self._health.unready() is None

    def metadata(self) -> dict[str, object]:
        """Return the server's name, version and extensions."""
        return {**server_metadata()}


class EmbeddingServicer(InferenceServicer):
    """KServe's inference service: one BYTES tensor in, one FP32 tensor out."""

    def __init__(
        self, service: EmbeddingService, plane: DataPlane, extension: ModelRepositoryExtension, metrics: ServerMetrics
    ) -> None:
        super().__init__(plane, extension)
        self._service = service
        self._metrics = metrics

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Return whether a model takes texts."""
        return await _answered(super().ModelReady(request, context), context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a model's tensors."""
        return await _answered(super().ModelMetadata(request, context), context)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Embed texts."""
        with self._metrics.request("grpc") as outcome:
            outcome.code = "CANCELLED"
            return await _answered(self._infer(request, context), context, outcome)

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: the command line says which models there are."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are loaded when the server starts")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuse: the command line says which models there are."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models stay loaded until the server ends")

    async def _infer(self, request: Any, context: Any) -> Any:
        left_s = context.time_remaining()
        limit_s = self._service.limits.timeout_s
        expires = time.monotonic() + (limit_s if left_s is None else min(left_s, limit_s))
        model = self._service.model(request.model_name)
        body = REQUEST.read(_as_json(request))
        texts = self._service.check_texts(body.where, self._texts(request, body))
        embedded = await self._service.embed_in_time(model, texts, body.parameters or Options(), expires)
        vectors = embedded.vectors
        output: Any = {"name": OUTPUT, "datatype": "FP32", "shape": list(vectors.shape)}
        raw: list[bytes] = []
        if request.raw_input_contents:
            raw.append(float_bytes(vectors))
        else:
            output["contents"] = {"fp32_contents": vectors.ravel().tolist()}
        return messages.ModelInferResponse(
            model_name=request.model_name, id=request.id, outputs=[output], raw_output_contents=raw
        )

    def _texts(self, request: Any, body: V2Request) -> list[str]:
        most = self._service.limits.texts
        if request.raw_input_contents:
            if len(request.raw_input_contents) != 1 or request.inputs[0].HasField("contents"):
                raise RequestError(HTTPStatus.BAD_REQUEST, f"{body.where}: expected contents or one raw content")
            return decoded(body, read_bytes_tensor(body.where, request.raw_input_contents[0], most), most)
        return decoded(body, request.inputs[0].contents.bytes_contents, most)


async def open_grpc(servicer: EmbeddingServicer, host: str, port: int, body_bytes: int) -> tuple[aio.Server, int]:
    """Start the gRPC side; return it and its port.

    Args:
        servicer: answers.
        host: address to listen on.
        port: 0 for any free one.
        body_bytes: of a request's texts; larger messages are refused.

    Raises:
        UsageError: the port is taken, or may not be had.
    """
    server = aio.server(
        options=[
            ("grpc.max_receive_message_length", body_bytes + _MESSAGE_HEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not take half of the requests
        ]
    )
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise UsageError(f"grpc-port {port}: it is taken, or may not be had; choose another one") from error
    await server.start()
    return server, bound


async def _answered(answer: Awaitable[Answer], context: Any, outcome: Outcome | None = None) -> Answer:
    """Wait for an answer; errors end the call with their status."""
    try:
        found = await answer
    except ModelNotFound as error:
        status, message, retry_after_s = grpc.StatusCode.NOT_FOUND, str(error), 0.0
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
        failure = failure_of(error)
        status, message, retry_after_s = failure.grpc_status, failure.message, failure.retry_after_s
    else:
        if outcome is not None:
            outcome.code = "OK"
        return found
    if outcome is not None:
        outcome.code = status.name
    # gRPC's clients wait so long before they try again by themselves.
    trailing = (("grpc-retry-pushback-ms", str(max(1, int(retry_after_s * 1000)))),) if retry_after_s else ()
    return await context.abort(status, message, trailing)


def _as_json(request: Any) -> dict[str, object]:
    """Return a message as REST has it, without the texts."""
    return {
        "parameters": _plain(request.parameters),
        "inputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} for tensor in request.inputs
        ],
        "outputs": [{"name": output.name} for output in request.outputs],
    }


def _plain(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Return parameters as JSON has them."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }
