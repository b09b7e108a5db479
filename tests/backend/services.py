"""What a pod of Kubeflow Pipelines talks to: ML Metadata, an object store and Kubernetes, on 127.0.0.1."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from tests.support.http_server import TestServer, serving
from tests.support.tls_proxy import authority

NAMESPACE: Final = "kubeflow"
PYTHON: Final = "python3.11"  # the newest that ml-metadata has a wheel for
REQUIREMENTS: Final = ("ml-metadata==1.17.1", "moto[server]==5.2.5", "setuptools<81")
INSTALL_TIMEOUT_S: Final = 900  # 360 MB from a package index
STOP_TIMEOUT_S: Final = 30  # they end within a second; a busy machine should not see them killed
_COMPLETE: Final = "complete"


class MissingPartError(Exception):
    """A part that the backend needs is not on this machine."""


def stores_python() -> Path:
    """Return the interpreter of the stores' environment, which is made at first use and kept outside the checkout.

    Raises:
        MissingPartError: there is no such Python, or the packages cannot be had.
    """
    found = shutil.which(PYTHON)
    if found is None:
        raise MissingPartError(f"ml-metadata needs {PYTHON} on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline-tests"
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\n".join((PYTHON, *REQUIREMENTS)).encode()).hexdigest()[:12]
    folder = cache / f"kfp-stores-{digest}"
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install([found, "-m", "venv", str(folder)])
            _install([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
            (folder / _COMPLETE).touch()
    return folder / "bin/python"


def _install(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise MissingPartError(f"{', '.join(REQUIREMENTS)} cannot be installed: {said[-1]}")


@dataclass(frozen=True, slots=True)
class Services:
    """The services' addresses and what a pod needs to reach them.

    Attributes:
        environment: a pod's variables.
        options: values of the options of KFP's programs, by option.
        accounts: folder with a service account's files.
    """

    environment: Mapping[str, str]
    options: Mapping[str, str]
    accounts: Path


@contextmanager
def running(folder: Path) -> Generator[Services]:
    """Run the services; nothing of them is left behind.

    Raises:
        MissingPartError: a part is not on this machine.
    """
    host = "127.0.0.1"
    with _stores(folder) as ports:
        metadata, objects = str(ports["metadata"]), ports["objects"]
        certificate, key = authority(folder / "kubernetes", "kubernetes")
        accounts = folder / "serviceaccount"
        accounts.mkdir()
        shutil.copy(certificate, accounts / "ca.crt")
        (accounts / "namespace").write_text(NAMESPACE)
        (accounts / "token").write_text("token")
        server = _Kubernetes(_objects(f"{host}:{objects}"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with serving(server) as url:
            kubernetes = url.rpartition(":")[2]
            environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": kubernetes}
            for name in ("METADATA_GRPC_SERVICE", "METADATA_GRPC_SERVICE_SERVICE"):
                environment |= {f"{name}_HOST": host, f"{name}_PORT": metadata}
            # The API server keeps the cache of tasks, which the tests' Workflows do not use: nothing listens there.
            options = {
                "--mlmd_server_address": host,
                "--mlmd_server_port": metadata,
                "--ml_pipeline_server_address": host,
                "--ml_pipeline_server_port": "1",
            }
            yield Services({**environment, "NAMESPACE": NAMESPACE}, options, accounts)


@contextmanager
def _stores(folder: Path) -> Generator[Mapping[str, int]]:
    script = Path(__file__).parent / "stores.py"
    with (
        (folder / "stores.log").open("w") as log,
        subprocess.Popen(
            [str(stores_python()), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the stores did not start:\n{(folder / 'stores.log').read_text()}")
            yield json.loads(line)
        finally:
            process.stdin.close()  # which ends it, as this process's own end does
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _objects(store: str) -> dict[str, Any]:
    """Return what the programs ask Kubernetes for, by path: where artifacts go, and the key to it."""
    providers = {
        "default": {
            "endpoint": store,
            "disableSSL": True,
            "region": "us-east-1",
            "forcePathStyle": True,
            "credentials": {
                "fromEnv": False,
                "secretRef": {
                    "secretName": "mlpipeline-minio-artifact",
                    "accessKeyKey": "accesskey",
                    "secretKeyKey": "secretkey",
                },
            },
        }
    }
    place = f"/api/v1/namespaces/{NAMESPACE}"
    return {
        f"{place}/configmaps/kfp-launcher": {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "metadata": {"name": "kfp-launcher", "namespace": NAMESPACE},
            "data": {
                "defaultPipelineRoot": "minio://mlpipeline/v2/artifacts",
                "providers": json.dumps({"minio": providers}),
            },
        },
        f"{place}/secrets/mlpipeline-minio-artifact": {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "mlpipeline-minio-artifact", "namespace": NAMESPACE},
            "data": {"accesskey": _base64("minio"), "secretkey": _base64("minio123")},
        },
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class _Kubernetes(TestServer):
    """A Kubernetes API server that has a few objects, by path, and nothing else."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self.objects = objects
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Kubernetes

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        found = self.server.objects.get(path) if self.command == "GET" else None
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body = found or {**status, "message": f"not found: {path}", "reason": "NotFound", "code": 404}
        content = json.dumps(body).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""
