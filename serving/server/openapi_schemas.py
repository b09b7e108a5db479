"""The schemas of the OpenAPI document: each protocol's bodies."""

from __future__ import annotations

from typing import Any, Final

from driftline.serving.server.protocols.tensors import INPUT, OUTPUT
from driftline.serving.server.settings import RequestLimits

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
NUMBERS: Final[Schema] = {"type": "array", "items": {"type": "number"}}


def schemas(limits: RequestLimits) -> Schema:
    """Return the schemas by name."""
    text = {"type": "string", "minLength": 1, "pattern": r"\S"}
    several = {"type": "array", "minItems": 1, "maxItems": limits.texts}
    prompt = {"type": ["string", "null"], "description": "Name of one of the model's prompts."}
    dimensions = {"type": ["integer", "null"], "minimum": 1, "description": "Leading numbers of the vectors to keep."}
    options: Schema = {"type": ["object", "null"], "properties": {"prompt": prompt, "dimensions": dimensions}}
    binary = {"binary_data_output": {"type": "boolean"}}
    tensor = object_of({"name": STRING, "datatype": STRING, "shape": {"type": "array", "items": {"type": "integer"}}})
    return {
        "Error": object_of({"error": STRING}, "error"),
        "OpenAIError": object_of(
            {
                "error": object_of(
                    {
                        "message": STRING,
                        "type": STRING,
                        "param": {"type": ["string", "null"]},
                        "code": {"type": ["string", "null"]},
                    },
                    "message", "type", "param", "code",
                )
            },
            "error",
        ),
        "V1Request": object_of(
            {
                "instances": {**several, "items": {"anyOf": [text, object_of({"text": text}, "text")]}},
                "parameters": options,
            },
            "instances",
        ),
        "V1Response": object_of({"predictions": {"type": "array", "items": NUMBERS}}, "predictions"),
        "V2Request": object_of(
            {
                "id": {"type": ["string", "null"]},
                "parameters": {**options, "properties": {**options["properties"], **binary}},
                "inputs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": object_of(
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
                        "name", "datatype", "shape", "data",
                    ),
                },
                "outputs": {
                    "type": ["array", "null"],
                    "items": object_of(
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
        "V2Response": object_of(
            {
                "model_name": STRING,
                "id": STRING,
                "outputs": {
                    "type": "array",
                    "items": {**tensor, "properties": {**tensor["properties"], "data": NUMBERS}},
                },
            },
            "model_name", "id", "outputs",
        ),
        "Model": object_of(
            {
                "name": STRING,
                "versions": {"type": "array", "items": STRING},
                "platform": STRING,
                "inputs": {"type": "array", "items": tensor},
                "outputs": {"type": "array", "items": tensor},
            },
            "name", "versions", "platform", "inputs", "outputs",
        ),
        "OpenAIModel": object_of(
            {
                "id": STRING,
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": STRING,
                "revision": STRING,
                "dimension": {"type": "integer"},
                "max_tokens": {"type": "integer"},
            },
            "id", "object", "created", "owned_by",
        ),
        "OpenAIRequest": object_of(
            {
                "model": STRING,
                "input": {"anyOf": [text, {**several, "items": text}]},
                "encoding_format": {"enum": ["float", "base64", None]},
                "dimensions": dimensions,
                "prompt": prompt,
            },
            "model", "input",
        ),
        "OpenAIResponse": object_of(
            {
                "object": {"const": "list"},
                "model": STRING,
                "data": {
                    "type": "array",
                    "items": object_of(
                        {
                            "object": {"const": "embedding"},
                            "index": {"type": "integer"},
                            "embedding": {"anyOf": [NUMBERS, STRING]},
                        },
                        "object", "index", "embedding",
                    ),
                },
                "usage": object_of(
                    {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
                    "prompt_tokens", "total_tokens",
                ),
            },
            "object", "model", "data", "usage",
        ),
        "Event": {
            **_event(
                {
                    "key": {"type": "string"},
                    "data": {"anyOf": [text, object_of({"text": text}, "text"), ref("V1Request")]},
                }
            ),
            "propertyNames": {"pattern": "^[a-z0-9]+$"},
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
            "description": "A CloudEvent in structured mode, data_base64 instead of data too; binary mode is taken.",
        },
        "ReplyEvent": {**_event({"data": {"anyOf": [ref("Embedding"), ref("V1Response")]}})},
        "Embedding": object_of(
            {
                "id": STRING,
                "model": STRING,
                "revision": STRING,
                "embedding": {"anyOf": [NUMBERS, STRING]},
                "text": STRING,
            },
            "id", "model", "revision", "embedding",
        ),
    }  # fmt: skip


def object_of(properties: Schema, *required: str) -> Schema:
    """Return the schema of an object."""
    return {"type": "object", "properties": properties, "required": [*required]}


def ref(name: str) -> Schema:
    """Return what stands for a schema of :func:`schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _event(properties: Schema) -> Schema:
    word = {"type": "string", "minLength": 1}
    attributes = {"specversion": {"const": "1.0"}, "id": word, "source": word, "type": word}
    return object_of({**attributes, "datacontenttype": STRING, **properties}, *attributes, "data")
