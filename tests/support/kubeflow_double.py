"""Kubeflow Pipelines' API server as far as Driftline asks it, with a state, on a free port of the loopback interface.

It answers what the server of KFP 2.17 was seen to answer (`kubeflow_api.jsonl`, replayed in `test_kubeflow_double.py`):
pipelines and versions of unique names, runs checked against the version's parameters, recurring runs that cannot be
changed, are off unless told otherwise, and share names. A gateway before it, a login and several users can be had too;
of these the texts are those of the server's source.
"""

from __future__ import annotations

import email
import email.policy
import json
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.support.http_server import TestServer, serving

API = "/apis/v2beta1"
Json = dict[str, Any]
Answer = tuple[int, Any]
CRON = (
    "Failed to create a recurring run due to conversion error: Invalid input error: Schedule cron is not a supported "
)
CRON += "format(https://godoc.org/github.com/robfig/cron). Error: "
JOB_FIELDS = {
    "display_name", "description", "experiment_id", "pipeline_version_reference", "runtime_config", "trigger",
    "max_concurrency", "mode", "no_catchup", "service_account", "namespace",
}  # fmt: skip
JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "NUMBER_INTEGER": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "NUMBER_DOUBLE": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "LIST": lambda value: isinstance(value, list),
    "STRUCT": lambda value: isinstance(value, dict),
}
WRONG_TYPE = {
    "STRING": "requires type string, but the input parameter is not of string value type",
    "BOOLEAN": "requires type bool, but the input parameter is not of bool value type",
    "NUMBER_INTEGER": "requires type double or integer, but the parameter value is not of number value type",
    "NUMBER_DOUBLE": "requires type double or integer, but the parameter value is not of number value type",
    "LIST": "requires type list, but the input parameter is not of list value type",
    "STRUCT": "requires type struct, but the input parameter is not of struct value type",
}


class RefusedError(Exception):
    """An answer other than what was asked for."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.answer: Answer = status, {"code": code, "message": message}


@dataclass
class KubeflowDouble:
    """The server's state, and what was asked of it.

    Attributes:
        tick: seconds between two things that are made; creation times are whole seconds.
        progress: states that a run is in, one look after the other; it stays in the last.
        error: of runs that fail.
        asked: method and path with query of every request.
        headers: of every request.
        token: the bearer token that is wanted; None for none.
        namespaces: of several users; empty for a server with one user.
        release: what the server calls itself.
        under: where a gateway has the API.
        before: called before a request is answered; may raise, or return an answer in its place.
    """

    tick: int = 1
    progress: list[str] = field(default_factory=lambda: ["PENDING"])
    error: str = ""
    token: str | None = None
    namespaces: tuple[str, ...] = ()
    release: str = "unknown"
    under: str = ""
    before: Callable[[str, str], Answer | None] = lambda method, path: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    pipelines: dict[str, Json] = field(default_factory=dict)
    versions: dict[str, Json] = field(default_factory=dict)
    experiments: dict[str, Json] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    now: datetime = datetime(2026, 11, 30, 15, 39, 6, tzinfo=UTC)
    _looks: dict[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was asked that changes something."""
        return [one for one in self.asked if one[0] != "GET"]

    @property
    def enabled(self) -> list[str]:
        """The ids of recurring runs that start runs."""
        return [one for one, job in self.jobs.items() if job["mode"] == "ENABLE"]

    def answer(self, method: str, target: str, headers: dict[str, str], content: bytes) -> Answer:
        self.asked.append((method, target))
        self.headers.append(headers)
        instead = self.before(method, target)
        if instead is not None:
            return instead
        parts = urlsplit(target)
        if not parts.path.startswith(self.under + API + "/"):
            return 200, b"<!doctype html><title>Kubeflow Central Dashboard</title>"
        place = parts.path.removeprefix(self.under + API + "/")
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            if self.token is not None and headers.get("Authorization") != f"Bearer {self.token}":
                raise RefusedError(401, 16, "Request header error: there is no user identity header.")
            return 200, self._dispatch(method, [unquote(one) for one in place.split("/")], query, headers, content)
        except RefusedError as refused:
            if place.startswith("pipelines/upload"):
                message = refused.answer[1]["message"]
                return refused.answer[0], {"error_message": message, "error_details": f"{message}\nruntime.goexit\n"}
            return refused.answer

    def _dispatch(self, method: str, place: list[str], query: Json, headers: Json, content: bytes) -> Json:
        match method, place:
            case "GET", ["healthz"]:
                return {
                    "commit_sha": "unknown",
                    "tag_name": self.release,
                    "multi_user": bool(self.namespaces),
                    "pipeline_store": "database",
                }
            case "POST", ["pipelines", "upload"]:
                return self._upload(query, _uploaded(headers, content))
            case "POST", ["pipelines", "upload_version"]:
                return self._upload_version(query, _uploaded(headers, content))
            case "POST", ["pipelines"]:
                return self._shown(self._create_pipeline(json.loads(content)))
            case "GET", ["pipelines", "names", name]:
                return self._shown(self._named(name, query.get("namespace", "")))
            case "GET", ["pipelines", pipeline, "versions"]:
                own = [one for one in self.versions.values() if one["pipeline_id"] == pipeline]
                return self._page(own, "pipeline_versions", query)
            case "GET", ["pipelines"]:
                return self._page(self._of_namespace(self.pipelines, query), "pipelines", query)
            case "POST", ["experiments"]:
                return self._create_experiment(json.loads(content))
            case "GET", ["experiments"]:
                return self._page(self._of_namespace(self.experiments, query), "experiments", query)
            case "POST", ["runs"]:
                return self._create_run(json.loads(content))
            case "GET", ["runs", run]:
                return self._look(run)
            case "GET", ["runs"]:  # recurring_run_id in the query is not heeded
                return self._page(self._of_experiment(self.runs, query), "runs", query)
            case "POST", ["recurringruns"]:
                return self._create_job(json.loads(content))
            case "GET", ["recurringruns"]:
                return self._page(self._of_experiment(self.jobs, query), "recurringRuns", query)
            case "GET", ["recurringruns", job]:
                return self._job(job, "fetch a recurring run: ")
            case "DELETE", ["recurringruns", job]:
                return self._delete_job(job, query)
            case "POST", ["recurringruns", action] if ":" in action:
                return self._switch(*action.split(":"))
        raise RefusedError(501, 12, "Method Not Allowed")

    # Pipelines

    def _upload(self, query: Json, documents: list[Json]) -> Json:
        name = query["name"]
        if any(one["name"] == name for one in self.pipelines.values()):
            raise RefusedError(409, 6, "Failed to create a pipeline and a pipeline version")
        pipeline = self._create_pipeline({"name": name, "display_name": query.get("display_name", name), **query})
        self._create_version(pipeline["pipeline_id"], name, query.get("display_name", name), query, documents)
        return self._shown(pipeline)

    def _create_pipeline(self, body: Json) -> Json:
        name, namespace = body["name"], body.get("namespace", "")
        self._check_namespace(namespace)
        if any((one["name"], one["namespace"]) == (name, namespace) for one in self.pipelines.values()):
            raise RefusedError(
                409, 6, f"Failed to create a pipeline: Already exist error: The name {name} already exists"
            )
        made = {
            "pipeline_id": _id(),
            "display_name": body.get("display_name", name),
            "name": name,
            "description": body.get("description", ""),
            "created_at": self._time(),
            "namespace": namespace,
        }
        self.pipelines[made["pipeline_id"]] = made
        return made

    def _upload_version(self, query: Json, documents: list[Json]) -> Json:
        pipeline, name = query["pipelineid"], query["name"]
        if pipeline not in self.pipelines or "root" not in documents[0]:
            raise RefusedError(400, 3, "Failed to create a pipeline version")
        if any((one["pipeline_id"], one["name"]) == (pipeline, name) for one in self.versions.values()):
            raise RefusedError(409, 6, "Failed to create a pipeline version")
        return self._create_version(pipeline, name, name, query, documents)

    def _create_version(self, pipeline: str, name: str, shown: str, query: Json, documents: list[Json]) -> Json:
        spec: Json = documents[0]
        if len(documents) > 1:
            spec = {"pipeline_spec": spec, "platform_spec": documents[1]}
        made = {
            "pipeline_id": pipeline,
            "pipeline_version_id": _id(),
            "display_name": shown,
            "name": name,
            **({"description": query["description"]} if query.get("description") else {}),
            "created_at": self._time(),
            "pipeline_spec": spec,
        }
        self.versions[made["pipeline_version_id"]] = made
        return made

    def _named(self, name: str, namespace: str) -> Json:
        for one in self.pipelines.values():
            if (one["name"], one["namespace"]) == (name, namespace):
                return one
        raise RefusedError(
            404,
            5,
            f"Failed to get a pipeline with name {name} and namespace {namespace}. Check error stack.: Failed to get a "
            f"pipeline named {name} in namespace {namespace}: ResourceNotFoundError: Namespace/Pipeline "
            f"{namespace}/{name} not found",
        )

    # Experiments

    def _create_experiment(self, body: Json) -> Json:
        name, namespace = body["display_name"], body.get("namespace", "")
        self._check_namespace(namespace)
        if any((one["display_name"], one["namespace"]) == (name, namespace) for one in self.experiments.values()):
            raise RefusedError(
                409,
                6,
                "Failed to create a experiment: Already exist error: Failed to create a new experiment. The name "
                f"{name} already exists. Please specify a new name",
            )
        made = {
            "experiment_id": _id(),
            "display_name": name,
            "created_at": self._time(),
            "storage_state": "AVAILABLE",
            "last_run_created_at": "1970-01-01T00:00:00Z",
            "namespace": namespace,
        }
        self.experiments[made["experiment_id"]] = made
        return self._shown(made)

    def _experiment(self, body: Json) -> str:
        if body.get("experiment_id"):
            return body["experiment_id"]
        if self.namespaces:
            raise RefusedError(400, 3, "A run cannot have an empty namespace in multi-user mode")
        for one in self.experiments.values():
            if one["display_name"] == "Default":
                return one["experiment_id"]
        return self._create_experiment({"display_name": "Default"})["experiment_id"]

    # Runs

    def _create_run(self, body: Json) -> Json:
        version = self._version(body, "Failed to create a new run: InternalServerError: Failed to create a run due to ")
        self._check_parameters(body, version, "Failed to create a new run: Failed to generate the ExecutionSpec: ")
        created = self._time()
        made = {
            "experiment_id": self._experiment(body),
            "run_id": _id(),
            "display_name": body["display_name"],
            "storage_state": "AVAILABLE",
            "pipeline_version_reference": {
                "pipeline_id": version["pipeline_id"],
                "pipeline_version_id": version["pipeline_version_id"],
            },
            "runtime_config": {"parameters": dict(sorted(body["runtime_config"]["parameters"].items()))},
            "service_account": body.get("service_account", "pipeline-runner"),
            "created_at": created,
            "scheduled_at": created,
            "finished_at": "1970-01-01T00:00:00Z",
            "state": "PENDING",
            "state_history": [{"update_time": created, "state": "PENDING"}],
        }
        if "recurring_run_id" in body:
            made["recurring_run_id"] = body["recurring_run_id"]
        self.runs[made["run_id"]] = made
        return made

    def fire(self, job: str) -> str:
        """Start a run of a recurring run, as the controller does."""
        source = {key: self.jobs[job][key] for key in ("pipeline_version_reference", "runtime_config", "experiment_id")}
        return self._create_run({**source, "display_name": "fired", "recurring_run_id": job})["run_id"]

    def _look(self, run: str) -> Json:
        if run not in self.runs:
            raise RefusedError(
                404,
                5,
                f"Failed to get a run: Failed to fetch run {run}: ResourceNotFoundError: Run {run} not found",
            )
        look = self._looks.get(run, 0)
        self._looks[run] = look + 1
        state = self.progress[min(look, len(self.progress) - 1)]
        found = self.runs[run]
        found["state"] = state
        if state in ("SUCCEEDED", "FAILED", "CANCELED"):
            found["finished_at"] = self._time()
        if state == "FAILED":
            failed = {"display_name": "sample", "state": "FAILED", "error": {"message": self.error}}
            found["run_details"] = {"task_details": [failed, {"display_name": "fit", "state": "SKIPPED"}]}
        return found

    def _version(self, body: Json, failed: str) -> Json:
        reference = body["pipeline_version_reference"]
        pinned = reference.get("pipeline_version_id")
        if pinned is None:  # the latest, by whole seconds; of those made in the same, the first
            own = [one for one in self.versions.values() if one["pipeline_id"] == reference["pipeline_id"]]
            return max(own, key=lambda one: one["created_at"])
        if pinned not in self.versions:
            raise RefusedError(
                500,
                13,
                f"{failed}error fetching manifest: Failed to fetch a template due to error retrieving pipeline "
                f"version: Failed to fetch a pipeline version and its manifest from pipeline version {pinned}: Failed "
                f"to get a pipeline version with id {pinned}: ResourceNotFoundError: PipelineVersion {pinned} not "
                "found",
            )
        return self.versions[pinned]

    def _check_parameters(self, body: Json, version: Json, failed: str) -> None:
        spec = version["pipeline_spec"]
        declared = spec.get("pipeline_spec", spec)["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body["runtime_config"].get("parameters", {})
        wrong = f"{failed}invalid pipeline job inputs: Invalid input error: "
        for name in sorted(declared):
            if name not in given and not declared[name].get("isOptional"):
                message = f"parameter {name} is not optional, yet has neither default value nor user provided value"
                raise RefusedError(400, 3, wrong + message)
        for name, value in given.items():
            if name in declared and not JSON_TYPES[declared[name]["parameterType"]](value):
                message = f"input parameter {name} {WRONG_TYPE[declared[name]['parameterType']]}"
                raise RefusedError(400, 3, wrong + message)
        unknown = ", ".join(sorted(given.keys() - declared.keys()))
        if unknown:
            raise RefusedError(400, 3, f"{wrong}parameter(s) provided are not required by pipeline: {unknown}")

    # Recurring runs

    def _create_job(self, body: Json) -> Json:
        converting = "Failed to create a recurring run due to conversion error: "
        for key in body.keys() - JOB_FIELDS:
            raise RefusedError(400, 3, f'proto: (line 1:460): unknown field "{key}"')
        mode = body.get("mode", "DISABLE")
        if mode not in ("ENABLE", "DISABLE"):
            raise RefusedError(400, 3, f'proto: (line 1:430): invalid value for enum field mode: "{mode}"')
        if not body.get("display_name"):
            raise RefusedError(
                500,
                13,
                f"{converting}InternalServerError: Failed to convert a API recurring run to its internal "
                "representation: Invalid input error: Recurring run's name cannot be empty",
            )
        at_once = int(body.get("max_concurrency", 0))
        if not 1 <= at_once <= 10:
            bounds = f"at least 1 and at most 10. Received {at_once}"
            raise RefusedError(
                400, 3, f"{converting}Invalid input error: Max concurrency of a recurring run must be {bounds}"
            )
        cron = body.get("trigger", {}).get("cron_schedule", {}).get("cron")
        if cron == "":
            raise RefusedError(400, 3, CRON + "Empty spec string")
        if cron is not None and not cron.startswith("@") and len(cron.split()) not in (5, 6):
            raise RefusedError(400, 3, f"{CRON}Expected 5 to 6 fields, found {len(cron.split())}: {cron}")
        failed = (
            "Failed to create a recurring run: Failed to create a recurring run during scheduled workflow creation: "
        )
        version = self._version(body, failed)
        self._check_parameters(body, version, failed)
        pinned = "pipeline_version_id" in body["pipeline_version_reference"]
        created = self._time()
        made = {
            "recurring_run_id": _id(),
            "display_name": body["display_name"],
            **({"description": body["description"]} if body.get("description") else {}),
            "pipeline_version_reference": body["pipeline_version_reference"],
            "runtime_config": {"parameters": dict(sorted(body["runtime_config"]["parameters"].items()))},
            **({"service_account": body.get("service_account", "pipeline-runner")} if pinned else {}),
            "max_concurrency": str(at_once),
            "trigger": body.get("trigger", {}),
            "mode": mode,
            "created_at": created,
            "updated_at": created,
            "status": mode + "D",
            **({"no_catchup": True} if body.get("no_catchup") else {}),
            "namespace": self._namespace_of(body),
            "experiment_id": self._experiment(body),
        }
        self.jobs[made["recurring_run_id"]] = made
        return made

    def _namespace_of(self, body: Json) -> str:
        experiment = self.experiments.get(body.get("experiment_id") or "", {})
        return experiment.get("namespace") or "kubeflow"

    def _job(self, job: str, failed: str) -> Json:
        if job not in self.jobs:
            raise RefusedError(404, 5, f"Failed to {failed}ResourceNotFoundError: Job {job} not found")
        return self.jobs[job]

    def _switch(self, job: str, action: str) -> Json:
        found = self._job(job, f"{action} a recurring run: ")
        mode = action.upper()
        if mode not in ("ENABLE", "DISABLE"):
            raise RefusedError(501, 12, "Method Not Allowed")
        found.update(mode=mode, status=mode + "D")
        return {}

    def _delete_job(self, job: str, query: Json) -> Json:
        self._job(job, f"delete a recurring run: Failed to delete recurring run {job}. Check if exists: ")
        if query.get("propagation_policy", "ORPHAN") not in ("ORPHAN", "FOREGROUND", "BACKGROUND"):
            raise RefusedError(400, 3, f"invalid propagation policy {query['propagation_policy']}")
        del self.jobs[job]
        return {}

    # All

    def _time(self) -> str:
        self.now += timedelta(seconds=self.tick)
        return f"{self.now:%Y-%m-%dT%H:%M:%SZ}"

    def _check_namespace(self, namespace: str) -> None:
        if self.namespaces and not namespace:
            raise RefusedError(
                400, 3, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode"
            )
        if self.namespaces and namespace not in self.namespaces:
            request = f"(request: {{Namespace:{namespace} Verb:list}})"
            raise RefusedError(
                403,
                7,
                "Failed to authorize with API: User 'me' is not authorized with reason:  "
                f"{request}: Unauthorized access",
            )

    def _of_namespace(self, kept: dict[str, Json], query: Json) -> list[Json]:
        namespace = query.get("namespace", "")
        self._check_namespace(namespace)
        return [one for one in kept.values() if one["namespace"] == namespace]

    def _of_experiment(self, kept: dict[str, Json], query: Json) -> list[Json]:
        experiment = query.get("experiment_id")
        if experiment is None:
            self._check_namespace(query.get("namespace", ""))
        return [one for one in kept.values() if experiment is None or one["experiment_id"] == experiment]

    def _page(self, found: list[Json], key: str, query: Json) -> Json:
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            name = {"name": "name" if found and "name" in found[0] else "display_name"}
            field_ = name.get(predicate["key"], predicate["key"])
            value = predicate.get("string_value", predicate.get("stringValue"))
            match predicate["operation"]:
                case "EQUALS" | 1:
                    found = [one for one in found if one.get(field_, "") == value]
                case "IS_SUBSTRING":
                    found = [one for one in found if value in one.get(field_, "")]
                case other:
                    raise AssertionError(other)
        if query.get("sort_by") == "created_at desc":
            found = sorted(found, key=lambda one: one["created_at"], reverse=True)
        if not found:
            return {}
        start, size = int(query.get("page_token", 0)), int(query.get("page_size", 20))
        answer = {key: [self._shown(one) for one in found[start : start + size]], "total_size": len(found)}
        if start + size < len(found):
            answer["next_page_token"] = str(start + size)
        return answer

    @staticmethod
    def _shown(one: Json) -> Json:
        """Leave out what is empty, as protobuf's JSON does."""
        return {key: value for key, value in one.items() if value != ""}


def _id() -> str:
    return str(uuid.uuid4())


def _uploaded(headers: Json, content: bytes) -> list[Json]:
    """The documents of the file that is uploaded."""
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + content, policy=email.policy.HTTP)
    (part,) = message.iter_parts()
    assert part.get_param("name", header="content-disposition") == "uploadfile"
    return [*yaml.safe_load_all(part.get_payload(decode=True))]


@contextmanager
def serving_kubeflow(kubeflow: KubeflowDouble) -> Generator[str]:
    """Answer for it; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = kubeflow.answer(self.command, self.path, dict(self.headers), content)
            page = isinstance(answer, bytes)
            body = answer if page else json.dumps(answer, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if page else "application/json")
            if 300 <= status < 400:
                self.send_header("Location", answer["location"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(TestServer(Handler)) as address:
        yield address
