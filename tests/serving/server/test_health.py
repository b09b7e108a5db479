"""Health that tells the truth, and a drain that answers all that was asked."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest

from driftline.components.errors import DataError, UsageError
from driftline.serving.server.settings import EventSettings, RequestLimits, ServerSettings
from tests.serving.server.fake_host import HOST, FakeHost, FakeModel, Served, served, vector_of
from tests.support.brokers import eventually

LIVE = ("/", "/v2/health/live")
READY = ("/v2/health/ready", "/v2/models/a/ready", "/v1/models/a")
OTHER = ("/v2/models/b/ready", "/v1/models/b")


def statuses(server: Served, paths: tuple[str, ...]) -> set[int]:
    return {server.http.get(path).status_code for path in paths}


def test_one_model_that_is_away_makes_the_server_unready_and_not_the_other_model() -> None:
    with served(FakeModel("a"), FakeModel("b")) as server:
        assert statuses(server, LIVE + READY + OTHER) == {200}
        server.models["a"].away = "loading"
        assert (statuses(server, LIVE + OTHER), statuses(server, READY)) == ({200}, {503})
        assert server.http.get("/v2/health/ready").json() == {"ready": False, "reason": "model a: loading"}
        assert server.http.post("/v1/models/b:predict", json={"instances": ["x"]}).status_code == 200
        server.models["a"].away = None
        assert statuses(server, LIVE + READY + OTHER) == {200}


def test_a_dead_encoder_makes_the_server_dead() -> None:
    with served(FakeModel("a"), FakeModel("b")) as server:
        server.models["a"].dead = "a batch takes longer than 120 s"
        assert (statuses(server, LIVE + READY), statuses(server, OTHER)) == ({503}, {200})
        assert server.http.get("/v2/health/live").json() == {
            "live": False,
            "reason": "model a: a batch takes longer than 120 s",
        }


def slow_request(server: Served, answers: list[httpx.Response], text: str) -> threading.Thread:
    def ask() -> None:
        with httpx.Client(base_url=server.http.base_url, timeout=30) as client:
            answers.append(client.post("/v1/models/a:predict", json={"instances": [text]}))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_the_drain_answers_what_is_in_hand_and_meanwhile_says_what_happens() -> None:
    model = FakeModel("a")
    model.gate.clear()
    host = FakeHost([model])
    settings = ServerSettings(host=HOST, http_port=0, grpc_port=-1, drain_delay_s=0.5, drain_timeout_s=30)
    answers: list[httpx.Response] = []
    with served(settings=settings, host=host) as server:
        asking = [slow_request(server, answers, f"early {number}") for number in range(8)]
        eventually(lambda: len(model.asked) == 8)
        server.stop()
        eventually(lambda: server.server.health.draining)
        assert (statuses(server, LIVE), statuses(server, READY)) == ({200}, {503})
        # The load balancer has not noticed yet: what it sends is served.
        asking.append(slow_request(server, answers, "late"))
        eventually(lambda: len(model.asked) == 9)
        eventually(lambda: server.server.health.refusing)
        refused = server.http.post("/v1/models/a:predict", json={"instances": ["too late"]})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert (statuses(server, LIVE), statuses(server, READY)) == ({200}, {503})
        assert not host.drained
        model.gate.set()
        for thread in asking:
            thread.join(30)
        server.ended()
    assert host.drained
    assert [answer.status_code for answer in answers] == [200] * 9
    vectors = {tuple(map(float, np.float32(answer.json()["predictions"][0]))) for answer in answers}
    texts = [*(f"early {number}" for number in range(8)), "late"]
    assert vectors == {tuple(map(float, vector_of(text))) for text in texts}


@pytest.mark.parametrize("end", ["time-out", "second signal"])
def test_the_drain_is_bounded(end: str) -> None:
    model = FakeModel("a")
    model.gate.clear()
    timeout_s = 0.3 if end == "time-out" else 600
    settings = ServerSettings(host=HOST, http_port=0, grpc_port=-1, drain_delay_s=0, drain_timeout_s=timeout_s)
    with served(model, settings=settings) as server:
        request = (
            b"POST /v1/models/a:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n" + b'{"instances": ["a"]}'
        )
        with socket.create_connection((HOST, server.server.ports[0])) as client:
            client.sendall(request)
            eventually(lambda: len(model.asked) == 1)
            server.stop()
            if end == "second signal":
                eventually(lambda: server.server.health.refusing)
                server.stop()
            server.ended()
            assert client.recv(12) == b"HTTP/1.1 503"
    assert model.cancelled == 1


def test_the_listener_is_there_while_models_load() -> None:
    model = FakeModel("a", away="loading")
    host = FakeHost([model])
    loading = threading.Event()

    async def load() -> None:
        while not loading.is_set():
            await asyncio.sleep(0.01)
        model.away = None

    host.load = load  # type: ignore[method-assign]
    with served(host=host) as server:
        assert (statuses(server, LIVE), statuses(server, READY)) == ({200}, {503})
        assert server.http.get("/v2/models").json() == {"models": ["a"]}
        loading.set()
        eventually(lambda: statuses(server, READY) == {200})


def test_a_server_told_to_end_while_it_loads_ends() -> None:
    host = FakeHost([FakeModel("a", away="loading")])

    async def load() -> None:
        await asyncio.sleep(3600)

    host.load = load  # type: ignore[method-assign]
    with served(host=host) as server:
        server.stop()
        server.ended()


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    host = FakeHost([FakeModel("a", away="loading")], failure=DataError("model a: no weights"))
    with served(host=host) as server:
        server.ended()
        assert isinstance(server.errors[0], DataError)


@pytest.mark.parametrize("which", ["http", "grpc"])
def test_a_port_that_is_taken_is_a_users_error(which: str) -> None:
    with served(FakeModel("a")) as server:
        http_port, grpc_port = server.server.ports
        settings = (
            ServerSettings(host=HOST, http_port=http_port, grpc_port=0)
            if which == "http"
            else ServerSettings(host=HOST, http_port=0, grpc_port=grpc_port)
        )
        with pytest.raises(UsageError, match=f"{which}-port"), served(FakeModel("b"), settings=settings):
            pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ServerSettings(drain_delay_s=40), "drain-delay"),
        (lambda: ServerSettings(drain_delay_s=-1), "drain-delay"),
        (lambda: RequestLimits(texts=0), "texts"),
        (lambda: RequestLimits(timeout_s=0), "timeout"),
        (lambda: EventSettings(output_topic="t"), "bootstrap-servers"),
        (lambda: EventSettings(output_topic="a topic"), "output-topic"),
        (lambda: EventSettings(produce_timeout_s=0), "produce-timeout"),
    ],
)
def test_settings_out_of_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    with served(FakeModel("a")) as server, socket.create_connection((HOST, server.server.ports[0])):
        time.sleep(0.05)
        server.stop()
        server.ended()


def test_an_answer_on_its_way_to_a_slow_client_arrives_whole() -> None:
    with served(FakeModel("a", repeated=300)) as server:
        texts = [f"text {number}" for number in range(1000)]
        body = b'{"instances": [' + b",".join(b'"' + text.encode() + b'"' for text in texts) + b"]}"
        head = f"POST /v1/models/a:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect((HOST, server.server.ports[0]))
            client.sendall(head + body)
            labels = {"protocol": "v1", "code": "200"}
            eventually(lambda: server.registry.get_sample_value("driftline_server_requests_total", labels) == 1)
            server.stop()
            time.sleep(1.5)  # longer than the listener waits by itself
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        server.ended()
    found = httpx.Response(200, content=answer.partition(b"\r\n\r\n")[2]).json()
    assert len(found["predictions"]) == len(texts)
