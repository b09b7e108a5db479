"""A Google Cloud Storage emulator for tests: in memory, on a free port of the loopback interface.

The emulator knows neither generations asked for nor preconditions, and serves one request at a time; both are added
here, as the service documents them, since the code under test stands on them.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, Router
from gcp_storage_emulator.storage import Storage

from tests.support.http_server import TestServer, serving

BUCKET = "driftline-tests"


class _Server(TestServer):
    def __init__(self, content: Storage) -> None:
        self.lock = threading.Lock()
        # Of resumable uploads: bucket, name and the generation that must be there.
        self.conditions: dict[str, tuple[str, str, int]] = {}
        super().__init__(partial(_Handler, content))


class _Handler(RequestHandler):
    """Adds generations, preconditions, connections that stay open, and uploads that go on where they broke off."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the client's acknowledgement
    server: _Server

    def _serve(self) -> None:
        method = self.command
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if len(body) < length:
            self.close_connection = True
            if "upload_id" not in query or not body:
                return
            # As the service may: what has come of a resumable upload is kept.
            start = int(self.headers["Content-Range"].removeprefix("bytes ").split("-")[0])
            self.headers.replace_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/*")
        wires = self.rfile, self.wfile
        try:
            with self.server.lock:
                self.rfile, self.wfile = io.BytesIO(self._new_part(query, body)), io.BytesIO()
                refused = self._refused(method, url.path, query)
                if refused is None:
                    Router(self).handle(method)
                    if method == "POST" and query.get("uploadType") == "resumable" and "ifGenerationMatch" in query:
                        self.server.conditions[list(self.storage.resumable)[-1]] = self._condition
                else:
                    self._answer_error(refused)
                answer = self.wfile.getvalue()
        finally:
            self.rfile, self.wfile = wires
        self.wfile.write(answer)

    def _answer_error(self, status: int) -> None:
        content = json.dumps({"error": {"code": status, "message": "conditionNotMet"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _new_part(self, query: dict[str, str], body: bytes) -> bytes:
        """Leave out what a resumable upload holds already, as the service does with bytes that come twice."""
        said = self.headers.get("Content-Range", "")
        if "upload_id" not in query or "*/" in said or not body:
            return body
        span, _, total = said.removeprefix("bytes ").partition("/")
        start, _, end = span.partition("-")
        held = self.storage.get_resumable_byte_count(query["upload_id"])
        if int(start) >= held:
            return body
        kept = body[held - int(start) :]
        self.headers.replace_header("Content-Length", str(len(kept)))
        self.headers.replace_header("Content-Range", f"bytes {held}-{end}/{total}" if kept else f"bytes */{total}")
        return kept

    def _generation(self, bucket: str, name: str) -> int:
        found = self.storage.objects.get(bucket, {}).get(name)
        return 0 if found is None else int(found["generation"])

    def _refused(self, method: str, path: str, query: dict[str, str]) -> int | None:
        if method == "GET" and "generation" in query and "/o/" in path:
            bucket, _, name = path.partition("/b/")[2].partition("/o/")
            return None if self._generation(bucket, unquote(name)) == int(query["generation"]) else 404
        if method == "POST" and "ifGenerationMatch" in query:
            bucket = path.partition("/b/")[2].partition("/")[0]
            name, wanted = query.get("name") or self._named(), int(query["ifGenerationMatch"])
            if self._generation(bucket, name) != wanted:
                return 412
            self._condition = (bucket, name, wanted)
        if method == "PUT" and query.get("upload_id") in self.server.conditions:
            bucket, name, wanted = self.server.conditions[query["upload_id"]]
            if self._generation(bucket, name) != wanted:
                return 412
        return None

    def _named(self) -> str:
        body = self.rfile.getvalue()
        return str(json.JSONDecoder().raw_decode(body[body.index(b"{") :].decode("latin-1"))[0]["name"])

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _serve  # noqa: N815 - the names that http.server calls


@contextmanager
def gcs_emulator(bucket: str = BUCKET) -> Generator[str]:
    """Run an emulator with one bucket; yields its endpoint, the value for `STORAGE_EMULATOR_HOST`.

    It runs in threads of this process on a port that the system chooses, so that nothing can be left behind;
    processes started meanwhile reach it as well.
    """
    content = Storage(use_memory_fs=True)
    create_bucket(bucket, content)
    with serving(_Server(content)) as endpoint:
        yield endpoint
