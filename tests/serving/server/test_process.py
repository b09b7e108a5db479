"""The whole: the command, a real model, real sockets; every protocol gives the encoder's own vectors."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import grpc
import httpx
import numpy as np
import pytest

from driftline.components.command_line.ending import run_command
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.serving.commands.serve import serve
from driftline.serving.server.kserve_parts import messages
from tests.components.embedding.tiny_models import SCRIPTS, save_model
from tests.serving.server.process import Process, serving

TEXTS = [*SCRIPTS, "film " * 200, "x", "🦊"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "document: "}
    return save_model(tmp_path_factory.mktemp("model") / "tiny", normalize=True, prompts=prompts)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "other", dense=8, seed=5)


@pytest.fixture(scope="module")
def servers(folder: Path, other: Path) -> Iterator[Callable[[], Process]]:
    """Give the tests' server; a new one where a test has ended the one before."""
    environment = {"DRIFTLINE_SERVE_MAX_TEXTS": "300"}
    with ExitStack() as stack:
        found: list[Process] = []

        def running() -> Process:
            if not found or found[-1].process.poll() is not None:
                models = ("--model", f"embed={folder}", "--model", str(other))
                found.append(stack.enter_context(serving(*models, environment=environment)))
            return found[-1]

        yield running


@pytest.fixture
def server(servers: Callable[[], Process]) -> Process:
    return servers()


def encoded(folder: Path, texts: list[str] = TEXTS, **settings: str | int) -> np.ndarray:
    return Encoder.load(folder, "tiny", EncoderSettings(**settings), device="cpu").encode(texts).vectors  # type: ignore[arg-type]


def test_every_protocol_gives_the_encoders_vectors(server: Process, folder: Path, other: Path) -> None:
    for name, expected in (("embed", encoded(folder)), ("other", encoded(other))):
        v1 = httpx.post(f"{server.url}/v1/models/{name}:predict", json={"instances": TEXTS}).json()["predictions"]
        np.testing.assert_allclose(np.array(v1), expected, atol=TOLERANCE)
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
        v2 = httpx.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": [tensor]}).json()["outputs"][0]
        np.testing.assert_allclose(np.reshape(v2["data"], v2["shape"]), expected, atol=TOLERANCE)
        asked = {"model": name, "input": TEXTS, "encoding_format": "base64"}
        data = httpx.post(f"{server.url}/openai/v1/embeddings", json=asked).json()["data"]
        vectors = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data]
        np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
        with grpc.insecure_channel(server.grpc) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=messages.ModelInferRequest.SerializeToString,
                response_deserializer=messages.ModelInferResponse.FromString,
            )
            contents = {"bytes_contents": [text.encode() for text in TEXTS]}
            inputs = [{"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "contents": contents}]
            output = ask(messages.ModelInferRequest(model_name=name, inputs=inputs), timeout=30).outputs[0]
        np.testing.assert_allclose(np.reshape(output.contents.fp32_contents, output.shape), expected, atol=TOLERANCE)
        headers = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/here", "ce-type": "text"}
        for text, vector in zip(TEXTS, expected, strict=True):
            event = httpx.post(f"{server.url}/v1/models/{name}:predict", json={"text": text}, headers=headers)
            np.testing.assert_allclose(event.json()["embedding"], vector, atol=TOLERANCE)


def test_prompts_and_dimensions_are_the_encoders_own(server: Process, folder: Path) -> None:
    asked = {"model": "embed", "input": TEXTS, "prompt": "query", "dimensions": 5}
    data = httpx.post(f"{server.url}/openai/v1/embeddings", json=asked).json()["data"]
    expected = encoded(folder, prompt="query", dimension=5)
    np.testing.assert_allclose([entry["embedding"] for entry in data], expected, atol=TOLERANCE)
    refused = httpx.post(f"{server.url}/openai/v1/embeddings", json=asked | {"prompt": "passage"})
    assert (refused.status_code, "it has: " in refused.text) == (422, True)
    refused = httpx.post(f"{server.url}/openai/v1/embeddings", json=asked | {"dimensions": 17})
    assert refused.status_code == 422


def test_usage_counts_the_models_tokens(server: Process, folder: Path) -> None:
    usage = httpx.post(f"{server.url}/openai/v1/embeddings", json={"model": "embed", "input": TEXTS}).json()["usage"]
    tokens = Encoder.load(folder, "tiny", device="cpu").encode(TEXTS).tokens
    assert usage == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_options_come_from_the_environment_too(server: Process) -> None:
    many = {"instances": ["a"] * 301}
    assert "at most 300" in httpx.post(f"{server.url}/v1/models/embed:predict", json=many).text


def test_revisions_are_what_a_dataset_would_carry(server: Process) -> None:
    (version,) = httpx.get(f"{server.url}/v2/models/embed").json()["versions"]
    assert version.startswith("sha256:")
    assert {
        model["id"]: model["dimension"] for model in httpx.get(f"{server.url}/openai/v1/models").json()["data"]
    } == {
        "embed": 16,
        "other": 8,
    }


def test_metrics_of_all_parts_are_there(server: Process) -> None:
    httpx.post(f"{server.url}/v1/models/embed:predict", json={"instances": ["a"]})
    shown = httpx.get(f"{server.url}/metrics").text
    for name in (
        "driftline_server_requests_total",
        "driftline_server_request_seconds_bucket",
        "driftline_queue_texts",
        "request_predict_seconds_count",  # KServe's
        "process_resident_memory_bytes",
    ):
        assert f"\n{name}" in shown


def test_the_log_has_no_line_a_request(server: Process) -> None:
    before = server.log.read_text()
    httpx.post(f"{server.url}/v1/models/embed:predict", json={"instances": ["a"]})
    httpx.post(f"{server.url}/v1/models/embed:predict", json={})
    httpx.get(f"{server.url}/nowhere")
    assert server.log.read_text() == before


def test_a_model_that_cannot_be_loaded_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--host", "127.0.0.1", "--http-port", "0", "--grpc-port", "-1"]
    with pytest.raises(SystemExit) as ended:
        run_command(serve, "driftline", [*places, "--model", f"embed={tmp_path}"])
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.splitlines()[-1].startswith("driftline: model ")
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "a b=/x"], "letters, digits"),
        (["--model", "m=/x", "--model", "m=/y"], "two models have this name"),
        (["--model", "m=/x", "--output-topic", "t"], "bootstrap-servers"),
        (["--model", "m=/x", "--drain-delay-s", "30"], "drain-delay"),
        (["--model", "m=/x", "--http_port", "abc"], "--http_port"),  # an option of KServe's own, and none of ours
    ],
)
def test_wrong_usage_is_told(arguments: list[str], message: str) -> None:
    with pytest.raises((UsageError, click.UsageError), match=message):
        serve.main(arguments, standalone_mode=False)


def test_importing_kserve_reads_no_command_line() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--http_port', 'abc', '--model', 'x']\n"
        "from driftline.serving.server import kserve_parts\n"
        "print(sys.argv[1:], kserve_parts.ModelServer.__module__)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "['--http_port', 'abc', '--model', 'x'] kserve.model_server"


def test_sigterm_while_requests_are_in_flight_answers_them_all(server: Process) -> None:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            asking = [
                asyncio.create_task(
                    client.post("/v1/models/embed:predict", json={"instances": [f"film {number}"] * 100})
                )
                for number in range(24)
            ]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            server.process.terminate()
            return await asyncio.gather(*asking)

    answers = asyncio.run(ask())
    assert server.process.wait(30) == 0
    assert [answer.status_code for answer in answers] == [200] * 24
    assert all(len(answer.json()["predictions"]) == 100 for answer in answers)
