"""The OpenAPI document, made of the routes' operations and of the types of their bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal, cast, get_type_hints

from pydantic import TypeAdapter, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from driftline.serving.server.bodies import JSON, MOST_TEXTS, Schema
from driftline.serving.server.failures import Failure
from driftline.serving.server.metadata import Error
from driftline.serving.server.service import TIMEOUT_HEADER
from driftline.serving.server.settings import RequestLimits

Types = Mapping[str, Any]
"""Types of bodies by media type."""

Binary = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]

_REFERENCE: Final = "#/components/schemas/{model}"
_NAME: Final[Schema] = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_TIMEOUT: Final[Schema] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "Milliseconds that the answer may take.",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]{2,8}$"},
}
_NOT_FOUND: Final = "404"
_REFUSALS: Final = {
    "400": "The body is not of the protocol's form.",
    _NOT_FOUND: "There is no such model.",
    "413": "The body is too large.",
    "415": "The body is of another content type, or compressed.",
    "422": "A text is empty or blank, there are too many, or the model has no such prompt or dimension.",
    "429": "The queue is full; try again after the seconds of Retry-After.",
    "503": "The model is not loaded yet, or the server is shutting down, or the output topic's brokers are away.",
    "504": "The answer would have come too late.",
}
_TRIED_AGAIN: Final = ("429", "503")


def plain_error(failure: Failure) -> Error:
    """Return a failed request's answer."""
    return {"error": failure.message}


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a route, as it is carried out and as it is described.

    Attributes:
        method: GET or POST.
        path: the route.
        handler: the method of the routes that answers it.
        summary: what it does.
        gives: types of its answer with 200.
        takes: types of a POST's body.
        protocol: of a POST, for the metrics.
        events: whether it takes CloudEvents, too; in binary mode any type of body is one's data.
        probe: whether it answers with the same type and 503 where the answer is no.
        empty: what an answer with 204 means; empty where there is none.
        headers: parameters of its own.
        write_error: makes the body of an error; the type that it returns describes it.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[..., Any]
    summary: str
    gives: Types
    takes: Types = field(default_factory=dict[str, Any])
    protocol: str = ""
    events: bool = False
    probe: bool = False
    empty: str = ""
    headers: tuple[Schema, ...] = ()
    write_error: Callable[[Failure], Any] = plain_error


class _Schemas(GenerateJsonSchema):
    """pydantic's schemas without a title for each field."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(operations: Iterable[Operation], limits: RequestLimits) -> Schema:
    """Return the document of some operations, as JSON has it."""
    operations = [*operations]
    types = {
        _key(body): TypeAdapter[Any](body)
        for operation in operations
        for body in (*operation.takes.values(), *operation.gives.values(), _error_type(operation))
    }
    found, components = TypeAdapter.json_schemas(
        [(key, "validation", adapter) for key, adapter in types.items()],
        ref_template=_REFERENCE,
        schema_generator=_Schemas,
    )
    schemas = {key: schema for (key, _), schema in found.items()}
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    content: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Driftline",
            "version": version("driftline"),
            "description": "Embeddings of texts by KServe's protocols V1 and V2, OpenAI's API and CloudEvents.",
        },
        "paths": paths,
        "components": {"schemas": components["$defs"]},
    }
    return _with_limits(content, limits)


def _described(operation: Operation, schemas: Mapping[str, Schema]) -> Schema:
    def bodies(types: Types) -> Schema:
        return {"content": {kind: {"schema": schemas[_key(body)]} for kind, body in types.items()}}

    def refused(status: str) -> Schema:
        headers = {"headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}}
        answer = {"description": _REFUSALS[status], **bodies({JSON: _error_type(operation)})}
        return {**answer, **headers} if status in _TRIED_AGAIN else answer

    of_model = "{model}" in operation.path
    posted = operation.method == "POST"
    responses: Schema = {"200": {"description": operation.summary, **bodies(operation.gives)}}
    if operation.empty:
        responses["204"] = {"description": operation.empty}
    if posted or of_model:
        responses |= {status: refused(status) for status in (_REFUSALS if posted else (_NOT_FOUND,))}
    if operation.probe:
        responses["503"] = {"description": "No, for the reason given", **bodies(operation.gives)}
    described: Schema = {
        "summary": operation.summary,
        "parameters": [*([_NAME] if of_model else []), *operation.headers, *([_TIMEOUT] if posted else [])],
        "responses": responses,
    }
    if posted:
        described["requestBody"] = {"required": True, **bodies(operation.takes)}
    return described


def _key(body: Any) -> str:
    return getattr(body, "__name__", None) or repr(body)


def _error_type(operation: Operation) -> Any:
    return get_type_hints(operation.write_error)["return"]


def _with_limits(schema: Any, limits: RequestLimits) -> Any:
    """Put a server's limits where the types leave room for them."""
    if isinstance(schema, dict):
        return {name: _with_limits(value, limits) for name, value in cast("Schema", schema).items()}
    if isinstance(schema, list):
        return [_with_limits(value, limits) for value in cast("list[Any]", schema)]
    return limits.texts if schema == MOST_TEXTS else schema
