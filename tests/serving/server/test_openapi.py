"""The OpenAPI document is true to the routes, and no request made of it, right or wrong, ends in a 500."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.routing import Route

from driftline.serving.server.openapi import document
from driftline.serving.server.routes import OPERATIONS
from driftline.serving.server.settings import RequestLimits, ServerSettings
from tests.serving.server.fake_host import HOST, FakeModel, Served, served

LIMITS = RequestLimits(body_bytes=100_000, texts=8, timeout_s=20)
FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    options = ServerSettings(host=HOST, http_port=0, grpc_port=-1, limits=LIMITS, drain_delay_s=0)
    with served(FakeModel("embed"), settings=options) as found:
        yield found


def test_the_document_names_every_route_and_method(server: Served) -> None:
    routes = {
        (route.path, method.lower())
        for route in server.server._routes.application().routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    found = server.http.get("/openapi.json").json()
    assert found == json.loads(json.dumps(document(OPERATIONS, LIMITS)))
    assert {(path, method) for path, methods in found["paths"].items() for method in methods} == routes


def test_every_schema_is_one(server: Served) -> None:
    schemas = document(OPERATIONS, LIMITS)["components"]["schemas"]
    assert schemas
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


# What is asked for by GET has nothing in it that can be wrong.
CASES = [
    (path, method, mode)
    for path, methods in document(OPERATIONS, LIMITS)["paths"].items()
    for method in methods
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if method == "post" or mode is GenerationMode.POSITIVE
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_requests_made_of_the_document(server: Served, path: str, method: str, mode: GenerationMode) -> None:
    operation = schemathesis.openapi.from_url(f"{server.http.base_url}/openapi.json")[path][method]
    strategy = operation.as_strategy(generation_mode=mode)

    @FEW
    @given(case=strategy)
    def check(case: schemathesis.Case) -> None:
        if "model" in case.path_parameters:
            case.path_parameters["model"] = "embed"
        answer = case.call()
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        # What a schema cannot say is told by 422 (a prompt that the model lacks), and in V2 that a shape fits the data.
        if mode is GenerationMode.POSITIVE and not path.startswith("/v2"):
            assert answer.status_code in (200, 204, 404, 422), answer.text

    check()


NAMES = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=20) | st.sampled_from(
    ["1.0", "partition:0/offset:1", "partition:x/offset:1", "a#topic", "#", "%", "%C3%28", "2026-99-99", "é"]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        ["specversion", "id", "source", "type", "key", "time", "subject", "kafkaheaderx", "datacontenttype"]
    )
    | NAMES,
    VALUES,
    max_size=8,
)
BODIES = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "instances", "id", "data", "specversion", "source"]), inner)
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
TYPES = st.sampled_from(
    [
        "",
        "application/json",
        "text/plain",
        "text/plain; charset=latin-1",
        "application/cloudevents+json",
        "image/png",
        ";",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attributes=ATTRIBUTES, body=BODIES, kind=TYPES, whole=st.booleans())
def test_events_of_any_kind_are_answered_and_never_with_500(
    server: Served, attributes: dict[str, str], body: bytes, kind: str, whole: bool
) -> None:
    if whole:
        attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"} | attributes
    headers = [(f"ce-{name}".encode(), value.encode("utf-8")) for name, value in attributes.items()]
    if kind:
        headers.append((b"content-type", kind.encode()))
    answer = server.http.post("/v1/models/embed:predict", content=body, headers=headers)
    assert answer.status_code in (200, 204, 400, 415, 422), answer.text


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=BODIES,
    length=st.none() | st.integers(-5, 80).map(str) | st.text(string.printable.strip(), max_size=5),
    path=st.sampled_from(["/v1/models/embed:predict", "/v2/models/embed/infer", "/openai/v1/embeddings", "/"]),
)
def test_bodies_of_any_kind_are_answered_and_never_with_500(
    server: Served, content: bytes, length: str | None, path: str
) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    try:
        answer = server.http.post(path, content=content, headers=headers)
    except (httpx.LocalProtocolError, UnicodeEncodeError):  # the client itself refuses such a header
        return
    assert answer.status_code in (200, 400, 415, 422), answer.text
