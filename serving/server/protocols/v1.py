"""The V1 protocol: `{"instances": […]}` in, `{"predictions": [[…], …]}` out."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import orjson

from driftline.serving.server.bodies import json_numbers
from driftline.serving.server.failures import RequestError
from driftline.serving.server.service import EmbeddingService, Options, read_options

INSTANCES: Final = "instances"


def read_instances(service: EmbeddingService, body: Mapping[str, Any]) -> tuple[list[str], Options]:
    """Read the texts and what is asked for beside them: `instances` of strings or objects with `text`; `parameters`.

    Raises:
        RequestError, PoisonError: the body is not so.
    """
    if INSTANCES not in body:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "the body has no 'instances'; expected {'instances': ['a text', {'text': '…'}, …]}"
        )
    instances = body[INSTANCES]
    if not isinstance(instances, list):
        raise RequestError(HTTPStatus.BAD_REQUEST, f"{INSTANCES}: expected an array of texts")
    texts: list[object] = []
    for number, instance in enumerate(cast("list[object]", instances)):
        if isinstance(instance, dict):
            fields = cast("dict[str, object]", instance)
            if "text" not in fields:
                raise RequestError(HTTPStatus.BAD_REQUEST, f"{INSTANCES}[{number}]: the object has no 'text'")
            texts.append(fields["text"])
        elif isinstance(instance, str):
            texts.append(instance)
        else:
            raise RequestError(
                HTTPStatus.BAD_REQUEST, f"{INSTANCES}[{number}]: expected a text, or an object with 'text'"
            )
    return service.check_texts(INSTANCES, texts), read_options("parameters", body.get("parameters"))


async def predictions(
    service: EmbeddingService, model: str, body: Mapping[str, Any], expires: float
) -> dict[str, object]:
    """Answer a V1 request.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    found = service.model(model)
    texts, options = read_instances(service, body)
    embedded = await service.embed(found, texts, options, expires)
    return {"predictions": orjson.Fragment(await json_numbers(embedded.vectors))}
