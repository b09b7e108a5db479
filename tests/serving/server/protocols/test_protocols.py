"""Right requests in every protocol: each gets its own texts' vectors, in order, in the form that it asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from driftline.serving.server.bodies import json_numbers, json_rows
from driftline.serving.server.failures import RequestError
from driftline.serving.server.protocols.v2 import read_bytes_tensor
from tests.components.embedding.tiny_models import SCRIPTS
from tests.serving.server.fake_host import HOST, FakeModel, Served, served, vector_of
from tests.support.brokers import eventually

TEXTS = [*SCRIPTS, "🦊 emoji", "tab\tand\nnewline", "x" * 5000]
EXPECTED = np.stack([vector_of(text) for text in TEXTS])


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeModel("embed"), FakeModel("other", revision="other")) as found:
        yield found


def test_v1(server: Served) -> None:
    instances = [text if number % 2 else {"text": text} for number, text in enumerate(TEXTS)]
    answer = server.http.post("/v1/models/embed:predict", json={"instances": instances}).json()
    assert np.array_equal(np.array(answer["predictions"], np.float32), EXPECTED)


def test_v1_parameters(server: Served) -> None:
    asked = {"instances": ["a"], "parameters": {"prompt": "query", "dimensions": 2}}
    answer = server.http.post("/v1/models/embed:predict", json=asked).json()
    assert np.array_equal(np.array(answer["predictions"], np.float32), vector_of("querya")[None, :2])


def v2_request(*, binary_in: bool, binary_out: str) -> tuple[bytes, dict[str, str]]:
    tensor: dict[str, object] = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)]}
    request: dict[str, object] = {"id": "42", "inputs": [tensor]}
    if binary_out == "request":
        request["parameters"] = {"binary_data_output": True}
    if binary_out == "output":
        request["outputs"] = [{"name": "embedding", "parameters": {"binary_data": True}}]
    if binary_out == "neither":
        request["parameters"] = {"binary_data_output": True}
        request["outputs"] = [{"name": "embedding", "parameters": {"binary_data": False}}]
    if not binary_in:
        tensor["data"] = TEXTS
        return json.dumps(request).encode(), {"content-type": "application/json"}
    tail = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in TEXTS)
    tensor["parameters"] = {"binary_data_size": len(tail)}
    head = json.dumps(request).encode()
    return head + tail, {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", ["request", "output"])
def test_v2_binary_out(server: Served, binary_in: bool, binary_out: str) -> None:
    content, headers = v2_request(binary_in=binary_in, binary_out=binary_out)
    answer = server.http.post("/v2/models/embed/infer", content=content, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    output = json.loads(answer.content[:size])["outputs"][0]
    assert output["parameters"]["binary_data_size"] == len(answer.content) - size
    vectors = np.frombuffer(answer.content[size:], "<f4").reshape(output["shape"])
    assert np.array_equal(vectors, EXPECTED)


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", ["", "neither"])
def test_v2_json_out(server: Served, binary_in: bool, binary_out: str) -> None:
    content, headers = v2_request(binary_in=binary_in, binary_out=binary_out)
    answer = server.http.post("/v2/models/embed/infer", content=content, headers=headers).json()
    assert (answer["id"], answer["model_name"]) == ("42", "embed")
    output = answer["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("embedding", "FP32", [*EXPECTED.shape])
    assert np.array_equal(np.array(output["data"], np.float32).reshape(output["shape"]), EXPECTED)


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_v2_binary_that_is_cut_short(server: Served, cut: int) -> None:
    tail = struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b"
    tensor = {"name": "t", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(tail) - cut}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = server.http.post("/v2/models/embed/infer", content=head + tail[:-cut], headers=headers)
    assert answer.status_code == 400
    claims_all = httpx.Headers(headers)
    tensor["parameters"] = {"binary_data_size": len(tail)}
    head = json.dumps({"inputs": [tensor]}).encode()
    claims_all["inference-header-content-length"] = str(len(head))
    answer = server.http.post("/v2/models/embed/infer", content=head + tail[:-cut], headers=claims_all)
    assert answer.status_code == 400


def test_v2_says_what_is_there(server: Served) -> None:
    assert server.http.get("/v2").json()["name"] == "driftline"
    assert (
        server.http.get("/v2/models").json() == server.http.get("/v1/models").json() == {"models": ["embed", "other"]}
    )
    assert server.http.get("/v2/models/other").json() == {
        "name": "other",
        "versions": ["other"],
        "platform": "driftline_encoder",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "embedding", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert server.http.get("/v2/models/nobody").status_code == 404


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai(server: Served, encoding: str) -> None:
    asked = {"model": "embed", "input": TEXTS, "encoding_format": encoding}
    answer = server.http.post("/openai/v1/embeddings", json=asked).json()
    assert (answer["object"], answer["model"]) == ("list", "embed")
    assert [entry["index"] for entry in answer["data"]] == [*range(len(TEXTS))]
    assert {entry["object"] for entry in answer["data"]} == {"embedding"}
    vectors = [
        np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
        if encoding == "base64"
        else np.array(entry["embedding"], np.float32)
        for entry in answer["data"]
    ]
    assert np.array_equal(vectors, EXPECTED)
    tokens = sum(len(text.split()) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_openai_one_text_and_what_is_asked_for_beside_it(server: Served) -> None:
    asked = {"model": "other", "input": "a", "dimensions": 3, "prompt": "query"}
    data = server.http.post("/openai/v1/embeddings", json=asked).json()["data"]
    assert np.array_equal([np.array(entry["embedding"], np.float32) for entry in data], vector_of("querya")[None, :3])


def test_openai_models(server: Served) -> None:
    listed = server.http.get("/openai/v1/models").json()
    assert [(model["id"], model["revision"], model["dimension"]) for model in listed["data"]] == [
        ("embed", "sha256:0123456789abcdef", 4),
        ("other", "other", 4),
    ]
    assert server.http.get("/openai/v1/models/other").json() == listed["data"][1]
    assert server.http.get("/openai/v1/models/nobody").json()["error"]["code"] == "model_not_found"


def test_half_pairs_are_mended_as_in_the_backfill(server: Served) -> None:
    content = b'{"instances": ["a\\ud83e\\udd8a", "b\\ud800"]}'
    answer = server.http.post("/v1/models/embed:predict", content=content)
    expected = np.stack([vector_of("a🦊"), vector_of("b\ufffd")])
    assert np.array_equal(np.array(answer.json()["predictions"], np.float32), expected)


def test_a_client_that_goes_away_takes_its_request_along(server: Served) -> None:
    model = server.models["embed"]
    model.gate.clear()
    try:
        asked, cancelled = len(model.asked), model.cancelled
        body = b'{"instances": ["a"]}'
        head = f"POST /v1/models/embed:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((HOST, server.server.ports[0])) as client:
            client.sendall(head.encode() + body)
            eventually(lambda: len(model.asked) == asked + 1)
        eventually(lambda: model.cancelled == cancelled + 1)
    finally:
        model.gate.set()
    labels = {"protocol": "v1", "code": "499"}
    eventually(lambda: server.registry.get_sample_value("driftline_server_requests_total", labels) == 1)


def test_probes_answer_while_texts_are_embedded(server: Served) -> None:
    model = server.models["embed"]
    model.gate.clear()
    waiting = threading.Thread(target=lambda: server.http.post("/v1/models/embed:predict", json={"instances": ["a"]}))
    waiting.start()
    try:
        eventually(lambda: server.registry.get_sample_value("driftline_server_requests_in_flight") == 1)
        assert [server.http.get(path).status_code for path in ("/v2/health/live", "/v2/health/ready", "/metrics")] == [
            200
        ] * 3
    finally:
        model.gate.set()
        waiting.join()


@given(vectors=arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_json_of_vectors_reads_back_as_the_same_bits(vectors: np.ndarray) -> None:
    nested = orjson.loads(asyncio.run(json_numbers(vectors)))
    flat = orjson.loads(asyncio.run(json_numbers(vectors, flat=True)))
    rows = [orjson.loads(row) for row in asyncio.run(json_rows(vectors))]
    for found in (nested, rows, np.reshape(flat, (3, 5))):
        assert np.array(found, np.float32).tobytes() == vectors.tobytes()


def test_json_of_many_vectors_is_written_in_parts_that_leave_no_seam() -> None:
    vectors = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
    turns = 0

    async def write() -> tuple[bytes, bytes, list[bytes]]:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        written = await json_numbers(vectors), await json_numbers(vectors, flat=True), await json_rows(vectors)
        task.cancel()
        return written

    nested, flat, rows = asyncio.run(write())
    assert np.array_equal(np.array(orjson.loads(nested), np.float32), vectors)
    assert np.array_equal(np.array(orjson.loads(flat), np.float32), vectors.ravel())
    assert np.array_equal(np.array([orjson.loads(row) for row in rows], np.float32), vectors)
    assert turns >= 6


@given(elements=st.lists(st.binary(max_size=9), max_size=9), most=st.integers(0, 9), rest=st.binary(max_size=3))
def test_bytes_tensors_read_back(elements: list[bytes], most: int, rest: bytes) -> None:
    content = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    assert read_bytes_tensor("t", content, most) == elements[: most + 1]
    if rest and len(elements) <= most:
        with pytest.raises(RequestError, match="goes beyond"):
            read_bytes_tensor("t", content + rest, most)


def test_many_clients_at_once_get_their_own_vectors(server: Served) -> None:
    async def ask() -> list[bool]:
        address = str(server.http.base_url)
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30) as client:

            async def one(number: int) -> bool:
                texts = [f"text {number} {part}" for part in range(number % 5 + 1)]
                answer = await client.post("/v1/models/embed:predict", json={"instances": texts})
                expected = np.stack([vector_of(text) for text in texts])
                return np.array_equal(np.array(answer.json()["predictions"], np.float32), expected)

            return await asyncio.gather(*(one(number) for number in range(200)))

    assert all(asyncio.run(ask()))


def test_a_slow_upload_does_not_hold_up_others(server: Served) -> None:
    head = b"POST /v1/models/embed:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n"
    with socket.create_connection((HOST, server.server.ports[0])) as slow:
        slow.sendall(head + b'{"instanc')
        time.sleep(0.05)
        assert server.http.post("/v1/models/embed:predict", json={"instances": ["a"]}).status_code == 200
        slow.sendall(b'es": ["a"]}')
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
