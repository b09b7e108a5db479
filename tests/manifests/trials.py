"""A pod's command on this machine: arguments, environment and probes are the manifests', the ports are free ones."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.serving.records.embeddings import EmbeddedText, read_embedding, write_embedding
from tests.manifests.objects import Object, environment, named, pod_of
from tests.support import brokers
from tests.support.datasets import write_embeddings

HOST = "127.0.0.1"
TEXTS = {"a": "An honest film, and a long one.", "b": "A dog that talks.", "c": "Rain."}
"""Texts by id."""

QUICK_MONITOR = {"ERT": "1000", "FEATURES": "16"}
"""Options with which the monitor finds its threshold in seconds."""

START_TIMEOUT_S = 300.0
"""A model is loaded meanwhile, on a machine that may be busy."""


@dataclass(frozen=True)
class Trial:
    """What starts a pod's command, and where it then answers.

    Attributes:
        arguments: Python's.
        environment: the container's, and nothing else.
        probes: the URL of each of the pod's probes.
        ports: by their names in the pod.
    """

    arguments: list[str]
    environment: dict[str, str]
    probes: dict[str, str]
    ports: dict[str, int]


def trial(objects: Sequence[Object], component: str, **options: str) -> Trial:
    """Read a pod's command off the manifests.

    Args:
        objects: what the manifests make.
        component: the pod's.
        options: options of the command that are others here, by their names as in `BOOTSTRAP_SERVERS`.
    """
    pod = pod_of(objects, component)
    free = free_ports(len(pod.container["ports"]))
    ports = {port["name"]: here for port, here in zip(pod.container["ports"], free, strict=True)}
    numbers = {str(port["containerPort"]): ports[port["name"]] for port in pod.container["ports"]}
    python, *command = pod.container["command"]
    assert python == "python3"
    arguments = [re.sub(r"(?<=-port=)\d+$", lambda found: str(numbers[found[0]]), one) for one in pod.container["args"]]
    probes = {
        name.removesuffix("Probe"): f"http://{HOST}:{ports[get['port']]}{get['path']}"
        for name, get in ((name, probe["httpGet"]) for name, probe in pod.container.items() if name.endswith("Probe"))
    }
    own = {f"DRIFTLINE_{component.upper()}_{name}": value for name, value in options.items()}
    return Trial([*command, *arguments], environment(pod, objects) | own, probes, ports)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens at, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


def status(url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
    """The status with which a URL answers; 0 where nobody listens."""
    request = urllib.request.Request(url, data, dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def await_ready(process: subprocess.Popen[bytes], one: Trial) -> None:
    """Wait until the pod would be ready: its start-up probe and then its readiness probe succeed."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    for probe in ("startup", "readiness"):
        while (seen := status(one.probes[probe])) != 200:
            assert process.poll() is None, f"ended with {process.returncode} before it was ready"
            assert time.monotonic() < deadline_s, f"{one.probes[probe]} answers {seen}"
            time.sleep(0.2)


@contextmanager
def running(one: Trial) -> Generator[subprocess.Popen[bytes]]:
    """Run the command until it is ready, and for as long as the block lasts; then tell it to end, as Kubernetes does.

    Yields:
        The process; once the block has ended, its status is the command's.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "PYTHONSAFEPATH") if name in os.environ}
    process = subprocess.Popen([sys.executable, *one.arguments], env=inherited | one.environment)
    try:
        await_ready(process, one)
        yield process
        process.terminate()
        process.wait(timeout=60)  # the pods' grace period, at its shortest
    finally:
        process.kill()
        process.wait()


@contextmanager
def readme_broker() -> Generator[str]:
    """A broker with the topics that the README names; yields its address."""
    with brokers.noida_broker() as address:
        names = ("texts", "requests", "embeddings", "alerts")
        brokers.create_topics(address, {f"driftline.{name}": 2 for name in names})
        brokers.create_topics(address, {f"driftline.{name}.dead-letters": 1 for name in names[:3]})
        yield address


def send_texts(bootstrap: str, texts: Mapping[str, str]) -> None:
    """Send texts, by id, to the topic that the stream worker reads."""
    records = [(key.encode(), json.dumps({"text": text}).encode(), ()) for key, text in texts.items()]
    brokers.produce(bootstrap, "driftline.texts", records)


def send_events(one: Trial, objects: Sequence[Object], texts: Mapping[str, str]) -> None:
    """Send texts, by id, to the server as the KafkaSource does, to the path that it is told."""
    source = named(objects, "KafkaSource", "driftline-requests")["spec"]
    url = f"http://{HOST}:{one.ports['http']}{source['sink']['uri']}"
    for offset, (key, text) in enumerate(texts.items()):
        headers = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": f"partition:0/offset:{offset}",
            "ce-source": f"/apis/v1/namespaces/here/kafkasources/driftline-requests#{source['topics'][0]}",
            "ce-type": "dev.knative.kafka.event",
            "ce-time": "2026-11-25T13:00:00Z",
            "ce-key": key,
        }
        assert status(url, json.dumps({"text": text}).encode(), headers) == 200


def embedded(bootstrap: str, ids: Collection[str]) -> dict[str, EmbeddedText]:
    """What the topic of embeddings has of these ids, once it has all of them."""
    found: dict[str, EmbeddedText] = {}

    def all_there() -> bool:
        records = brokers.read_topic(bootstrap, "driftline.embeddings")
        values = [read_embedding(record.value) for record in records if record.value is not None]
        found.update({one.id: one for one in values if one.id in ids})
        return found.keys() == set(ids)

    brokers.eventually(all_there)
    return found


def send_embeddings(bootstrap: str, texts: Mapping[str, str]) -> None:
    """Send embeddings of texts, by id, to the topic that the archive and the monitor read."""
    vector = np.ones(4, np.float32)
    values = {key: write_embedding(EmbeddedText(key, "model", "1", vector, text)) for key, text in texts.items()}
    brokers.produce(bootstrap, "driftline.embeddings", [(key.encode(), value, ()) for key, value in values.items()])


def archived(folder: Path) -> dict[str, str]:
    """The texts that an archive's files hold, by id."""
    rows = [row for file in folder.rglob("part-*.parquet") for row in pq.read_table(file).to_pylist()]
    return {row["id"]: row["text"] for row in rows}


def assert_vectors_of(model_folder: Path, seen: Mapping[str, EmbeddedText]) -> None:
    """The vectors are those that the encoder makes here."""
    found = list(seen.values())
    expected = Encoder.load(model_folder, "demo").encode([one.text or "" for one in found]).vectors
    np.testing.assert_allclose(np.stack([one.vector for one in found]), expected, atol=1e-5)


def write_reference(folder: Path) -> str:
    """Write a dataset that the monitor can compare with; returns its URI."""
    return write_embeddings(str(folder), np.random.default_rng(0).normal(size=(1200, 32)))
