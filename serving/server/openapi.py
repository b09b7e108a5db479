"""The OpenAPI document of the routes, complete enough for clients and fuzzers to be made of it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from driftline.serving.server.cloudevents import STRUCTURED
from driftline.serving.server.service import TIMEOUT_HEADER
from driftline.serving.server.settings import RequestLimits
from driftline.serving.server.tensors import INPUT, OUTPUT
from driftline.serving.server.v2 import BINARY, JSON_LENGTH_HEADER

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_NUMBERS: Final[Schema] = {"type": "array", "items": {"type": "number"}}
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
        "paths": {**_health_paths(), **_model_paths(), **_embedding_paths(limits)},
        "components": {"schemas": _schemas(limits)},
    }


def _health_paths() -> Schema:
    live = _object({"live": {"type": "boolean"}, "reason": _STRING}, "live")
    ready = _object({"ready": {"type": "boolean"}, "reason": _STRING}, "ready")
    status = _object({"status": {"enum": ["alive", "dead"]}, "reason": _STRING}, "status")
    model = _object({"name": _STRING, "ready": {"type": "boolean"}, "reason": _STRING}, "name", "ready")
    return {
        "/": {
            "get": _probe("Whether the server is alive", status),
            "post": _operation(
                "Answer a CloudEvent, where one model is served",
                {"required": True, "content": {STRUCTURED: {"schema": _ref("Event")}}},
                {"200": _answer("An event with the embedding", _ref("Event"), STRUCTURED), "204": _empty("A deletion")},
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
                            "text/plain": {"schema": _STRING},
                            "application/openmetrics-text": {"schema": _STRING},
                        },
                    }
                },
            }
        },
        "/openapi.json": {"get": _read("This document", {"type": "object"})},
    }


def _model_paths() -> Schema:
    names = _object({"models": {"type": "array", "items": _STRING}}, "models")
    server = _object(
        {"name": _STRING, "version": _STRING, "extensions": {"type": "array", "items": _STRING}},
        "name", "version", "extensions",
    )  # fmt: skip
    models = _object(
        {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("OpenAIModel")}}, "object", "data"
    )
    return {
        "/v1/models": {"get": _read("The models' names", names)},
        "/v2": {"get": _read("The server's name, version and extensions", server)},
        "/v2/models": {"get": _read("The models' names", names)},
        "/v2/models/{model}": {"get": _read("A model's tensors and versions", _ref("Model"), of_model=True)},
        "/openai/v1/models": {"get": _read("The models", models)},
        "/openai/v1/models/{model}": {
            "get": _read("A model", _ref("OpenAIModel"), of_model=True, error="OpenAIError"),
        },
    }


def _embedding_paths(limits: RequestLimits) -> Schema:
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
                        "application/json": {"schema": _ref("V1Request")},
                        STRUCTURED: {"schema": _ref("Event")},
                    },
                },
                {
                    "200": {
                        "description": "The vectors, or an event with one",
                        "content": {
                            "application/json": {"schema": _ref("V1Response")},
                            STRUCTURED: {"schema": _ref("Event")},
                        },
                    },
                    **events,
                },
            )
        },
        "/v2/models/{model}/infer": {
            "post": _operation(
                "Embed texts (V2); binary tensors follow the JSON",
                {"required": True, "content": {"application/json": {"schema": _ref("V2Request")}}},
                {
                    "200": {
                        "description": "The vectors",
                        "content": {
                            "application/json": {"schema": _ref("V2Response")},
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
                {"required": True, "content": {"application/json": {"schema": _ref("OpenAIRequest")}}},
                {"200": _answer("The vectors", _ref("OpenAIResponse"))},
                parameters=[],
                error="OpenAIError",
            )
        },
    }


def _schemas(limits: RequestLimits) -> Schema:
    text = {"type": "string", "minLength": 1, "pattern": r"\S"}
    several = {"type": "array", "minItems": 1, "maxItems": limits.texts}
    prompt = {"type": ["string", "null"], "description": "Name of one of the model's prompts."}
    dimensions = {"type": ["integer", "null"], "minimum": 1, "description": "Leading numbers of the vectors to keep."}
    options: Schema = {"type": ["object", "null"], "properties": {"prompt": prompt, "dimensions": dimensions}}
    binary = {"binary_data_output": {"type": "boolean"}}
    tensor = _object({"name": _STRING, "datatype": _STRING, "shape": {"type": "array", "items": {"type": "integer"}}})
    return {
        "Error": _object({"error": _STRING}, "error"),
        "OpenAIError": _object(
            {
                "error": _object(
                    {
                        "message": _STRING,
                        "type": _STRING,
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    },
                    "message", "type", "param", "code",
                )
            },
            "error",
        ),
        "V1Request": _object(
            {
                "instances": {**several, "items": {"anyOf": [text, _object({"text": text}, "text")]}},
                "parameters": options,
            },
            "instances",
        ),
        "V1Response": _object({"predictions": {"type": "array", "items": _NUMBERS}}, "predictions"),
        "V2Request": _object(
            {
                "id": {"type": ["string", "null"]},
                "parameters": {**options, "properties": {**options["properties"], **binary}},
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": _object(
                        {
                            "name": {"type": "string", "example": INPUT},
                            "datatype": {"const": "BYTES"},
                            "shape": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": 2,
                                "items": {"type": "integer", "minimum": 0},
                                "description": "[n], [n, 1] or [1, n] for n texts.",
                            },
                            "data": {**several, "items": text},
                            "parameters": {"type": ["object", "null"]},
                        },
                        "name", "datatype", "shape",
                    ),
                },
                "outputs": {
                    "type": ["array", "null"],
                    "items": _object(
                        {
                            "name": {"const": OUTPUT},
                            "parameters": {
                                "type": ["object", "null"], "properties": {"binary_data": {"type": "boolean"}}
                            },
                        },
                        "name",
                    ),
                },
            },
            "inputs",
        ),
        "V2Response": _object(
            {
                "model_name": _STRING,
                "id": _STRING,
                "outputs": {
                    "type": "array",
                    "items": {**tensor, "properties": {**tensor["properties"], "data": _NUMBERS}},
                },
            },
            "model_name", "id", "outputs",
        ),
        "Model": _object(
            {
                "name": _STRING,
                "versions": {"type": "array", "items": _STRING},
                "platform": _STRING,
                "inputs": {"type": "array", "items": tensor},
                "outputs": {"type": "array", "items": tensor},
            },
            "name", "versions", "platform", "inputs", "outputs",
        ),
        "OpenAIModel": _object(
            {
                "id": _STRING,
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": _STRING,
                "revision": _STRING,
                "dimension": {"type": "integer"},
                "max_tokens": {"type": "integer"},
            },
            "id", "object", "created", "owned_by",
        ),
        "OpenAIRequest": _object(
            {
                "model": _STRING,
                "input": {"anyOf": [text, {**several, "items": text}]},
                "encoding_format": {"enum": ["float", "base64", None]},
                "dimensions": dimensions,
                "prompt": prompt,
            },
            "model", "input",
        ),
        "OpenAIResponse": _object(
            {
                "object": {"const": "list"},
                "model": _STRING,
                "data": {
                    "type": "array",
                    "items": _object(
                        {
                            "object": {"const": "embedding"},
                            "index": {"type": "integer"},
                            "embedding": {"anyOf": [_NUMBERS, _STRING]},
                        },
                        "object", "index", "embedding",
                    ),
                },
                "usage": _object(
                    {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
                    "prompt_tokens", "total_tokens",
                ),
            },
            "object", "model", "data", "usage",
        ),
        "Event": {
            **_object(
                {
                    "specversion": {"const": "1.0"},
                    "id": {"type": "string", "minLength": 1},
                    "source": {"type": "string", "minLength": 1},
                    "type": {"type": "string", "minLength": 1},
                    "datacontenttype": {"type": "string"},
                    "key": {"type": "string", "minLength": 1},
                    "data": {"anyOf": [text, _object({"text": text}, "text"), {"type": "object"}]},
                },
                "specversion", "id", "source", "type", "data",
            ),
            "description": "A CloudEvent in structured mode; binary mode is taken too, with the attributes as headers.",
        },
    }  # fmt: skip


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": [*required]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: Schema, kind: str = "application/json") -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _empty(description: str) -> Schema:
    return {"description": description}


def _read(summary: str, schema: Schema, *, of_model: bool = False, error: str = "Error") -> Schema:
    responses = {"200": _answer(summary, schema)}
    if of_model:
        responses["404"] = _answer(_REFUSALS["404"], _ref(error))
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
    refusals = {status: _answer(description, _ref(error)) for status, description in _REFUSALS.items()}
    for status in ("429", "503"):
        refusals[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return {
        "summary": summary,
        "parameters": [*([_NAME] if parameters is None else parameters), timeout],
        "requestBody": body,
        "responses": {**responses, **refusals},
    }
