"""The V1 protocol: `{"instances": […]}` in, `{"predictions": [[…], …]}` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import orjson
from pydantic import FailFast, Field
from typing_extensions import TypedDict

from driftline.serving.server.bodies import SEVERAL, AnyText, BodyType, Text, Vectors, json_numbers
from driftline.serving.server.service import EmbeddingService, Options

if TYPE_CHECKING:
    from driftline.serving.models.served import ServedModel

INSTANCES: Final = "instances"


class TextInstance(TypedDict):  # there are many: a dictionary stays what it is
    """A text as an object."""

    text: AnyText


Instance = Annotated[Text | TextInstance, Field(description="a text, or an object with 'text'")]


@dataclass(frozen=True, slots=True)
class V1Request:
    """Texts to embed."""

    instances: Annotated[
        list[Instance],
        FailFast(),
        Field(description="an array of texts, or of objects with 'text'", json_schema_extra=SEVERAL),
    ]
    parameters: Annotated[Options | None, Field(description="an object of parameters")] = None


class V1Response(TypedDict):
    """The texts' vectors."""

    predictions: Vectors


REQUEST: Final = BodyType(V1Request)


async def predictions(service: EmbeddingService, model: ServedModel, body: object, expires: float) -> V1Response:
    """Answer a V1 request.

    Args:
        service: makes the vectors.
        model: of what the path names.
        body: the request's JSON.
        expires: `time.monotonic()` when the answer would come too late.

    Raises:
        RequestError, DriftlineError: it is refused, or fails.
    """
    request = REQUEST.read(body)
    given = [one if isinstance(one, str) else one["text"] for one in request.instances]
    texts = service.check_texts(INSTANCES, given)
    embedded = await service.embed_in_time(model, texts, request.parameters or Options(), expires)
    return {"predictions": orjson.Fragment(await json_numbers(embedded.vectors))}
