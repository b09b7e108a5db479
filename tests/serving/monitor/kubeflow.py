"""Kubeflow Pipelines' API as far as runs are started by it, on a free port of the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import TestServer, serving


class Kubeflow:
    """The part of Kubeflow Pipelines' API that runs are started by, with what was asked of it."""

    def __init__(self) -> None:
        self.pipelines = {"drift": "p-1"}
        self.experiments = {"monitoring": "e-1"}
        self.runs: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        self.authorization: set[str | None] = set()
        self.refusal: tuple[int, bytes] | None = None

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, bytes]:
        self.asked.append((method, path, query))
        if self.refusal is not None:
            return self.refusal
        place = path.removeprefix("/apis/v2beta1/")
        if (method, place) == ("POST", "runs"):
            self.runs.append(body)
            return 200, json.dumps({**body, "run_id": f"r-{len(self.runs)}"}).encode()
        wanted = ""
        if "filter" in query:
            (predicate,) = json.loads(query["filter"][0])["predicates"]
            assert predicate["key"] == "display_name"
            assert predicate["operation"] in ("EQUALS", 1)  # a protobuf's name or number
            wanted = predicate["stringValue"]
        found: dict[str, Any] = {
            "healthz": {"multi_user": False},
            "pipelines/p-1/versions": {
                "pipeline_versions": [{"pipeline_id": "p-1", "pipeline_version_id": "v-9"}],
            },
            "pipelines": {
                "pipelines": [{"pipeline_id": self.pipelines[wanted]}] if wanted in self.pipelines else None,
            },
            "experiments": {
                "experiments": [{"experiment_id": self.experiments[wanted]}] if wanted in self.experiments else [],
            },
            "runs": {"runs": [run for run in self.runs if run["display_name"] == wanted]},
        }
        return (200, json.dumps(found[place]).encode()) if place in found else (404, b'{"error": "no such place"}')


@contextmanager
def serving_kubeflow(kubeflow: Kubeflow) -> Generator[str]:
    """Answer for it; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply("GET", None)

        def do_POST(self) -> None:
            self._reply("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, method: str, body: Any) -> None:
            asked = urlsplit(self.path)
            kubeflow.authorization.add(self.headers.get("Authorization"))
            status, content = kubeflow.answer(method, asked.path, parse_qs(asked.query), body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(TestServer(Handler)) as address:
        yield address
