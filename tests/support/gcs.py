"""A Google Cloud Storage emulator for tests: in memory, on a free port of the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer

from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "driftline-tests"


class _Server(HTTPServer):
    # Connections that may wait: several clients at once, and one thread that serves them.
    request_queue_size = 64


@contextmanager
def gcs_emulator(bucket: str = BUCKET) -> Generator[str]:
    """Run an emulator with one bucket; yields its endpoint, the value for `STORAGE_EMULATOR_HOST`.

    It runs in a thread of this process on a port that the system chooses, so that nothing can be left behind;
    processes started meanwhile reach it as well.
    """
    content = Storage(use_memory_fs=True)
    create_bucket(bucket, content)
    server = _Server(("127.0.0.1", 0), partial(RequestHandler, content))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
