"""The V2 protocol in gRPC, driven with KServe's own messages over a real channel."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from driftline.components.errors import UsageError
from driftline.serving.errors import OverloadError, UnavailableError
from driftline.serving.server.kserve_parts import messages
from driftline.serving.server.settings import RequestLimits, ServerSettings
from tests.serving.server.fake_host import HOST, FakeModel, Served, served, vector_of
from tests.support.brokers import eventually

TEXTS = ["a text", "ein Text", "текст", "文"]
EXPECTED = np.stack([vector_of(text) for text in TEXTS])
SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    limits = RequestLimits(body_bytes=100_000, texts=8, timeout_s=20)
    settings = ServerSettings(host=HOST, http_port=0, grpc_port=0, limits=limits, drain_delay_s=0)
    with served(FakeModel("embed"), settings=settings) as found:
        yield found


@pytest.fixture(scope="module")
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as found:
        yield found


@pytest.fixture(autouse=True)
def _well(server: Served) -> Iterator[None]:
    yield
    model = server.models["embed"]
    model.failure = model.away = model.dead = None
    model.gate.set()


def call(channel: grpc.Channel, method: str, request: Any, answer: Any, timeout: float = 20) -> Any:
    stub = channel.unary_unary(
        SERVICE + method, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
    )
    return stub(request, timeout=timeout)


def infer(channel: grpc.Channel, timeout: float = 20, **fields: Any) -> Any:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [4], "contents": {"bytes_contents": encoded(TEXTS)}}
    request = messages.ModelInferRequest(**({"model_name": "embed", "id": "7", "inputs": [tensor]} | fields))
    return call(channel, "ModelInfer", request, messages.ModelInferResponse, timeout)


def encoded(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def tensor(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a"]}} | changes]


def test_contents_in_contents_out(channel: grpc.Channel) -> None:
    answer = infer(channel)
    output = answer.outputs[0]
    assert (answer.id, answer.model_name, output.name, output.datatype) == ("7", "embed", "embedding", "FP32")
    assert np.array_equal(np.array(output.contents.fp32_contents, np.float32).reshape(output.shape), EXPECTED)


def test_raw_in_raw_out(channel: grpc.Channel) -> None:
    raw = b"".join(struct.pack("<I", len(text)) + text for text in encoded(TEXTS))
    answer = infer(channel, inputs=[{"name": "text", "datatype": "BYTES", "shape": [4, 1]}], raw_input_contents=[raw])
    assert not answer.outputs[0].HasField("contents")
    vectors = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
    assert np.array_equal(vectors, EXPECTED)


def test_parameters(channel: grpc.Channel) -> None:
    answer = infer(
        channel, inputs=tensor(), parameters={"prompt": {"string_param": "query"}, "dimensions": {"int64_param": 2}}
    )
    assert np.array_equal(np.array(answer.outputs[0].contents.fp32_contents, np.float32), vector_of("querya")[:2])


WRONG = [
    ({"model_name": "nobody"}, "NOT_FOUND", "there are embed"),
    ({"inputs": []}, "INVALID_ARGUMENT", "one tensor"),
    ({"inputs": tensor() * 2}, "INVALID_ARGUMENT", "one tensor"),
    ({"inputs": tensor(datatype="FP32", contents={"fp32_contents": [1.0]})}, "INVALID_ARGUMENT", "BYTES"),
    ({"inputs": tensor(shape=[3])}, "INVALID_ARGUMENT", "says 3"),
    ({"inputs": tensor(shape=[-1])}, "INVALID_ARGUMENT", "shape"),
    ({"inputs": tensor(contents={"bytes_contents": [b"\xff"]})}, "INVALID_ARGUMENT", "UTF-8"),
    ({"inputs": tensor(contents={"bytes_contents": [b" "]})}, "INVALID_ARGUMENT", "white space"),
    ({"inputs": tensor(shape=[9], contents={"bytes_contents": [b"a"] * 9})}, "INVALID_ARGUMENT", "at most 8"),
    ({"inputs": tensor(), "raw_input_contents": [b"\1\0\0\0a"]}, "INVALID_ARGUMENT", "contents"),
    ({"inputs": tensor(contents=None), "raw_input_contents": [b"\x09\0\0\0a"]}, "INVALID_ARGUMENT", "beyond"),
    ({"outputs": [{"name": "logits"}]}, "INVALID_ARGUMENT", "logits"),
    ({"parameters": {"dimensions": {"string_param": "2"}}}, "INVALID_ARGUMENT", "dimensions"),
    ({"parameters": {"dimensions": {"int64_param": 99}}}, "INVALID_ARGUMENT", "vectors of 4"),
    ({"parameters": {"prompt": {}}, "inputs": []}, "INVALID_ARGUMENT", "one tensor"),
    ({"inputs": tensor(contents={"bytes_contents": [b"a" * 200_000]})}, "RESOURCE_EXHAUSTED", ""),
]


@pytest.mark.parametrize(("fields", "status", "message"), WRONG)
def test_wrong_requests(channel: grpc.Channel, fields: dict[str, Any], status: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, **fields)
    assert caught.value.code() == grpc.StatusCode[status]
    assert message in caught.value.details()


@pytest.mark.parametrize(
    ("failure", "status", "pushback"),
    [
        (OverloadError("full", 1.5), "RESOURCE_EXHAUSTED", "1500"),
        (UnavailableError("away"), "UNAVAILABLE", "2000"),
        (UsageError("no such prompt"), "INVALID_ARGUMENT", None),
        (RuntimeError("a secret of the machine"), "INTERNAL", None),
    ],
)
def test_failures(channel: grpc.Channel, server: Served, failure: Exception, status: str, pushback: str | None) -> None:
    server.models["embed"].failure = failure
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel)
    assert caught.value.code() == grpc.StatusCode[status]
    assert "secret" not in caught.value.details()
    assert dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms") == pushback


def test_a_deadline_ends_the_call_and_drops_its_texts(channel: grpc.Channel, server: Served) -> None:
    model = server.models["embed"]
    model.gate.clear()
    before = len(model.asked)
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, timeout=0.3)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(model.asked) == before + 1
    eventually(lambda: server.registry.get_sample_value("driftline_server_requests_in_flight") == 0)


def test_a_cancelled_call_drops_its_texts(channel: grpc.Channel, server: Served) -> None:
    model = server.models["embed"]
    model.gate.clear()
    asked, cancelled = len(model.asked), model.cancelled
    request = messages.ModelInferRequest(model_name="embed", inputs=tensor())
    stub = channel.unary_unary(SERVICE + "ModelInfer", request_serializer=type(request).SerializeToString)
    pending = stub.future(request)
    eventually(lambda: len(model.asked) == asked + 1)
    pending.cancel()
    eventually(lambda: model.cancelled == cancelled + 1)


def ready(channel: grpc.Channel) -> tuple[bool, bool, bool]:
    return (
        call(channel, "ServerLive", messages.ServerLiveRequest(), messages.ServerLiveResponse).live,
        call(channel, "ServerReady", messages.ServerReadyRequest(), messages.ServerReadyResponse).ready,
        call(channel, "ModelReady", messages.ModelReadyRequest(name="embed"), messages.ModelReadyResponse).ready,
    )


def test_health(channel: grpc.Channel, server: Served) -> None:
    assert ready(channel) == (True, True, True)
    server.models["embed"].away = "loading"
    assert ready(channel) == (True, False, False)
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    server.models["embed"].away = None
    server.models["embed"].dead = "its encoder's thread has ended"
    assert ready(channel) == (False, False, False)


def test_metadata(channel: grpc.Channel) -> None:
    request = messages.ModelMetadataRequest(name="embed")
    found = call(channel, "ModelMetadata", request, messages.ModelMetadataResponse)
    assert [(one.name, one.datatype, [*one.shape]) for one in (*found.inputs, *found.outputs)] == [
        ("text", "BYTES", [-1]),
        ("embedding", "FP32", [-1, 4]),
    ]
    server = call(channel, "ServerMetadata", messages.ServerMetadataRequest(), messages.ServerMetadataResponse)
    assert server.name == "driftline"


@pytest.mark.parametrize(
    ("method", "request_", "status"),
    [
        ("ModelReady", messages.ModelReadyRequest(name="nobody"), "NOT_FOUND"),
        ("ModelMetadata", messages.ModelMetadataRequest(name="nobody"), "NOT_FOUND"),
        ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="embed"), "UNIMPLEMENTED"),
        ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="embed"), "UNIMPLEMENTED"),
    ],
)
def test_what_is_not_there(channel: grpc.Channel, method: str, request_: Any, status: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, request_, messages.ServerReadyResponse)
    assert caught.value.code() == grpc.StatusCode[status]


def test_calls_in_hand_are_answered_when_the_server_ends() -> None:
    model = FakeModel("embed")
    model.gate.clear()
    with served(model) as server, grpc.insecure_channel(server.grpc) as channel:
        answers: list[Any] = []
        caller = threading.Thread(target=lambda: answers.append(infer(channel)))
        caller.start()
        eventually(lambda: len(model.asked) == 1)
        server.stop()
        eventually(lambda: server.server.health.refusing)
        model.gate.set()
        caller.join(30)
        server.ended()
    assert np.array_equal(np.array(answers[0].outputs[0].contents.fp32_contents, np.float32), EXPECTED.ravel())
