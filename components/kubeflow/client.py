"""Typed calls of Kubeflow Pipelines' API.

Names are found by filter or by name, never by the display name alone where the API knows a name. Lists are read page by
page. Recurring runs cannot be changed, only switched and replaced: the API has no update.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from driftline.components.errors import UsageError
from driftline.components.kubeflow.connection import Connection, Method, Request, Sender
from driftline.components.kubeflow.logins import Login
from driftline.components.kubeflow.refusals import KubeflowError, RefusedError

_PAGE: Final = 100
_BEHIND_A_GATEWAY: Final = "/pipeline"  # where Kubeflow's UI and gateway have the API
ENDED: Final = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
"""States that a run does not leave."""

Operation = Literal["EQUALS", "IS_SUBSTRING"]


@dataclass(frozen=True, slots=True)
class Health:
    """A server's release and mode.

    Attributes:
        release: ``2.17.0``; empty where the build has none.
        multi_user: whether pipelines and runs belong to namespaces.
    """

    release: str
    multi_user: bool

    @property
    def spares_runs(self) -> bool:
        """Whether a recurring run can be deleted without the runs that it started: from 2.17 on."""
        numbers = self.release.split(".")[:2]
        return len(numbers) == 2 and all(one.isdecimal() for one in numbers) and [*map(int, numbers)] >= [2, 17]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline, which is a name for versions."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Version:
    """A pipeline's version.

    Attributes:
        id: its own.
        pipeline: the pipeline's id.
        name: its own, unique in the pipeline.
        created: when, in whole seconds.
        spec: the pipeline spec; empty where the answer had none.
    """

    id: str
    pipeline: str
    name: str
    created: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def reference(self) -> dict[str, str]:
        """Return it as runs name it. Without the version's id they would take the latest at each start."""
        return {"pipeline_id": self.pipeline, "pipeline_version_id": self.id}


@dataclass(frozen=True, slots=True)
class Run:
    """A run.

    Attributes:
        id: its own.
        name: what people call it; not unique.
        state: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED or PAUSED; empty before any.
        created: when, ISO 8601.
        finished: when; empty while it is under way.
        error: why it failed, and which tasks; empty otherwise.
        parameters: as given; defaults are not among them.
        schedule: the recurring run that started it; empty for none.
    """

    id: str
    name: str
    state: str
    created: str
    finished: str
    error: str
    parameters: Mapping[str, Any]
    schedule: str

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class RecurringRun:
    """A schedule.

    Attributes:
        id: its own.
        name: what people call it; not unique.
        enabled: whether it starts runs.
        description: the one text that it can carry.
        created: when, ISO 8601.
        cron: when it starts runs, six fields; empty for a period.
    """

    id: str
    name: str
    enabled: bool
    description: str
    created: str
    cron: str


class Kubeflow:
    """Kubeflow Pipelines, for one namespace."""

    def __init__(self, sender: Sender, namespace: str = "") -> None:
        """Ask for nothing yet.

        Args:
            sender: how to ask.
            namespace: of pipelines, experiments and runs; empty where Kubeflow serves one user.
        """
        self._sender = sender
        self.namespace = namespace

    # Pipelines

    def find_pipeline(self, name: str) -> Pipeline | None:
        """Return the pipeline of a name or, failing that, the one of that display name; None for neither.

        In a namespace, its own come before those that all share.

        Raises:
            UsageError: several have that display name.
        """
        for namespace in dict.fromkeys((self.namespace, "")):
            try:
                found = self._ask("GET", f"pipelines/names/{quote(name, safe='')}", {"namespace": namespace})
            except RefusedError as refused:
                # Of those that all share: a server may allow none.
                if refused.status != HTTPStatus.NOT_FOUND and namespace == self.namespace:
                    raise
                continue
            return _pipeline(found)
        shown = [_pipeline(one) for one in self._list("pipelines", "pipelines", _equals("display_name", name))]
        if len(shown) > 1:
            names = ", ".join(sorted(one.name for one in shown))
            raise UsageError(f"pipeline {name!r}: {len(shown)} have that display name; give a name: {names}")
        return shown[0] if shown else None

    def create_pipeline(self, name: str, description: str) -> Pipeline:
        """Make a pipeline without versions."""
        body = {"name": name, "display_name": name, "description": description}
        if self.namespace:
            body["namespace"] = self.namespace
        return _pipeline(self._ask("POST", "pipelines", body=body, makes="pipeline_id"))

    def versions(self, pipeline: Pipeline, *, containing: str = "", latest: int | None = None) -> list[Version]:
        """Return a pipeline's versions, the latest first.

        Args:
            pipeline: whose.
            containing: part of their names.
            latest: at most so many; None for all.
        """
        query = {"sort_by": "created_at desc"}
        if containing:
            query |= _filter("IS_SUBSTRING", "name", containing)
        path = f"pipelines/{quote(pipeline.id, safe='')}/versions"
        return [_version(one) for one in self._list(path, "pipeline_versions", query, at_most=latest)]

    def upload_version(self, pipeline: Pipeline, name: str, description: str, content: bytes) -> Version:
        """Add a version to a pipeline: both documents of its YAML, the platform's too."""
        query = {"name": name, "pipelineid": pipeline.id, "description": description}
        place, file = "pipelines/upload_version", (f"{pipeline.name}.yaml", content)
        try:
            answer = self._ask("POST", place, query, file=file, makes="pipeline_version_id")
        except RefusedError as refused:
            if refused.status != HTTPStatus.BAD_REQUEST:
                raise
            # Of a missing right, too, the server's answer is only that it failed.
            hint = "check that this release takes the file, and that the login may create pipelines"
            raise RefusedError(f"{refused}; {hint}", refused.status) from refused
        return _version({"pipeline_id": pipeline.id, **answer})

    # Experiments

    def find_experiment(self, name: str) -> str | None:
        """Return the id of the experiment of a name, or None."""
        for one in self._list("experiments", "experiments", _equals("display_name", name)):
            return _text(one, "experiment_id")
        return None

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of a name, made where it is missing."""
        found = self.find_experiment(name)
        if found is not None:
            return found
        body = {"display_name": name}
        if self.namespace:
            body["namespace"] = self.namespace
        try:
            return _text(self._ask("POST", "experiments", body=body, makes="experiment_id"), "experiment_id")
        except RefusedError as refused:
            found = self.find_experiment(name) if refused.status == HTTPStatus.CONFLICT else None
            if found is None:  # else somebody made it a moment ago
                raise
            return found

    # Runs

    def create_run(self, body: Mapping[str, Any]) -> Run:
        """Start a run."""
        return _run(self._ask("POST", "runs", body=body, makes="run_id"))

    def run(self, identity: str) -> Run:
        """Return a run as it is now."""
        return _run(self._ask("GET", f"runs/{quote(identity, safe='')}"))

    def runs(
        self, *, experiment: str = "", schedule: str = "", named: str = "", at_most: int | None = None
    ) -> list[Run]:
        """Return runs, the latest first.

        Args:
            experiment: id of theirs; empty for all of the namespace.
            schedule: id of the recurring run that started them; empty for all.
            named: their display name; empty for all.
            at_most: so many; None for all.
        """
        query = {"sort_by": "created_at desc"}
        if experiment:
            query["experiment_id"] = experiment
        # The API takes a recurring_run_id in the query too, and does not heed it.
        predicates = {"recurring_run_id": schedule, "display_name": named}
        for key, value in predicates.items():
            if value:
                query |= _filter("EQUALS", key, value)
        return [_run(one) for one in self._list("runs", "runs", query, at_most=at_most)]

    # Recurring runs

    def create_recurring_run(self, body: Mapping[str, Any]) -> RecurringRun:
        """Make a schedule."""
        return _recurring_run(self._ask("POST", "recurringruns", body=body, makes="recurring_run_id"))

    def recurring_run(self, identity: str) -> RecurringRun:
        """Return a schedule."""
        return _recurring_run(self._ask("GET", f"recurringruns/{quote(identity, safe='')}"))

    def recurring_runs(self, name: str, experiment: str) -> list[RecurringRun]:
        """Return the schedules of a name in an experiment; there may be any number."""
        query = {"experiment_id": experiment, **_equals("display_name", name)}
        return [_recurring_run(one) for one in self._list("recurringruns", "recurringRuns", query)]

    def enable(self, identity: str) -> None:
        """Let a schedule start runs."""
        self._ask("POST", f"recurringruns/{quote(identity, safe='')}:enable")

    def disable(self, identity: str) -> None:
        """Let a schedule start no more runs; those under way go on."""
        self._ask("POST", f"recurringruns/{quote(identity, safe='')}:disable")

    def delete_recurring_run(self, identity: str) -> None:
        """Delete a schedule, and from 2.17 on not the runs that it started; before, those under way go with it."""
        self._ask("DELETE", f"recurringruns/{quote(identity, safe='')}", {"propagation_policy": "ORPHAN"})

    def _list(
        self, path: str, key: str, query: Mapping[str, str], *, at_most: int | None = None
    ) -> Iterator[dict[str, Any]]:
        return islice(self._pages(path, key, query, _PAGE if at_most is None else min(at_most, _PAGE)), at_most)

    def _pages(self, path: str, key: str, query: Mapping[str, str], size: int) -> Iterator[dict[str, Any]]:
        asked = {**query, "page_size": str(size)}
        if self.namespace and "experiment_id" not in asked and not path.endswith("/versions"):
            asked["namespace"] = self.namespace
        while True:
            answer = self._ask("GET", path, asked)
            yield from cast("Sequence[dict[str, Any]]", answer.get(key) or ())
            token = answer.get("next_page_token")
            if not token:
                return
            asked["page_token"] = str(token)

    def _ask(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        file: tuple[str, bytes] | None = None,
        makes: str = "",
    ) -> dict[str, Any]:
        given = {key: value for key, value in (query or {}).items() if value}
        return self._sender.send(Request(method, path, given, body, file, makes))


def connect(host: str, login: Login | None = None) -> tuple[Connection, Health]:
    """Find the API at a host or, behind Kubeflow's gateway or UI, below /pipeline, and ask how it is.

    Raises:
        RefusedError: whoever asks must log in, or the host has no such API.
        KubeflowError: it gives no answer.
    """
    first = Connection(host, login)
    try:
        return first, _health(first)
    except KubeflowError as error:
        if not error.status or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        elsewhere = error
    except RefusedError as refused:
        elsewhere = refused
    second = first.below(_BEHIND_A_GATEWAY)
    try:
        return second, _health(second)
    except (KubeflowError, RefusedError) as error:
        # The one that asks for a login has the API behind it.
        asks_for_login = elsewhere.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        raise (elsewhere if asks_for_login or error.status == HTTPStatus.NOT_FOUND else error) from None


def _health(connection: Connection) -> Health:
    answer = connection.send(Request("GET", "healthz"))
    if "multi_user" not in answer and "commit_sha" not in answer:
        raise RefusedError(
            f"{connection.host}: answers, but is not the API of Kubeflow Pipelines; give the host of ml-pipeline, or "
            "of Kubeflow's gateway",
            HTTPStatus.OK,
        )
    release = str(answer.get("tag_name") or "").removeprefix("v")
    return Health(release if release[:1].isdecimal() else "", bool(answer.get("multi_user")))


def _filter(operation: Operation, key: str, value: str) -> dict[str, str]:
    return {"filter": json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})}


def _equals(key: str, value: str) -> dict[str, str]:
    return _filter("EQUALS", key, value)


def _text(answer: Mapping[str, Any], key: str) -> str:
    """Return what an answer must have."""
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise KubeflowError(
            f"Kubeflow Pipelines: expected {key} in the answer, got {sorted(answer)}; is it the v2 API?"
        )
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _pipeline(answer: Mapping[str, Any]) -> Pipeline:
    # Before 2.15 a pipeline has no name but that which is shown.
    return Pipeline(_text(answer, "pipeline_id"), str(answer.get("name") or answer.get("display_name") or ""))


def _version(answer: Mapping[str, Any]) -> Version:
    spec = _mapping(answer.get("pipeline_spec"))
    return Version(
        _text(answer, "pipeline_version_id"),
        _text(answer, "pipeline_id"),
        str(answer.get("name") or answer.get("display_name") or ""),
        str(answer.get("created_at") or ""),
        _mapping(spec.get("pipeline_spec")) or spec,  # alone where the pipeline has no platform spec
    )


def _run(answer: Mapping[str, Any]) -> Run:
    finished = str(answer.get("finished_at") or "")
    return Run(
        id=_text(answer, "run_id"),
        name=str(answer.get("display_name") or ""),
        state=str(answer.get("state") or ""),
        created=str(answer.get("created_at") or ""),
        finished="" if finished.startswith("1970-") else finished,
        error=_run_error(answer),
        parameters=_mapping(_mapping(answer.get("runtime_config")).get("parameters")),
        schedule=str(answer.get("recurring_run_id") or ""),
    )


def _run_error(answer: Mapping[str, Any]) -> str:
    """Return why a run failed: its own error, and the tasks that failed with theirs."""
    reasons = [str(_mapping(answer.get("error")).get("message") or "")]
    for one in cast("Sequence[object]", _mapping(answer.get("run_details")).get("task_details") or ()):
        task = _mapping(one)
        message = str(_mapping(task.get("error")).get("message") or "")
        if task.get("state") == "FAILED" and (message or not task.get("child_tasks")):
            reasons.append(f"task {task.get('display_name')}" + (f": {message}" if message else ""))
    return " ".join("; ".join(dict.fromkeys(one for one in reasons if one)).split())


def _recurring_run(answer: Mapping[str, Any]) -> RecurringRun:
    status = str(answer.get("status") or answer.get("mode") or "")
    trigger = _mapping(answer.get("trigger"))
    return RecurringRun(
        id=_text(answer, "recurring_run_id"),
        name=str(answer.get("display_name") or ""),
        enabled=status in ("ENABLED", "ENABLE"),
        description=str(answer.get("description") or ""),
        created=str(answer.get("created_at") or ""),
        cron=str(_mapping(trigger.get("cron_schedule")).get("cron") or ""),
    )
