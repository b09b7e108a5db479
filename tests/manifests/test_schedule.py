"""The Job that keeps a schedule in step: the overlay that its README shows, its rules, and what it does to Kubeflow."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.components.kubeflow.logins import AUDIENCE, DEFAULT_POD_TOKEN
from driftline.pipelines.commands.schedule import schedule
from tests.manifests import rules
from tests.manifests.objects import ROOT, Object, build, environment, named, of_kind, pod_of, title
from tests.manifests.strict import problems
from tests.support.kubeflow_cli import PIPELINE, VARIABLES
from tests.support.kubeflow_double import KubeflowDouble, serving_kubeflow

SCHEDULE = ROOT / "manifests" / "schedule"
NOT_IN_THE_IMAGE = ("rich", "kfp_kubernetes", "torch", "transformers", "kserve", "kafka", "grpc", "uvicorn")
NOT_NEEDED = ("kfp", "jax", "numpy", "pyarrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's overlay, beside a copy of the manifests, with a compiled pipeline."""
    place = tmp_path_factory.mktemp("schedule")
    shutil.copytree(SCHEDULE, place / "driftline" / "manifests" / "schedule")
    shown = dict(
        re.findall(r"```yaml\n# (\S+)\n(.*?)```", (SCHEDULE / "README.md").read_text("utf-8"), flags=re.DOTALL)
    )
    assert [*shown] == ["watch/kustomization.yaml", "watch/parameters.yaml"]
    (place / "watch").mkdir()
    for path, text in shown.items():
        (place / path).write_text(text, encoding="utf-8")
    (place / "watch" / "drift.yaml").write_text(PIPELINE, encoding="utf-8")
    return place


@pytest.fixture
def objects(folder: Path) -> list[Object]:
    return build(folder / "watch")


def broken(objects: list[Object]) -> list[str]:
    """What breaks a rule; those of servers, probes and the like, are no matter of a Job's."""
    pod = pod_of(objects, "schedule")
    return [
        *(line for one in objects for line in problems(one)),
        *(line for rule in (rules.confined, rules.provided, rules.mounted) for line in rule(pod)),
        *rules.references(objects),
        *rules.secrets(objects),
        *allowed(objects),
    ]


def allowed(objects: list[Object]) -> list[str]:
    """The pod's ServiceAccount may do what is asked of Kubeflow, and nothing with Kubernetes itself."""
    (binding,) = of_kind(objects, "RoleBinding")
    (role,) = of_kind(objects, "Role")
    account = pod_of(objects, "schedule").spec["serviceAccountName"]
    wrong = [] if [one["name"] for one in binding["subjects"]] == [account] else ["the binding is another account's"]
    wrong += [] if binding["roleRef"]["name"] == role["metadata"]["name"] else ["the binding is of another role"]
    given = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    needed = {("jobs", verb) for verb in ("get", "list", "create", "enable", "disable", "delete")}
    needed |= {("experiments", "list"), ("experiments", "create"), ("runs", "list")}
    needed |= {("pipelines", verb) for verb in ("get", "list", "create")}
    wrong += [f"may not {verb} {resource}" for resource, verb in sorted(needed - given)]
    if any(rule["apiGroups"] != ["pipelines.kubeflow.org"] or "*" in rule["verbs"] for rule in role["rules"]):
        wrong.append("the role is for more than Kubeflow's API server")
    return wrong


def test_the_overlay_keeps_the_rules(objects: list[Object]) -> None:
    assert broken(objects) == []
    kinds = ("Job", "Role", "RoleBinding", "ServiceAccount")
    assert sorted(title(one) for one in objects if one["kind"] != "ConfigMap") == [
        f"{kind}/driftline-schedule" for kind in kinds
    ]
    assert {one["metadata"].get("namespace") for one in objects} == {"reviews"}


def volume(objects: list[Object], name: str) -> dict[str, Any]:
    (found,) = [one for one in pod_of(objects, "schedule").spec["volumes"] if one["name"] == name]
    return found


@pytest.mark.parametrize(
    ("message", "spoil"),
    [
        (
            "no ConfigMap driftline-nothing",
            lambda o: volume(o, "pipeline")["configMap"].update(name="driftline-nothing"),
        ),
        ("may not disable jobs", lambda o: of_kind(o, "Role")[0]["rules"][2]["verbs"].remove("disable")),
        ("more than Kubeflow's API", lambda o: of_kind(o, "Role")[0]["rules"][0].update(apiGroups=["*"])),
        ("another account's", lambda o: of_kind(o, "RoleBinding")[0]["subjects"][0].update(name="default")),
        ("runAsNonRoot", lambda o: pod_of(o, "schedule").spec["securityContext"].update(runAsNonRoot=False)),
        ("has no sizeLimit", lambda o: volume(o, "tmp")["emptyDir"].clear()),
        ("unknown", lambda o: of_kind(o, "Job")[0]["spec"].update(ttl=1)),
    ],
)
def test_what_breaks_a_rule_is_seen(objects: list[Object], message: str, spoil: Callable[[list[Object]], Any]) -> None:
    spoil(objects)
    assert [line for line in broken(objects) if message in line], broken(objects)


def test_the_token_is_where_it_is_looked_for_and_for_kubeflow_alone(objects: list[Object]) -> None:
    (source,) = volume(objects, "token")["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert token["audience"] == AUDIENCE
    (mount,) = [one for one in pod_of(objects, "schedule").container["volumeMounts"] if one["name"] == "token"]
    assert f"{mount['mountPath']}/{token['path']}" == DEFAULT_POD_TOKEN


def test_every_setting_is_an_option(objects: list[Object]) -> None:
    known = {
        f"DRIFTLINE_SCHEDULE_{option.opts[-1].lstrip('-').replace('-', '_').upper()}" for option in schedule.params
    }
    found = environment(pod_of(objects, "schedule"), objects)
    assert {name for name in found if name.startswith("DRIFTLINE_")} <= known
    assert found["DRIFTLINE_SCHEDULE_NAME"] == "reviews-nightly"


BLOCKING = """
import importlib.abc, runpy, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[0] = "driftline"
runpy.run_module("driftline.pipelines", run_name="__main__", alter_sys=False)
"""


def test_its_command_makes_the_schedule(objects: list[Object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the container: its arguments, environment and files, without the packages that its image lacks."""
    pod = pod_of(objects, "schedule")
    assert pod.container["command"] == ["python3", "-m", "driftline.pipelines"]
    assert pod.container["image"].startswith("registry.example.com/ml/driftline/kernels@sha256:")
    data = named(objects, "ConfigMap", "driftline-pipeline")["data"]
    (mount,) = [one["mountPath"] for one in pod.container["volumeMounts"] if one["name"] == "pipeline"]
    for name, text in data.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    token = tmp_path / "token"
    token.write_text("the-pods", encoding="ascii")
    arguments = [one.replace(mount, str(tmp_path)) for one in pod.container["args"]]
    kubeflow = KubeflowDouble(token="the-pods", namespaces=("reviews",))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with serving_kubeflow(kubeflow) as url:
        found = environment(pod, objects)
        assert found["KF_PIPELINES_ENDPOINT"] == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
        for name, value in (found | {"KF_PIPELINES_ENDPOINT": url, "KF_PIPELINES_SA_TOKEN_PATH": str(token)}).items():
            monkeypatch.setenv(name, value)
        code = BLOCKING.format(missing={*NOT_IN_THE_IMAGE, *NOT_NEEDED})
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            assert "the-pods" not in done.stdout + done.stderr
    assert "is as it should be" in done.stdout
    (job,) = kubeflow.jobs.values()
    assert (job["display_name"], job["mode"], job["namespace"]) == ("reviews-nightly", "ENABLE", "reviews")
    assert job["trigger"]["cron_schedule"]["cron"] == "0 30 2 * * *"
    assert job["runtime_config"]["parameters"] == yaml.safe_load(data["parameters.yaml"])
    assert {one["namespace"] for one in (*kubeflow.pipelines.values(), *kubeflow.experiments.values())} == {"reviews"}


def test_the_images_lock_has_what_the_command_imports() -> None:
    lock = (ROOT / "images" / "kernels" / "requirements.lock").read_text(encoding="utf-8")
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    assert {"click", "pyyaml", "requests", "urllib3"} <= locked
    assert not {name.replace("_", "-") for name in NOT_IN_THE_IMAGE} & locked
