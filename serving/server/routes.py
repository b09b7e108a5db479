"""The server's HTTP routes: V1, V2, OpenAI's, events, health, metrics and their OpenAPI document."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from driftline.serving.server.bodies import (
    InHand,
    check_json_type,
    json_answer,
    json_object,
    media_type,
    read_body,
)
from driftline.serving.server.failures import Failure, RequestError, failure_of
from driftline.serving.server.metadata import model_metadata, server_metadata
from driftline.serving.server.metrics import ServerMetrics
from driftline.serving.server.openapi import document
from driftline.serving.server.protocols import v1, v2
from driftline.serving.server.protocols.cloudevents import is_event, read_event
from driftline.serving.server.protocols.events import EventHandler
from driftline.serving.server.protocols.openai import embeddings, error_object, model_object
from driftline.serving.server.service import EmbeddingService, TextModel

Handler = Callable[[Request], Awaitable[Response]]

_ANY_BYTES: Final = frozenset(("", "application/json", v2.BINARY))


class Routes:
    """The HTTP side of the server.

    Attributes:
        in_hand: the requests that are not answered yet.
    """

    def __init__(
        self,
        service: EmbeddingService,
        events: EventHandler,
        metrics: ServerMetrics,
        registry: CollectorRegistry,
    ) -> None:
        self.in_hand = InHand()
        self._service = service
        self._events = events
        self._metrics = metrics
        self._registry = registry
        self._document = document(service.limits)
        self._created_s = int(time.time())
        self._root_event = self._counted("event", self._event, _error)

    def application(self) -> Starlette:
        """Return the ASGI application."""

        def get(path: str, handler: Handler, write: Callable[[Failure], object] = _error) -> Route:
            return Route(path, _told(handler, write), methods=["GET"])

        def post(path: str, protocol: str, handler: Handler, write: Callable[[Failure], object] = _error) -> Route:
            return Route(path, self._counted(protocol, handler, write), methods=["POST"])

        return Starlette(
            routes=[
                Route("/", self._root, methods=["GET", "POST"]),  # one route, so that a 405 names both methods
                get("/v1/models", self._list),
                post("/v1/models/{model}:predict", "v1", self._v1_predict),
                get("/v1/models/{model}", self._model_ready),
                get("/v2", self._server),
                get("/v2/health/live", self._live),
                get("/v2/health/ready", self._ready),
                get("/v2/models", self._list),
                post("/v2/models/{model}/infer", "v2", self._v2_infer),
                get("/v2/models/{model}/ready", self._model_ready),
                get("/v2/models/{model}", self._model),
                post("/openai/v1/embeddings", "openai", self._openai_embeddings, error_object),
                get("/openai/v1/models", self._openai_models, error_object),
                get("/openai/v1/models/{model}", self._openai_model, error_object),
                get("/metrics", self._prometheus),
                get("/openapi.json", self._openapi),
            ],
            exception_handlers={HTTPException: _no_route},
        )

    async def _v1_predict(self, request: Request) -> Response:
        model = self._service.model(request.path_params["model"])
        if is_event(request.headers.raw, media_type(request)):
            return await self._answer_event(request, model)
        expires = self._service.expiry(request.headers)
        check_json_type(request)
        body = json_object(await read_body(request, self._service.limits.body_bytes))
        return json_answer(
            await self.in_hand.answered(request, v1.predictions(self._service, model.name, body, expires))
        )

    async def _v2_infer(self, request: Request) -> Response:
        model = self._service.model(request.path_params["model"])
        if is_event(request.headers.raw, media_type(request)):
            return await self._answer_event(request, model)
        expires = self._service.expiry(request.headers)
        json_length = request.headers.get(v2.JSON_LENGTH_HEADER)
        # With the header of the binary extension, the type may be either; without, all of the body is JSON.
        if json_length is None or media_type(request) not in _ANY_BYTES:
            check_json_type(request)
        content = await read_body(request, self._service.limits.body_bytes)
        return await self.in_hand.answered(request, v2.infer(self._service, model.name, content, json_length, expires))

    async def _root(self, request: Request) -> Response:
        return await (self._root_event(request) if request.method == "POST" else self._live(request))

    async def _event(self, request: Request) -> Response:
        """Answer an event that came to no model's path, as from a sink without `uri`."""
        if not is_event(request.headers.raw, media_type(request)):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                "POST / takes CloudEvents only; there are /v1/models/NAME:predict, /v2/models/NAME/infer and "
                "/openai/v1/embeddings",
            )
        return await self._answer_event(request, self._service.only_model())

    async def _answer_event(self, request: Request, model: TextModel) -> Response:
        expires = self._service.expiry(request.headers)
        content = await read_body(request, self._service.limits.body_bytes)
        kind = request.headers.get("content-type", "")
        event = read_event(request.headers.raw, media_type(request), kind, content)
        return await self.in_hand.answered(request, self._events.answer(model, event, expires))

    async def _openai_embeddings(self, request: Request) -> Response:
        expires = self._service.expiry(request.headers)
        check_json_type(request)
        body = json_object(await read_body(request, self._service.limits.body_bytes))
        return await self.in_hand.answered(request, embeddings(self._service, body, expires))

    async def _openai_models(self, request: Request) -> Response:
        data = [model_object(model, self._created_s) for model in self._service.models.values()]
        return json_answer({"object": "list", "data": data})

    async def _openai_model(self, request: Request) -> Response:
        return json_answer(model_object(self._service.model(request.path_params["model"]), self._created_s))

    async def _live(self, request: Request) -> Response:
        why = self._service.health.dead()
        if request.url.path == "/":
            return _state({"status": "alive" if why is None else "dead"}, why)
        return _state({"live": why is None}, why)

    async def _ready(self, request: Request) -> Response:
        why = self._service.health.unready()
        return _state({"ready": why is None}, why)

    async def _model_ready(self, request: Request) -> Response:
        model = self._service.model(request.path_params["model"])
        why = self._service.health.model_unready(model)
        return _state({"name": model.name, "ready": why is None}, why)

    async def _list(self, request: Request) -> Response:
        return json_answer({"models": list(self._service.models)})

    async def _server(self, request: Request) -> Response:
        return json_answer(server_metadata())

    async def _model(self, request: Request) -> Response:
        return json_answer(model_metadata(self._service.model(request.path_params["model"])))

    async def _prometheus(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": kind})

    async def _openapi(self, request: Request) -> Response:
        return json_answer(self._document)

    def _counted(self, protocol: str, handler: Handler, write: Callable[[Failure], object]) -> Handler:
        told = _told(handler, write)

        async def counted(request: Request) -> Response:
            event = is_event(request.headers.raw, media_type(request))
            with self._metrics.request("event" if event else protocol) as outcome:
                response = await told(request)
                outcome.code = str(response.status_code)
                return response

        return counted


def _told(handler: Handler, write: Callable[[Failure], object]) -> Handler:
    """Answer errors as the protocol has them."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            failure = failure_of(error)
            return json_answer(write(failure), failure.status, failure.headers)

    return told


def _error(failure: Failure) -> dict[str, object]:
    return {"error": failure.message}


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
