"""The server's HTTP routes: V1, V2, OpenAI's, events, health, metrics and their OpenAPI document."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.serving.records.payloads import parsed_json
from driftline.serving.server.bodies import (
    JSON,
    InFlight,
    Schema,
    check_json_type,
    json_answer,
    media_type,
    read_body,
)
from driftline.serving.server.failures import RequestError, failure_of
from driftline.serving.server.metadata import (
    Alive,
    Live,
    Model,
    ModelNames,
    ModelReady,
    Ready,
    Server,
    model_metadata,
    server_metadata,
)
from driftline.serving.server.metrics import ServerMetrics
from driftline.serving.server.openapi import Binary, Operation, document
from driftline.serving.server.protocols import v1, v2
from driftline.serving.server.protocols.cloud_events import (
    STRUCTURED,
    EventHandler,
    ReplyEvent,
    StructuredEvent,
    is_event,
    read_event,
)
from driftline.serving.server.protocols.openai import (
    OpenAIModel,
    OpenAIModels,
    OpenAIRequest,
    OpenAIResponse,
    embeddings,
    error_object,
    model_object,
)
from driftline.serving.server.service import EmbeddingService

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

Handler = Callable[[Request], Awaitable[Response]]

_ANY_BYTES: Final = frozenset(("", JSON, v2.BINARY))


class Routes:
    """The HTTP side of the server.

    Attributes:
        in_flight: the requests that are not answered yet.
    """

    def __init__(
        self,
        service: EmbeddingService,
        events: EventHandler,
        metrics: ServerMetrics,
        registry: CollectorRegistry,
    ) -> None:
        self.in_flight = InFlight()
        self._service = service
        self._events = events
        self._metrics = metrics
        self._registry = registry
        self._document = document(OPERATIONS, service.limits)
        self._created_s = int(time.time())

    def application(self) -> Starlette:
        """Return the ASGI application."""
        paths: dict[str, dict[str, Operation]] = {}  # one route a path, so that a 405 names all of its methods
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method] = operation
        return Starlette(
            routes=[Route(path, self._endpoint(methods), methods=[*methods]) for path, methods in paths.items()],
            exception_handlers={HTTPException: _no_route},
        )

    def _endpoint(self, methods: Mapping[str, Operation]) -> Handler:
        async def endpoint(request: Request) -> Response:
            operation = methods["GET" if request.method == "HEAD" else request.method]
            if operation.protocol:
                return await self._counted(operation, request)
            return await _answered(operation, operation.handler(self, request))

        return endpoint

    async def _counted(self, operation: Operation, request: Request) -> Response:
        """Answer a request that brings texts, or an event."""
        kind = media_type(request)
        event = is_event(request.headers.raw, kind)
        with self._metrics.request("event" if event else operation.protocol) as outcome:
            handler = Routes.event if event and operation.events else operation.handler
            response = await _answered(operation, handler(self, request, kind))
            outcome.code = str(response.status_code)
            return response

    async def v1_predict(self, request: Request, kind: str) -> Response:
        """Answer a V1 request."""
        model = self._model(request)
        expires = self._service.expiry(request.headers)
        check_json_type(kind)
        body = parsed_json("the body", await self._body(request))
        return json_answer(await self.in_flight.answered(request, v1.predictions(self._service, model, body, expires)))

    async def v2_infer(self, request: Request, kind: str) -> Response:
        """Answer a V2 request."""
        model = self._model(request)
        expires = self._service.expiry(request.headers)
        json_length = request.headers.get(v2.JSON_LENGTH_HEADER)
        # With the header of the binary extension, the type may be either; without, all of the body is JSON.
        if json_length is None or kind not in _ANY_BYTES:
            check_json_type(kind)
        content = await self._body(request)
        return await self.in_flight.answered(request, v2.infer(self._service, model, content, json_length, expires))

    async def openai_embeddings(self, request: Request, kind: str) -> Response:
        """Answer a request of OpenAI's API."""
        expires = self._service.expiry(request.headers)
        check_json_type(kind)
        body = parsed_json("the body", await self._body(request))
        return await self.in_flight.answered(request, embeddings(self._service, body, expires))

    async def event(self, request: Request, kind: str) -> Response:
        """Answer an event; one that came to no model's path, as from a sink without `uri`, is for the only model."""
        model = self._model(request) if "model" in request.path_params else self._service.only_model()
        expires = self._service.expiry(request.headers)
        content = await self._body(request)
        event = read_event(request.headers.raw, kind, request.headers.get("content-type", ""), content)
        return await self.in_flight.answered(request, self._events.answer(model, event, expires))

    async def no_event(self, request: Request, kind: str) -> Response:
        """Refuse what came to no model's path and is no event."""
        raise RequestError(
            HTTPStatus.BAD_REQUEST,
            "POST / takes CloudEvents only; there are /v1/models/NAME:predict, /v2/models/NAME/infer and "
            "/openai/v1/embeddings",
        )

    async def openai_models(self, request: Request) -> Response:
        """Answer with the models, as OpenAI's API has them."""
        data = [model_object(model, self._created_s) for model in self._service.models.values()]
        return json_answer({"object": "list", "data": data})

    async def openai_model(self, request: Request) -> Response:
        """Answer with a model, as OpenAI's API has it."""
        return json_answer(model_object(self._model(request), self._created_s))

    async def live(self, request: Request) -> Response:
        """Answer whether the server is alive."""
        why = self._service.health.dead()
        if request.url.path == "/":
            return _state({"status": "alive" if why is None else "dead"}, why)
        return _state({"live": why is None}, why)

    async def ready(self, request: Request) -> Response:
        """Answer whether all models take texts."""
        why = self._service.health.unready()
        return _state({"ready": why is None}, why)

    async def model_ready(self, request: Request) -> Response:
        """Answer whether a model takes texts."""
        model = self._model(request)
        why = self._service.health.model_unready(model)
        return _state({"name": model.name, "ready": why is None}, why)

    async def list_models(self, request: Request) -> Response:
        """Answer with the models' names."""
        return json_answer({"models": list(self._service.models)})

    async def describe_server(self, request: Request) -> Response:
        """Answer with the server's name, version and extensions."""
        return json_answer(server_metadata())

    async def describe_model(self, request: Request) -> Response:
        """Answer with a model's tensors and versions."""
        return json_answer(model_metadata(self._model(request)))

    async def prometheus(self, request: Request) -> Response:
        """Answer with the metrics."""
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": kind})

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        return json_answer(self._document)

    def _model(self, request: Request) -> ServedModel:
        return self._service.model(request.path_params["model"])

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, self._service.limits.body_bytes)


_JSON_LENGTH: Final[Schema] = {
    "name": v2.JSON_LENGTH_HEADER,
    "in": "header",
    "required": False,
    "description": "Length of the body's JSON, where binary tensors follow it.",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"},
}
_DELETION: Final = "A deletion, by an event"
_EVENT: Final = {STRUCTURED: StructuredEvent}
_REPLY: Final = {STRUCTURED: ReplyEvent}

OPERATIONS: Final = (
    Operation("GET", "/", Routes.live, "Whether the server is alive", {JSON: Alive}, probe=True),
    Operation(
        "POST",
        "/",
        Routes.no_event,
        "Answer a CloudEvent, where one model is served",
        _REPLY,
        _EVENT,
        protocol="event",
        events=True,
        empty=_DELETION,
    ),
    Operation("GET", "/v1/models", Routes.list_models, "The models' names", {JSON: ModelNames}),
    Operation(
        "POST",
        "/v1/models/{model}:predict",
        Routes.v1_predict,
        "Embed texts (V1), or answer a CloudEvent",
        {JSON: v1.V1Response, **_REPLY},
        {JSON: v1.V1Request, **_EVENT},
        protocol="v1",
        events=True,
        empty=_DELETION,
    ),
    Operation(
        "GET", "/v1/models/{model}", Routes.model_ready, "Whether a model takes texts", {JSON: ModelReady}, probe=True
    ),
    Operation("GET", "/v2", Routes.describe_server, "The server's name, version and extensions", {JSON: Server}),
    Operation("GET", "/v2/health/live", Routes.live, "Whether the server is alive", {JSON: Live}, probe=True),
    Operation("GET", "/v2/health/ready", Routes.ready, "Whether all models take texts", {JSON: Ready}, probe=True),
    Operation("GET", "/v2/models", Routes.list_models, "The models' names", {JSON: ModelNames}),
    Operation(
        "POST",
        "/v2/models/{model}/infer",
        Routes.v2_infer,
        "Embed texts (V2), binary tensors following the JSON, or answer a CloudEvent",
        {JSON: v2.V2Response, v2.BINARY: Binary, **_REPLY},
        {JSON: v2.V2Request},  # an event's body has no use for the header of the JSON's length
        protocol="v2",
        events=True,
        empty=_DELETION,
        headers=(_JSON_LENGTH,),
    ),
    Operation(
        "GET",
        "/v2/models/{model}/ready",
        Routes.model_ready,
        "Whether a model takes texts",
        {JSON: ModelReady},
        probe=True,
    ),
    Operation("GET", "/v2/models/{model}", Routes.describe_model, "A model's tensors and versions", {JSON: Model}),
    Operation(
        "POST",
        "/openai/v1/embeddings",
        Routes.openai_embeddings,
        "Embed texts (OpenAI)",
        {JSON: OpenAIResponse},
        {JSON: OpenAIRequest},
        protocol="openai",
        write_error=error_object,
    ),
    Operation(
        "GET", "/openai/v1/models", Routes.openai_models, "The models", {JSON: OpenAIModels}, write_error=error_object
    ),
    Operation(
        "GET",
        "/openai/v1/models/{model}",
        Routes.openai_model,
        "A model",
        {JSON: OpenAIModel},
        write_error=error_object,
    ),
    Operation(
        "GET",
        "/metrics",
        Routes.prometheus,
        "Prometheus metrics, in the format that Accept asks for",
        {"text/plain": str, "application/openmetrics-text": str},
    ),
    Operation("GET", "/openapi.json", Routes.openapi, "This document", {JSON: dict[str, Any]}),
)


async def _answered(operation: Operation, answer: Awaitable[Response]) -> Response:
    """Wait for an answer; errors are answered as the protocol has them."""
    try:
        return await answer
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
        failure = failure_of(error)
        return json_answer(operation.write_error(failure), failure.status, failure.headers)


def _state(content: dict[str, object], why: str | None) -> Response:
    if why is None:
        return json_answer(content)
    return json_answer({**content, "reason": why}, HTTPStatus.SERVICE_UNAVAILABLE)


async def _no_route(request: Request, error: Any) -> Response:
    reason = f"{request.method} {request.url.path[:100]}: " + (
        "there is no such route; GET /openapi.json lists them"
        if error.status_code == HTTPStatus.NOT_FOUND
        else "this method is not taken here"
    )
    return json_answer({"error": reason}, error.status_code, error.headers)
