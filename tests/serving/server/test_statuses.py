"""Every way to get a request wrong, and the status that says so, where KServe's defaults say 500, 200 or 405."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from driftline.serving.errors import DeadlineError, OverloadError, PoisonError, UnavailableError
from driftline.serving.server.settings import RequestLimits, ServerSettings
from tests.serving.server.fake_host import HOST, FakeModel, Served, served

LIMITS = RequestLimits(body_bytes=20_000, texts=8, timeout_s=20)
PREDICT = "/v1/models/embed:predict"
INFER = "/v2/models/embed/infer"
OPENAI = "/openai/v1/embeddings"
JSON = {"content-type": "application/json"}
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/here", "ce-type": "text", "ce-key": "k", **JSON}
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    settings = ServerSettings(host=HOST, http_port=0, grpc_port=-1, limits=LIMITS, drain_delay_s=0)
    with served(FakeModel("embed"), FakeModel("other"), settings=settings) as found:
        yield found


@pytest.fixture(autouse=True)
def _well(server: Served) -> Iterator[None]:
    yield
    for model in server.models.values():
        model.failure = model.away = model.dead = None
        model.gate.set()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]} | changes]}


def openai(**changes: Any) -> dict[str, Any]:
    return {"model": "embed", "input": "a"} | changes


def structured(**changes: Any) -> dict[str, Any]:
    event = {"specversion": "1.0", "id": "1", "source": "/here", "type": "text", "key": "k", "data": {"text": "a"}}
    return {name: value for name, value in (event | changes).items() if value is not ...}


WRONG = [
    # path, body, headers, status, part of the message
    (PREDICT, {}, JSON, 400, "no 'instances'"),
    (PREDICT, ["a"], JSON, 400, "expected a JSON object"),
    (PREDICT, b"{", JSON, 400, "is not JSON"),
    (PREDICT, b"", JSON, 400, "is not JSON"),
    (PREDICT, b"\xff", JSON, 400, "is not UTF-8"),
    (PREDICT, b'{"instances": [NaN]}', JSON, 400, "is not JSON"),
    (PREDICT, b"[" * 9000 + b"]" * 9000, JSON, 400, "is not JSON"),
    (PREDICT, {"instances": "a"}, JSON, 400, "expected an array"),
    (PREDICT, {"instances": [None]}, JSON, 400, "instances[0]"),
    (PREDICT, {"instances": ["a", 1]}, JSON, 400, "instances[1]"),
    (PREDICT, {"instances": [{"body": "a"}]}, JSON, 400, "no 'text'"),
    (PREDICT, {"instances": [{"text": None}]}, JSON, 422, "null"),
    (PREDICT, {"instances": [{"text": 5}]}, JSON, 422, "expected a string"),
    (PREDICT, {"instances": ["a", ""]}, JSON, 422, "instances[1]: the text is empty"),
    (PREDICT, {"instances": ["  \n"]}, JSON, 422, "only white space"),
    (PREDICT, {"instances": []}, JSON, 422, "no texts"),
    (PREDICT, {"instances": ["a"] * 9}, JSON, 422, "at most 8"),
    (PREDICT, {"instances": ["a"], "parameters": []}, JSON, 400, "parameters"),
    (PREDICT, {"instances": ["a"], "parameters": {"dimensions": 0}}, JSON, 400, "dimensions"),
    (PREDICT, {"instances": ["a"], "parameters": {"dimensions": 2.5}}, JSON, 400, "dimensions"),
    (PREDICT, {"instances": ["a"], "parameters": {"dimensions": 5}}, JSON, 422, "vectors of 4 numbers"),
    (PREDICT, {"instances": ["a"], "parameters": {"prompt": "no"}}, JSON, 422, "no such prompt"),
    (PREDICT, {"instances": ["a"], "parameters": {"prompt": 1}}, JSON, 400, "prompt"),
    (PREDICT, {"instances": ["a"], "parameters": {"prompt": "\ud800"}}, JSON, 422, "no such prompt"),
    (PREDICT, {"instances": ["a" * 30_000]}, JSON, 413, "larger than 20,000 bytes"),
    (PREDICT, {"instances": ["a"]}, {"content-type": "text/plain"}, 415, "expected application/json"),
    (PREDICT, {"instances": ["a"]}, {"content-type": "application/x-www-form-urlencoded"}, 415, "expected"),
    (PREDICT, {"instances": ["a"]}, {**JSON, "content-encoding": "gzip"}, 415, "uncompressed"),
    (PREDICT, {"instances": ["a"]}, {**JSON, "x-request-timeout-ms": "soon"}, 400, "milliseconds"),
    (PREDICT, {"instances": ["a"]}, {**JSON, "x-request-timeout-ms": "0"}, 504, "time"),
    ("/v1/models/nobody:predict", {"instances": ["a"]}, JSON, 404, "there are embed, other"),
    (INFER, {}, JSON, 400, "inputs"),
    (INFER, {"inputs": []}, JSON, 400, "one tensor"),
    (INFER, {"inputs": tensor()["inputs"] * 2}, JSON, 400, "one tensor"),
    (INFER, {"inputs": ["a"]}, JSON, 400, "inputs[0]"),
    (INFER, [1], JSON, 400, "JSON object"),
    (INFER, tensor(name=None), JSON, 400, "name"),
    (INFER, tensor(datatype="FP32", data=[1.0]), JSON, 400, "BYTES"),
    (INFER, tensor(datatype=["BYTES"]), JSON, 400, "BYTES"),
    (INFER, tensor(shape=[3], data=["a", "b"]), JSON, 400, "says 3 texts, its data holds 2"),
    (INFER, tensor(shape="1"), JSON, 400, "shape"),
    (INFER, tensor(shape=[-1]), JSON, 400, "shape"),
    (INFER, tensor(shape=[True]), JSON, 400, "shape"),
    (INFER, tensor(shape=[]), JSON, 400, "shape"),
    (INFER, tensor(shape=[2, 2], data=["a"] * 4), JSON, 400, "got [2, 2]"),
    (INFER, tensor(shape=[0], data=[]), JSON, 422, "no texts"),
    (INFER, tensor(shape=[9], data=["a"] * 9), JSON, 422, "at most 8"),
    (INFER, tensor(data=None), JSON, 400, "data"),
    (INFER, tensor(data=[1]), JSON, 400, "strings"),
    (INFER, tensor(data=[None]), JSON, 400, "strings"),
    (INFER, tensor(data=[" "]), JSON, 422, "white space"),
    (INFER, tensor(parameters=1), JSON, 400, "parameters"),
    (INFER, tensor(parameters={"binary_data_size": 5}), JSON, 400, "both"),
    (INFER, tensor() | {"id": 5}, JSON, 400, "id"),
    (INFER, tensor() | {"outputs": "embedding"}, JSON, 400, "outputs"),
    (INFER, tensor() | {"outputs": [{"name": "logits"}]}, JSON, 400, "logits"),
    (INFER, tensor() | {"parameters": {"binary_data_output": "yes"}}, JSON, 400, "true or false"),
    (INFER, tensor(), {**JSON, "inference-header-content-length": "9999"}, 400, "up to"),
    (INFER, tensor(), {**JSON, "inference-header-content-length": "-1"}, 400, "expected the length"),
    (INFER, tensor(), {**JSON, "inference-header-content-length": "5"}, 400, "not JSON"),
    (INFER, tensor(), {"content-type": "application/octet-stream"}, 415, "expected application/json"),
    ("/v2/models/nobody/infer", tensor(), JSON, 404, "no such model"),
    (OPENAI, {"input": "a"}, JSON, 400, "model"),
    (OPENAI, {"model": "embed"}, JSON, 400, "input"),
    (OPENAI, openai(input=[1, 2, 3]), JSON, 400, "token ids"),
    (OPENAI, openai(input=[[1, 2], [3]]), JSON, 400, "token ids"),
    (OPENAI, openai(input=[None]), JSON, 400, "array of texts"),
    (OPENAI, openai(input={"text": "a"}), JSON, 400, "input"),
    (OPENAI, openai(input=""), JSON, 422, "empty"),
    (OPENAI, openai(input=[]), JSON, 422, "no texts"),
    (OPENAI, openai(input=["a"] * 9), JSON, 422, "at most 8"),
    (OPENAI, openai(encoding_format="int8"), JSON, 400, "float or base64"),
    (OPENAI, openai(encoding_format=["float"]), JSON, 400, "float or base64"),
    (OPENAI, openai(dimensions=-1), JSON, 400, "dimensions"),
    (OPENAI, openai(dimensions=100), JSON, 422, "vectors of 4 numbers"),
    (OPENAI, openai(model="gpt"), JSON, 404, "no such model"),
    (OPENAI, openai(model="\ud800"), JSON, 404, "no such model"),
    (OPENAI, b"nonsense", JSON, 400, "not JSON"),
    # events: without a content type, malformed, empty, structured without time, in a batch
    (PREDICT, b"{", EVENT, 400, "not JSON"),
    (PREDICT, b"\xff\xfe", EVENT, 400, "UTF-8"),
    (PREDICT, {"body": "a"}, EVENT, 422, "no 'text'"),
    (PREDICT, {"text": 7}, EVENT, 422, "expected a string"),
    (PREDICT, {"text": " "}, EVENT, 422, "white space"),
    (PREDICT, [1], EVENT, 400, "JSON object"),
    (INFER, b"{", {**EVENT, "content-type": ""}, 400, "not JSON"),
    (PREDICT, {"text": "a"}, {"ce-id": "1", **JSON}, 400, "no specversion, source, type"),
    (PREDICT, {"text": "a"}, {**EVENT, "ce-specversion": "0.2"}, 400, "0.2"),
    (PREDICT, {"text": "a"}, {**EVENT, "ce-id": ""}, 400, "no id"),
    (PREDICT, {"text": "a" * 30_000}, EVENT, 413, "larger"),
    (PREDICT, structured(data=...), {**STRUCTURED, "x": "y"}, 204, ""),
    (PREDICT, structured(data=..., key=...), STRUCTURED, 400, "neither data nor a key"),
    (PREDICT, structured(data_base64="?", data=...), STRUCTURED, 400, "base64"),
    (PREDICT, structured(source=...), STRUCTURED, 400, "no source"),
    (PREDICT, structured(key=[1]), STRUCTURED, 400, "attribute key"),
    (PREDICT, structured(**{"a b": "c"}), STRUCTURED, 400, "letters and digits"),
    (PREDICT, [structured()], {"content-type": "application/cloudevents-batch+json"}, 415, "one event a request"),
    (PREDICT, b"", STRUCTURED, 400, "not JSON"),
    (PREDICT, b"[]", STRUCTURED, 400, "JSON object"),
    ("/v1/models/nobody:predict", {"text": "a"}, EVENT, 404, "no such model"),
    ("/", {"text": "a"}, EVENT, 404, "which model"),
    ("/", {"text": "a"}, JSON, 400, "CloudEvents only"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "message"), WRONG)
def test_wrong_requests_are_told_what_is_wrong(
    server: Served, path: str, body: object, headers: dict[str, str], status: int, message: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.http.post(path, content=content, headers=headers)
    assert (answer.status_code, message in answer.text) == (status, True), answer.text
    if status != 204:
        told = answer.json()["error"]
        line = told["message"] if path == OPENAI else told
        assert "\n" not in line
        assert server.http.get("/v2/health/live").status_code == 200


RIGHT = [
    (PREDICT, {"instances": ["a"]}, {"content-type": "application/json; charset=utf-8"}),
    (PREDICT, {"instances": ["a"]}, {"content-type": ""}),
    (PREDICT, {"instances": ["a"] * 8}, JSON),
    (PREDICT, {"instances": ["a"], "parameters": {"other": 1}, "signature_name": "x"}, JSON),
    (PREDICT, structured(), STRUCTURED),
    (PREDICT, structured(), {"content-type": "application/cloudevents+json; charset=utf-8"}),
    (PREDICT, {"text": "a"}, {**EVENT, "content-type": ""}),
    (INFER, {"text": "a"}, {**EVENT, "content-type": ""}),
    (INFER, tensor(shape=[1, 1]), JSON),
    (INFER, tensor(shape=[2, 1], data=[["a"], ["b"]]), JSON),
    (INFER, tensor(shape=[1, 2], data=[["a", "b"]]), JSON),
    (INFER, tensor() | {"outputs": [{"name": "embedding"}], "id": None}, JSON),
    (INFER, tensor() | {"id": "\ud800"}, JSON),
    (INFER, tensor(shape=[1.0]) | {"parameters": {"dimensions": 2.0}}, JSON),
    (OPENAI, openai(user="somebody", encoding_format=None, dimensions=None), JSON),
]


@pytest.mark.parametrize(("path", "body", "headers"), RIGHT)
def test_what_is_right_is_answered(server: Served, path: str, body: object, headers: dict[str, str]) -> None:
    answer = server.http.post(path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code == 200, answer.text


REQUESTS = [
    (PREDICT, {"instances": ["a"]}, JSON),
    (INFER, tensor(), JSON),
    (OPENAI, openai(), JSON),
    (PREDICT, {"text": "a"}, EVENT),
    (PREDICT, structured(), STRUCTURED),
]


@pytest.mark.parametrize(("path", "body", "headers"), REQUESTS)
@pytest.mark.parametrize(
    ("failure", "status", "retry"),
    [
        (OverloadError("the queue is full", 2.3), 429, "3"),
        (OverloadError("the queue is full", 0.0), 429, "1"),
        (DeadlineError("too late"), 504, None),
        (UnavailableError("away"), 503, "2"),
        (PoisonError("model-failed", "the model cannot embed this text"), 422, None),
        (RuntimeError("a secret of the machine"), 500, None),
    ],
)
def test_failures_have_one_status_in_every_protocol(
    server: Served, path: str, body: object, headers: dict[str, str], failure: Exception, status: int, retry: str | None
) -> None:
    server.models["embed"].failure = failure
    answer = server.http.post(path, json=body, headers=headers)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry)
    assert "secret" not in answer.text
    server.models["embed"].failure = None
    assert server.http.post(path, json=body, headers=headers).status_code == 200


@pytest.mark.parametrize(("path", "body", "headers"), REQUESTS)
def test_a_deadline_of_the_request_is_kept_in_every_protocol(
    server: Served, path: str, body: object, headers: dict[str, str]
) -> None:
    server.models["embed"].gate.clear()
    for name in ("x-request-timeout-ms", "x-envoy-expected-rq-timeout-ms"):
        assert server.http.post(path, json=body, headers={**headers, name: "50"}).status_code == 504


@pytest.mark.parametrize(("path", "body", "headers"), REQUESTS)
def test_a_model_that_is_loading_answers_503(server: Served, path: str, body: object, headers: dict[str, str]) -> None:
    server.models["embed"].away = "loading"
    answer = server.http.post(path, json=body, headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "loading" in answer.text


def test_openai_errors_are_openais_object(server: Served) -> None:
    error = server.http.post(OPENAI, json=openai(dimensions=-1)).json()["error"]
    assert error == {
        "message": "dimensions: expected an integer of 1 or more, the leading numbers of the vectors to keep, got -1",
        "type": "invalid_request_error",
        "param": "dimensions",
        "code": None,
    }
    server.models["embed"].failure = OverloadError("the queue is full", 1)
    error = server.http.post(OPENAI, json=openai()).json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "overload")


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "/v1/models/embed:explain", 405, {"GET", "HEAD"}),
        ("PUT", "/", 405, {"GET", "HEAD", "POST"}),
        ("POST", "/v2/health/live", 405, {"GET", "HEAD"}),
        ("GET", OPENAI, 405, {"POST"}),
    ],
)
def test_routes_and_methods_that_are_not_there(
    server: Served, method: str, path: str, status: int, allowed: set[str] | None
) -> None:
    answer = server.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} {path}")
    found = answer.headers.get("allow")
    assert (None if found is None else set(found.split(", "))) == allowed


def test_a_body_far_too_large_is_refused_though_it_is_all_sent(server: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 1_000_000

    answer = server.http.post(PREDICT, content=pieces(), headers=JSON)
    assert (answer.status_code, "larger than" in answer.text) == (413, True)


def test_the_metrics_tell_protocols_and_codes_apart(server: Served) -> None:
    def count(protocol: str, code: str) -> float:
        labels = {"protocol": protocol, "code": code}
        return server.registry.get_sample_value("driftline_server_requests_total", labels) or 0.0

    before = {key: count(*key) for key in [("v1", "200"), ("v2", "400"), ("openai", "404"), ("event", "422")]}
    server.http.post(PREDICT, json={"instances": ["a"]})
    server.http.post(INFER, json={})
    server.http.post(OPENAI, json=openai(model="gpt"))
    server.http.post(PREDICT, json={"text": ""}, headers=EVENT)
    assert {key: count(*key) - value for key, value in before.items()} == dict.fromkeys(before, 1.0)
    shown = server.http.get("/metrics")
    assert shown.headers["content-type"].startswith("text/plain")
    assert 'driftline_server_requests_total{code="200",protocol="v1"}' in shown.text
