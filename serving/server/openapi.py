"""The OpenAPI document of the routes, complete enough for clients and fuzzers to be made of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from driftline.serving.server.openapi_schemas import STRING, Schema, object_of, ref, schemas
from driftline.serving.server.protocols.cloudevents import STRUCTURED
from driftline.serving.server.protocols.v2 import BINARY, JSON_LENGTH_HEADER
from driftline.serving.server.service import TIMEOUT_HEADER
from driftline.serving.server.settings import RequestLimits

_NAME: Final[Schema] = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}

_REFUSALS: Final = {
    "400": "The body is not of the protocol's form.",
    "404": "There is no such model.",
    "413": "The body is too large.",
    "415": "The body is of another content type, or compressed.",
    "422": "A text is empty or blank, there are too many, or the model has no such prompt or dimension.",
    "429": "The queue is full; try again after the seconds of Retry-After.",
    "503": "The model is not loaded yet, or the server is shutting down, or the output topic's brokers are away.",
    "504": "The answer would have come too late.",
}


def document(limits: RequestLimits) -> Schema:
    """Return the document, as JSON has it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Driftline",
            "version": version("driftline"),
            "description": "Embeddings of texts by KServe's protocols V1 and V2, OpenAI's API and CloudEvents.",
        },
        "paths": {**_health_paths(), **_model_paths(), **_embedding_paths()},
        "components": {"schemas": schemas(limits)},
    }


def _health_paths() -> Schema:
    live = object_of({"live": {"type": "boolean"}, "reason": STRING}, "live")
    ready = object_of({"ready": {"type": "boolean"}, "reason": STRING}, "ready")
    status = object_of({"status": {"enum": ["alive", "dead"]}, "reason": STRING}, "status")
    model = object_of({"name": STRING, "ready": {"type": "boolean"}, "reason": STRING}, "name", "ready")
    return {
        "/": {
            "get": _probe("Whether the server is alive", status),
            "post": _operation(
                "Answer a CloudEvent, where one model is served",
                {"required": True, "content": {STRUCTURED: {"schema": ref("Event")}}},
                {
                    "200": _answer("An event with the embedding", ref("ReplyEvent"), STRUCTURED),
                    "204": _empty("A deletion"),
                },
                parameters=[],
            ),
        },
        "/v2/health/live": {"get": _probe("Whether the server is alive", live)},
        "/v2/health/ready": {"get": _probe("Whether all models take texts", ready)},
        "/v1/models/{model}": {"get": _probe("Whether a model takes texts", model, of_model=True)},
        "/v2/models/{model}/ready": {"get": _probe("Whether a model takes texts", model, of_model=True)},
        "/metrics": {
            "get": {
                "summary": "Prometheus metrics",
                "responses": {
                    "200": {
                        "description": "In the format that Accept asks for",
                        "content": {
                            "text/plain": {"schema": STRING},
                            "application/openmetrics-text": {"schema": STRING},
                        },
                    }
                },
            }
        },
        "/openapi.json": {"get": _read("This document", {"type": "object"})},
    }


def _model_paths() -> Schema:
    names = object_of({"models": {"type": "array", "items": STRING}}, "models")
    server = object_of(
        {"name": STRING, "version": STRING, "extensions": {"type": "array", "items": STRING}},
        "name", "version", "extensions",
    )  # fmt: skip
    models = object_of(
        {"object": {"const": "list"}, "data": {"type": "array", "items": ref("OpenAIModel")}}, "object", "data"
    )
    return {
        "/v1/models": {"get": _read("The models' names", names)},
        "/v2": {"get": _read("The server's name, version and extensions", server)},
        "/v2/models": {"get": _read("The models' names", names)},
        "/v2/models/{model}": {"get": _read("A model's tensors and versions", ref("Model"), of_model=True)},
        "/openai/v1/models": {"get": _read("The models", models)},
        "/openai/v1/models/{model}": {
            "get": _read("A model", ref("OpenAIModel"), of_model=True, error="OpenAIError"),
        },
    }


def _embedding_paths() -> Schema:
    length = {
        "name": JSON_LENGTH_HEADER, "in": "header", "required": False,
        "description": "Length of the body's JSON, where binary tensors follow it.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"},
    }  # fmt: skip
    events = {"204": _empty("A deletion, by an event")}
    return {
        "/v1/models/{model}:predict": {
            "post": _operation(
                "Embed texts (V1), or answer a CloudEvent",
                {
                    "required": True,
                    "content": {
                        "application/json": {"schema": ref("V1Request")},
                        STRUCTURED: {"schema": ref("Event")},
                    },
                },
                {
                    "200": {
                        "description": "The vectors, or an event with one",
                        "content": {
                            "application/json": {"schema": ref("V1Response")},
                            STRUCTURED: {"schema": ref("ReplyEvent")},
                        },
                    },
                    **events,
                },
            )
        },
        "/v2/models/{model}/infer": {
            "post": _operation(
                "Embed texts (V2); binary tensors follow the JSON",
                {"required": True, "content": {"application/json": {"schema": ref("V2Request")}}},
                {
                    "200": {
                        "description": "The vectors",
                        "content": {
                            "application/json": {"schema": ref("V2Response")},
                            BINARY: {"schema": {"type": "string", "format": "binary"}},
                        },
                    },
                    **events,
                },
                parameters=[_NAME, length],
            )
        },
        "/openai/v1/embeddings": {
            "post": _operation(
                "Embed texts (OpenAI)",
                {"required": True, "content": {"application/json": {"schema": ref("OpenAIRequest")}}},
                {"200": _answer("The vectors", ref("OpenAIResponse"))},
                parameters=[],
                error="OpenAIError",
            )
        },
    }


def _answer(description: str, schema: Schema, kind: str = "application/json") -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _empty(description: str) -> Schema:
    return {"description": description}


def _read(summary: str, schema: Schema, *, of_model: bool = False, error: str = "Error") -> Schema:
    responses = {"200": _answer(summary, schema)}
    if of_model:
        responses["404"] = _answer(_REFUSALS["404"], ref(error))
    return {"summary": summary, "parameters": [_NAME] if of_model else [], "responses": responses}


def _probe(summary: str, schema: Schema, *, of_model: bool = False) -> Schema:
    operation = _read(summary, schema, of_model=of_model)
    operation["responses"]["503"] = _answer("No, for the reason given", schema)
    return operation


def _operation(
    summary: str, body: Schema, responses: Schema, *, parameters: list[Schema] | None = None, error: str = "Error"
) -> Schema:
    timeout = {
        "name": TIMEOUT_HEADER, "in": "header", "required": False,
        "description": "Milliseconds that the answer may take.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{2,8}$"},
    }  # fmt: skip
    refusals = {status: _answer(description, ref(error)) for status, description in _REFUSALS.items()}
    for status in ("429", "503"):
        refusals[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return {
        "summary": summary,
        "parameters": [*([_NAME] if parameters is None else parameters), timeout],
        "requestBody": body,
        "responses": {**responses, **refusals},
    }
