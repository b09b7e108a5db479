import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes
from kfp.dsl import structures
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from pydantic import ValidationError

from driftline.components import images
from driftline.components.errors import StorageError, UsageError
from driftline.pipelines.catalogue import COMPONENTS, PIPELINES
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import LOCAL, STEPS, Profile, retry_window
from driftline.pipelines.profile.cluster import MODEL_CACHE
from driftline.pipelines.profile.values import amount
from tests.support.ir_lint import documents, problems

README = Path(__file__).parents[2] / "pipelines" / "README.md"
BACKFILL_STEPS = {"plan-backfill", "embed", "finish-backfill"}
NEVER_RETRIED = {name for name, step in STEPS.items() if not step.retried}


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Profile:
    """The README's profile, which says something of every key but `requests` for all tasks."""
    [example] = re.findall(r"```yaml\n(images:.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path_factory.mktemp("profile") / "cluster.yaml"
    path.write_text(example + "requests: {cpu: 3}\n", encoding="utf-8")
    return Profile.from_file(str(path))


@pytest.fixture(scope="module")
def compiled(everything) -> dict[str, str]:
    return {name: compile_pipeline(name, everything) for name in PIPELINES}


def executors(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the containers and the Kubernetes settings of a compiled pipeline by step."""
    spec, platform = documents(text)
    containers = {name[5:]: one["container"] for name, one in spec["deploymentSpec"]["executors"].items()}
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return containers, {name[5:]: one for name, one in settings.items()}


def tasks(text: str) -> dict[str, Any]:
    """Return the tasks of a compiled pipeline that run a container, by name."""
    spec, _ = documents(text)
    graphs = [
        component["dag"]["tasks"] for component in [spec["root"], *spec["components"].values()] if "dag" in component
    ]
    return {
        name: task
        for graph in graphs
        for name, task in graph.items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


def test_every_step_is_a_component_and_each_component_a_step():
    assert STEPS.keys() == COMPONENTS.keys()
    assert {name: step.image for name, step in STEPS.items()} == {name: one.image for name, one in COMPONENTS.items()}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_step_gets_what_it_needs_anywhere(name):
    containers, settings = executors(compile_pipeline(name, Profile()))
    assert containers.keys() == (BACKFILL_STEPS if name == "backfill" else STEPS.keys() - BACKFILL_STEPS)
    for step, container in containers.items():
        needs = STEPS[step]
        resources = container["resources"]
        assert container["image"] == images.DEFAULTS[needs.image]
        assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == (needs.cpu, needs.memory)
        assert "resourceCpuLimit" not in resources
        assert ("accelerator" in resources) == (step == "embed")
        assert "env" not in container
        # A label that the cluster's nodes do not have leaves pods pending for ever.
        assert "nodeSelector" not in settings[step]
        assert settings[step]["activeDeadlineSeconds"] == "21600"
    for step, task in tasks(compile_pipeline(name, Profile())).items():
        assert task["cachingOptions"] == {}, step


def test_locally_an_error_is_shown_at_once():
    text = compile_pipeline("backfill", LOCAL)
    assert "retryPolicy" not in text
    assert "accelerator" not in text


def test_images_are_the_profiles_then_the_environments(monkeypatch):
    monkeypatch.setenv("DRIFTLINE_IMAGES", "embed=host/embed:3,kernels=host/kernels:3")
    profile = Profile(images={"embed": "host/embed:4"})
    assert (profile.image("embed"), profile.image("kernels")) == ("host/embed:4", "host/kernels:3")
    containers, _ = executors(compile_pipeline("drift", profile))
    assert {container["image"] for container in containers.values()} == {"host/kernels:3"}


# Retries: Argo's window is of all attempts together.


@pytest.mark.parametrize(
    ("retries", "timeout", "hours"),
    # 4 x (6 h + 10 min to start) + 30 + 60 + 120 s = 24 h 43 min 30 s
    [
        (3, timedelta(hours=6), 25),
        (1, timedelta(hours=6), 13),
        (3, timedelta(minutes=1), 1),
        (2, timedelta(days=2), 145),
    ],
)
def test_the_window_of_retries(retries, timeout, hours):
    assert retry_window(retries, timeout) == timedelta(hours=hours)


@given(st.integers(1, 10), st.integers(60, 30 * 24 * 3600))
def test_the_window_lets_every_attempt_reach_its_time_out(retries, seconds):
    pauses = 30 * (2**retries - 1)
    window = retry_window(retries, timedelta(seconds=seconds)).total_seconds()
    assert (retries + 1) * seconds + pauses <= window <= (retries + 1) * (seconds + 600) + pauses + 3600


@pytest.mark.parametrize("name", PIPELINES)
def test_every_compiled_task_may_be_tried_as_often_as_it_says(name, compiled, everything):
    for text in (compiled[name], compile_pipeline(name, Profile())):
        _, settings = executors(text)
        for step, task in tasks(text).items():
            if step in NEVER_RETRIED:
                continue
            policy = task["retryPolicy"]
            retries, window_s = int(policy["maxRetryCount"]), int(policy["backoffMaxDuration"].removesuffix("s"))
            assert (policy["backoffDuration"], policy["backoffFactor"]) == ("30s", 2.0)
            deadline_s = int(settings[step]["activeDeadlineSeconds"])
            assert window_s >= (retries + 1) * deadline_s + 30 * (2**retries - 1), step
    assert int(tasks(compiled["drift"])["report"]["retryPolicy"]["maxRetryCount"]) == 1
    assert tasks(compiled["backfill"])["embed"]["retryPolicy"]["backoffMaxDuration"] == f"{49 * 3600}s"


def test_an_older_sdk_does_not_cut_the_window(monkeypatch):
    """KFP's SDK before 2.17 compiles no window above an hour."""
    honest = structures.RetryPolicy.to_proto

    def cut(self: structures.RetryPolicy) -> Any:
        policy = honest(self)
        policy.backoff_max_duration.FromSeconds(min(policy.backoff_max_duration.ToSeconds(), 3600))
        return policy

    monkeypatch.setattr(structures.RetryPolicy, "to_proto", cut)
    text = compile_pipeline("drift", Profile())
    windows = {task["retryPolicy"]["backoffMaxDuration"] for task in tasks(text).values() if "retryPolicy" in task}
    assert windows == {f"{25 * 3600}s"}


def test_a_step_that_fails_on_purpose_is_tried_once(everything):
    """Drift would be found again, three times over, and the run turn red half an hour later."""
    assert {"fail-on-drift"} == NEVER_RETRIED
    for profile in (Profile(), everything, Profile(retries=10), Profile.model_validate(NOT_AGAIN)):
        unretried = {step for step, task in tasks(compile_pipeline("drift", profile)).items() if not_tried_again(task)}
        assert unretried == NEVER_RETRIED


NOT_AGAIN = {"steps": {"fail-on-drift": {"retries": 0}}}


def not_tried_again(task: dict[str, Any]) -> bool:
    return int(task.get("retryPolicy", {}).get("maxRetryCount", 0)) == 0


# A profile that sets everything.


def test_the_example_sets_every_key(everything):
    assert everything.model_fields_set == Profile.model_fields.keys()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_profile_that_sets_everything_passes_the_lint_and_parses_strictly(name, compiled, everything):
    labels = {**everything.node_selector, **everything.gpu_node_selector}
    assert list(problems(compiled[name], selectors=labels.items())) == []
    assert list(problems(compiled[name])) != [], "the lint no longer looks at node selectors"
    spec, platform = documents(compiled[name])
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=False)
    for one in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        message = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        json_format.ParseDict(one, message, ignore_unknown_fields=False)


def test_what_is_said_of_all_tasks_is_in_every_one(compiled):
    for text in compiled.values():
        containers, settings = executors(text)
        for step, container in containers.items():
            one = settings[step]
            assert re.fullmatch(
                r"registry\.example\.com/ml/driftline/(embed|kernels)@sha256:(1+|2+)", container["image"]
            )
            assert {one["name"]: one["value"] for one in container["env"]} == {
                "HTTPS_PROXY": "http://proxy.example.com:3128",
                "NO_PROXY": ".svc,.cluster.local,10.0.0.0/8",
            }
            assert [secret["secretName"] for secret in one["imagePullSecret"]] == ["registry"]
            assert one["imagePullPolicy"] == "IfNotPresent"
            secrets = {secret["secretName"]: secret["keyToEnv"] for secret in one["secretAsEnv"]}
            assert secrets.pop("huggingface") == [{"secretKey": "token", "envVar": "HF_TOKEN"}]
            webhook = {"webhook": [{"secretKey": "token", "envVar": "DRIFTLINE_NOTIFY_TOKEN"}]}
            assert secrets == (webhook if step == "notify" else {})
            assert ("driftline-data", "/data") in mounts(one)
            assert one["podMetadata"] == {
                "labels": {"team": "search"},
                "annotations": {"sidecar.istio.io/inject": "false"},
            }
            assert one["nodeSelector"]["labels"]["pool"] == "batch"
            dedicated = {"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"}
            assert one["tolerations"][0] == dedicated
            requests = container["resources"]["resourceCpuRequest"], container["resources"]["resourceMemoryLimit"]
            assert requests == (("8", "32Gi") if step == "embed" else ("3", "16Gi"))
        assert re.findall(r"parallelismLimit: (\d+)", text) == ["16"]


def mounts(settings: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["pvcNameParameter"]["runtimeValue"]["constant"], one["mountPath"]) for one in settings["pvcMount"]}


def test_what_is_said_of_one_step_is_in_it_alone(compiled):
    containers, settings = {}, {}
    for text in compiled.values():
        found = executors(text)
        containers.update(found[0])
        settings.update(found[1])
    gpus = {
        step: (one["resources"]["accelerator"]["resourceType"], one["resources"]["accelerator"]["resourceCount"])
        for step, one in containers.items()
        if "accelerator" in one["resources"]
    }
    assert gpus == {"embed": ("nvidia.com/gpu", "2"), "kernel-sums": ("nvidia.com/gpu", "1")}
    shared = {
        step: [(mount["mountPath"], mount["medium"], mount["sizeLimit"]) for mount in one["emptyDirMounts"]]
        for step, one in settings.items()
        if "emptyDirMounts" in one
    }
    gpu_memory = [("/dev/shm", "Memory", "2Gi")]
    assert shared == {"embed": gpu_memory, "kernel-sums": gpu_memory, "report": [("/dev/shm", "Memory", "256Mi")]}
    accelerated = {step for step, one in settings.items() if "cloud.google.com/gke-accelerator" in str(one)}
    assert accelerated == {"embed", "kernel-sums"}
    deadlines = {step: one["activeDeadlineSeconds"] for step, one in settings.items()}
    assert deadlines == {**dict.fromkeys(STEPS, "21600"), "embed": "43200"}
    gpu_taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert settings["embed"]["tolerations"][1:] == [{**gpu_taint, "key": "spot"}, gpu_taint]
    assert settings["kernel-sums"]["tolerations"][1:] == [gpu_taint]
    assert len(settings["report"]["tolerations"]) == 1
    assert {
        step for step, one in settings.items() if ("driftline-models", MODEL_CACHE) in mounts(one)
    } == BACKFILL_STEPS
    assert containers["embed"]["resources"]["resourceMemoryRequest"] == "24Gi"


def test_a_steps_variables_volumes_and_labels_come_before_all_tasks():
    profile = Profile.model_validate(
        {
            "environment": {"A": "all", "B": "all"},
            "secrets": {"C": {"name": "all", "key": "c"}, "D": {"name": "all", "key": "d"}},
            "volumes": {"data": "/data", "other": "/other"},
            "labels": {"team": "all", "tier": "all"},
            "node_selector": {"pool": "all", "zone": "a"},
            "steps": {
                "fit": {
                    "environment": {"A": "own", "C": "own"},
                    "secrets": {"B": {"name": "own", "key": "b"}},
                    "volumes": {"data": "/mnt/data"},
                    "labels": {"team": "own"},
                    "node_selector": {"pool": "own"},
                }
            },
        }
    )
    containers, settings = executors(compile_pipeline("drift", profile))

    def secrets(step: str) -> dict[str, str]:
        return {one["keyToEnv"][0]["envVar"]: one["secretName"] for one in settings[step]["secretAsEnv"]}

    def variables(step: str) -> dict[str, str]:
        return {one["name"]: one["value"] for one in containers[step]["env"]}

    assert (variables("fit"), secrets("fit")) == ({"A": "own", "C": "own"}, {"B": "own", "D": "all"})
    assert (variables("plan"), secrets("plan")) == ({"A": "all", "B": "all"}, {"C": "all", "D": "all"})
    assert mounts(settings["fit"]) == {("data", "/mnt/data"), ("other", "/other")}
    assert mounts(settings["plan"]) == {("data", "/data"), ("other", "/other")}
    assert settings["fit"]["podMetadata"]["labels"] == {"team": "own", "tier": "all"}
    assert settings["fit"]["nodeSelector"]["labels"] == {"pool": "own", "zone": "a"}
    assert settings["plan"]["nodeSelector"]["labels"] == {"pool": "all", "zone": "a"}


def test_a_notification_s_token_is_a_secret_of_its_step_alone():
    token = {"name": "chat", "key": "token"}
    profile = Profile.model_validate({"steps": {"notify": {"secrets": {"DRIFTLINE_NOTIFY_TOKEN": token}}}})
    _, settings = executors(compile_pipeline("drift", profile))
    assert {step for step, one in settings.items() if "secretAsEnv" in one} == {"notify"}
    [secret] = settings["notify"]["secretAsEnv"]
    assert (secret["secretName"], secret["keyToEnv"]) == (
        "chat",
        [{"secretKey": "token", "envVar": "DRIFTLINE_NOTIFY_TOKEN"}],
    )


def first_step_inputs(profile: Profile) -> dict[str, Any]:
    """Return what is given to the backfill's first step by the profile, and not by who starts a run."""
    inputs = tasks(compile_pipeline("backfill", profile))["plan-backfill"]["inputs"]["parameters"]
    return {name: one["runtimeValue"]["constant"] for name, one in inputs.items() if "runtimeValue" in one}


def test_what_a_cluster_knows_of_its_encoders_reaches_the_backfill_s_first_step():
    told = {"encoder_tunings": "gs://lake/encoder tunings.json", "hourly_price": 2, "model_claim": "models"}
    profile = Profile.model_validate(told)
    assert first_step_inputs(profile) == {
        "encoder_tunings": "gs://lake/encoder tunings.json",
        "hourly_price": 2.0,
        "model_cache": MODEL_CACHE,
        "job": "{{$.pipeline_job_uuid}}",
    }
    assert first_step_inputs(Profile()) | {"job": ""} == {
        "encoder_tunings": "",
        "hourly_price": 0.0,
        "model_cache": "",
        "job": "",
    }
    spec, _ = documents(compile_pipeline("backfill", profile))
    assert not {"encoder_tunings", "hourly_price", "model_cache", "job"} & set(
        spec["root"]["inputDefinitions"]["parameters"]
    )


@given(st.one_of(st.integers(0, 10**400), st.floats(allow_nan=True, allow_infinity=True)))
def test_a_price_is_a_finite_number_or_refused(price):
    if 0 <= price < 1e300:
        assert Profile.model_validate({"hourly_price": price}).hourly_price == float(price)
    else:
        with pytest.raises(ValidationError, match="expected a number of at least 0"):
            Profile.model_validate({"hourly_price": price})


def test_the_models_claim_may_be_mounted_elsewhere_where_no_model_is_read():
    volumes = {"data": "/data", "models": "/models"}
    profile = Profile.model_validate({"model_claim": "models", "steps": {"fit": {"volumes": volumes}}})
    _, settings = executors(compile_pipeline("drift", profile))
    assert mounts(settings["fit"]) == set(volumes.items())


def test_a_part_of_a_gpu_is_on_a_node_tainted_as_a_gpus():
    profile = Profile(gpu_resource="nvidia.com/mig-1g.10gb", gpu=frozenset({"kernels"}))
    containers, settings = executors(compile_pipeline("drift", profile))
    assert containers["kernel-sums"]["resources"]["accelerator"]["resourceType"] == "nvidia.com/mig-1g.10gb"
    assert [one["key"] for one in settings["kernel-sums"]["tolerations"]] == ["nvidia.com/gpu"]


# Tasks of somebody else's components.


@dsl.component(base_image="host/notify:1", install_kfp_package=False)
def notify(text: str):
    pass


@dsl.component(base_image="host/report:1", install_kfp_package=False)
def report(text: str):
    pass


def place_others(everything: Profile) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    @dsl.pipeline(name="others")
    def others():
        everything.place(notify(text="a"))
        told = report(text="b").set_retry(7).set_cpu_request("1").set_env_variable("HF_TOKEN", "own")
        everything.place(kubernetes.set_timeout(told, 99))

    path = Path("others.yaml")
    compiler.Compiler().compile(others, str(path))  # pyright: ignore[reportArgumentType]
    text = path.read_text(encoding="utf-8")
    return *executors(text), tasks(text)


def test_a_task_of_another_component_gets_what_is_said_of_all(everything, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    containers, settings, placed = place_others(everything)
    assert containers["notify"]["image"] == "host/notify:1"
    assert containers["notify"]["resources"]["resourceCpuRequest"] == "3"
    assert settings["notify"]["activeDeadlineSeconds"] == "21600"
    assert settings["notify"]["imagePullSecret"]
    assert mounts(settings["notify"]) == {("driftline-data", "/data")}
    assert placed["notify"]["cachingOptions"] == {"enableCache": True}
    assert placed["notify"]["retryPolicy"]["backoffMaxDuration"] == f"{25 * 3600}s"


def test_a_component_that_is_called_as_a_step_keeps_what_it_has(everything, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    containers, settings, placed = place_others(everything)
    assert containers["report"]["image"] == "host/report:1"
    assert containers["report"]["resources"]["resourceCpuRequest"] == "1"
    assert {one["name"]: one["value"] for one in containers["report"]["env"]}["HF_TOKEN"] == "own"
    assert "secretAsEnv" not in settings["report"]
    assert "emptyDirMounts" not in settings["report"], "that is said of Driftline's report"
    assert settings["report"]["activeDeadlineSeconds"] == "99"
    assert placed["report"]["retryPolicy"]["maxRetryCount"] == 7


def test_a_whole_pipeline_is_no_task(everything):
    @dsl.pipeline(name="inner")
    def inner():
        notify(text="a")

    with pytest.raises(
        TypeError, match="place: expected a task of a component, got 'inner'; place the tasks within it"
    ):

        @dsl.pipeline(name="outer")
        def outer():
            everything.place(inner())


# The file.


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        Profile.from_file(str(path))
    return str(refused.value).removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retrys: 3", "retrys: unknown; did you mean retries?"),
        ("nodeSelector: {}", "nodeSelector: unknown; did you mean node_selector?"),
        ("steps: {embed: {gpu: 2}}", "steps.embed.gpu: unknown; did you mean gpus?"),
        ("steps: {embedd: {gpus: 1}}", "steps.embedd: unknown; did you mean embed?"),
        ("images: {embd: host/embed:1}", "images.embd: unknown; did you mean embed?"),
        ("tolerations: [{operation: Exists}]", "tolerations[0].operation: unknown; did you mean operator?"),
        ("steps: {fit: {limits: {disk: 1Gi}}}", "steps.fit.limits.disk: unknown; expected one of: cpu, memory"),
        ("zebra: 1\nretries: x\ngpus: 0", 'retries: expected a whole number, got "x" (and 2 more: gpus, zebra)'),
        ("retries: 11", "retries: expected a whole number of at most 10, got 11"),
        ("retries: yes", "retries: expected a whole number, got true"),
        ("retries:", "retries: expected a whole number, got null"),
        ("parallelism: 0", "parallelism: expected a whole number of at least 1, got 0"),
        ("steps: {embed: {gpus: 1.5}}", "steps.embed.gpus: expected a whole number, got 1.5"),
        ("steps: {embed: {gpus: 0}}", "steps.embed.gpus: expected a whole number of at least 1, got 0"),
        ("steps: {kernel-sums: {gpus: 2}}", "steps.kernel-sums.gpus: expected kernels in gpu"),
        (
            "steps: {report: {gpus: 2}}",
            "steps.report.gpus: expected no GPUs for this step, which never uses one",
        ),
        ("gpu: embed", 'gpu: expected a list, got "embed"'),
        ("gpu: [all]", "gpu[0]: expected 'embed' or 'kernels', got \"all\""),
        ("gpu_resource: gpu", 'gpu_resource: expected a resource of the nodes, such as nvidia.com/gpu, got "gpu"'),
        (
            "steps: [embed]",
            "steps: expected keys among sample, fit, project, plan, kernel-sums, mmd-test, report, notify, "
            'fail-on-drift, plan-backfill, embed, finish-backfill, got ["embed"]',
        ),
        ("limits: 3", "limits: expected keys among cpu, memory, got 3"),
        ("labels: team", 'labels: expected keys and values, got "team"'),
        ("requests: {cpu: two}", 'requests.cpu: expected cores, such as 2, 0.5 or 500m, got "two"'),
        (
            "steps: {embed: {requests: {memory: 8}}}",
            "steps.embed.requests.memory: expected an amount of memory with its unit, such as 8Gi or 1.5Gi, got 8",
        ),
        ("limits: {memory: 2Gi}", "limits.memory: expected at least what fit asks for, 4Gi, got 2Gi"),
        (
            "steps: {embed: {limits: {cpu: 3500m}}}",
            "steps.embed.limits.cpu: expected at least what embed asks for, 4, got 3500m",
        ),
        (
            "timeout: 6:00",
            "timeout: expected a duration from 1m to 30d, such as 6h, 90m or 1h30m, got 360",
        ),
        (
            "steps: {fit: {timeout: 6 hours}}",
            'steps.fit.timeout: expected a duration from 1m to 30d, such as 6h, 90m or 1h30m, got "6 hours"',
        ),
        (
            "images: {embed: host/embed}",
            "images.embed: expected an image with its digest, or with a version as its tag: what runs must not change "
            'unseen, got "host/embed"',
        ),
        (
            "images: {embed: 'host/embed@sha256:12'}",
            "images.embed: expected an image such as registry.example.org/driftline/embed@sha256:… (64 hexadecimal "
            'digits), got "host/embed@sha256:12"',
        ),
        (
            "image_pull_policy: always",
            "image_pull_policy: expected 'Always', 'IfNotPresent' or 'Never', got \"always\"",
        ),
        ("image_pull_secrets: registry", 'image_pull_secrets: expected a list, got "registry"'),
        ("volumes: {data: data}", 'volumes.data: expected the whole path of a folder, such as /data, got "data"'),
        (
            "volumes: {data: /data/../etc}",
            'volumes.data: expected the whole path of a folder, such as /data, got "/data/../etc"',
        ),
        (
            "volumes: {data: /gcs/x}",
            'volumes.data: expected a folder outside /gcs, which the container or KFP itself uses, got "/gcs/x"',
        ),
        (
            "volumes: {my.data: /data}",
            "volumes.my.data: expected as the key the name of a volume claim: at most 63 of a-z, 0-9 and -, "
            'got "my.data"',
        ),
        ("volumes: {a: /data, b: /data}", "volumes.b: expected another folder than that of a, got /data"),
        (
            "volumes: {a: /data}\nsteps: {fit: {volumes: {b: /data}}}",
            "steps.fit.volumes.b: expected another folder than that of a, got /data",
        ),
        (
            "volumes: {data: /data}\nmodel_claim: data",
            "volumes.data: expected another claim than model_claim: a task can mount each once",
        ),
        (
            f"volumes: {{data: {MODEL_CACHE}}}\nmodel_claim: models",
            f"volumes.data: expected another folder than that of model_claim, got {MODEL_CACHE}",
        ),
        (
            "volumes: {shared-memory: /data}",
            "volumes.shared-memory: expected another claim than the volume of /dev/shm: a task can mount each once",
        ),
        (
            "steps: {fail-on-drift: {retries: 2}}",
            "steps.fail-on-drift.retries: expected no retries of a step that fails on purpose",
        ),
        (
            "encoder_tunings: encoder.json",
            "encoder_tunings: expected a gs:// URI or the whole path of a file, such as /data/encoder.json, or an "
            'empty text, got "encoder.json"',
        ),
        (
            "encoder_tunings: gs://bucket/",
            "encoder_tunings: expected a gs:// URI or the whole path of a file, such as /data/encoder.json, or an "
            'empty text, got "gs://bucket/"',
        ),
        (
            "encoder_tunings: /data/{{workflow.name}}.json",
            'encoder_tunings: expected a text without {{, which Argo would fill in, got "/data/{{workflow.name}}.json"',
        ),
        (
            "encoder_tunings:",
            "encoder_tunings: expected text (in quotes, where YAML reads a number, a date or yes and no), got null",
        ),
        ("hourly_price: -1", "hourly_price: expected a number of at least 0, got -1"),
        ("hourly_price: '2.5'", 'hourly_price: expected a number of at least 0, got "2.5"'),
        ("hourly_price: yes", "hourly_price: expected a number of at least 0, got true"),
        ("hourly_price: .nan", "hourly_price: expected a number of at least 0, got NaN"),
        ("hourly_price: .inf", "hourly_price: expected a number of at least 0, got Infinity"),
        ("hourly_price:", "hourly_price: expected a number of at least 0, got null"),
        ("model_claim: A_B", 'model_claim: expected the name of a volume claim, or an empty text, got "A_B"'),
        (
            "environment: {DEBUG: 1}",
            "environment.DEBUG: expected text (in quotes, where YAML reads a number, a date or yes and no), got 1",
        ),
        (
            "environment: {2X: a}",
            'environment.2X: expected as the key the name of an environment variable: letters, digits and _, got "2X"',
        ),
        (
            "environment: {on: a}",
            "environment: expected text as every key, in quotes where need be, got true",
        ),
        (
            "environment: {X: '{{workflow.name}}'}",
            'environment.X: expected a text without {{, which Argo would fill in, got "{{workflow.name}}"',
        ),
        (
            "environment: {X: a}\nsecrets: {X: {name: a, key: b}}",
            "secrets.X: expected a variable that environment does not set, too",
        ),
        (
            "steps: {fit: {environment: {X: a}, secrets: {X: {name: a, key: b}}}}",
            "steps.fit.secrets.X: expected a variable that environment does not set, too",
        ),
        ("secrets: {HF_TOKEN: {name: hf}}", "secrets.HF_TOKEN.key: expected a value for key, got none"),
        (
            "node_selector: {pool: true}",
            "node_selector.pool: expected text (in quotes, where YAML reads a number, a date or yes and no), got true",
        ),
        (
            "labels: {team: a b}",
            'labels.team: expected a label\'s value: at most 63 letters, digits, -, _ and ., in quotes, got "a b"',
        ),
        (
            "tolerations: [{value: a}]",
            'tolerations[0]: expected a key, or the operator Exists for every taint, got {"value": "a"}',
        ),
        (
            "tolerations: [{operator: Exists, value: a}]",
            'tolerations[0]: expected no value with the operator Exists, got {"operator": "Exists", "value": "a"}',
        ),
        (
            "tolerations: [{key: a, seconds: 3}]",
            'tolerations[0]: expected seconds with the effect NoExecute only, got {"key": "a", "seconds": 3}',
        ),
        ("retries: 1\ngpus: 1\nretries: 2", "line 3, column 1: expected YAML (the key retries is given twice)"),
        ("gpu: [", "line 1, column 7: expected YAML (expected the node content, but found '<stream end>')"),
        ("- retries", 'expected keys such as requests, limits, environment, got ["retries"]'),
        ("", "expected keys such as requests, limits, environment, got an empty file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_key(tmp_path, text, message):
    assert refusal(tmp_path, text) == f"cluster.yaml: {message}"


@pytest.mark.parametrize(
    "text",
    [
        "secrets: {HF_TOKEN: hf_value}",
        "secrets: {HF_TOKEN: {name: hf, key: 'hf value', value: hf_value}}",
        "secrets: {HF_TOKEN: {name: hf, key: hf value}}",
        "steps: {embed: {secrets: {HF_TOKEN: hf_value}}}",
        "secrets: [hf_value]",
    ],
)
def test_a_secret_that_stands_in_the_file_is_not_shown(tmp_path, text):
    message = refusal(tmp_path, text)
    assert "secrets" in message
    assert "hf_value" not in message
    assert "hf value" not in message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match=r"cluster\.yaml: cannot read: there is no such file"):
        Profile.from_file(str(tmp_path / "cluster.yaml"))


def test_a_profile_in_code_is_checked_and_stays_as_it_is():
    with pytest.raises(ValidationError):
        Profile(parallelism=0)
    with pytest.raises(ValidationError):
        Profile().retries = 0  # pyright: ignore[reportAttributeAccessIssue]
    assert (Profile().parallelism, Profile().model_cache, Profile(model_claim="models").model_cache) == (
        16,
        "",
        MODEL_CACHE,
    )


# Quantities and durations.


@pytest.mark.parametrize(
    ("typed", "handed_on"),
    [("2", "2"), ("0.5", "500m"), ("500m", "500m"), ("2000m", "2"), ("1.25", "1250m"), (".5", "500m"), ("1e1", "10")],
)
def test_cores(typed, handed_on):
    assert Profile.model_validate({"limits": {"cpu": "1000"}, "requests": {"cpu": typed}}).requests.cpu == handed_on


@pytest.mark.parametrize("typed", ["0", "-1", "0.0001", "1.0005", "2 ", "Two", "1Ki i", "", "1e99", True])
def test_no_cores(typed):
    with pytest.raises(ValidationError, match=r"cores|string"):
        Profile.model_validate({"requests": {"cpu": typed}})


@pytest.mark.parametrize(
    ("typed", "handed_on"),
    [
        ("8Gi", "8Gi"),
        ("512M", "512M"),
        ("1.5Gi", "1610612736"),
        ("1e9", "1000000000"),
        ("2000000k", "2000000000"),
        ("8589934592", "8589934592"),
        ("1048576000m", "1048576"),
        ("1048576500m", None),
        ("16E", None),
    ],
)
def test_memory(typed, handed_on):
    """KFP's SDK takes no fractions and no `k`, and Kubernetes no `K`; what is handed on is taken by both."""
    if handed_on is None:
        with pytest.raises(ValidationError, match="memory"):
            Profile.model_validate({"requests": {"memory": typed}})
    else:
        assert Profile.model_validate({"requests": {"memory": typed}}).requests.memory == handed_on


@pytest.mark.parametrize("typed", ["8", "8GB", "8 Gi", "8gi", "8K", "-8Gi", "0", "1.5"])
def test_no_memory(typed):
    with pytest.raises(ValidationError, match="memory with its unit"):
        Profile.model_validate({"requests": {"memory": typed}})


@given(st.integers(1, 10**6), st.sampled_from(["k", "M", "G", "Ki", "Mi", "Gi"]))
def test_quantities_are_what_they_say(number, suffix):
    scale = {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    assert amount(f"{number}{suffix}") == Decimal(number * scale)


@pytest.mark.parametrize(
    ("typed", "seconds"), [("6h", 21600), ("90m", 5400), ("1h30m", 5400), ("1d", 86400), ("60s", 60), ("30d", 2592000)]
)
def test_durations(typed, seconds):
    assert Profile.model_validate({"timeout": typed}).timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize("typed", ["", "6", "59s", "31d", "h", "30m1h", "6H", "1.5h", "-6h", 6, "99999999999h"])
def test_no_durations(typed):
    with pytest.raises(ValidationError, match="expected a duration"):
        Profile.model_validate({"timeout": typed})


def test_the_file_may_be_what_yaml_itself_writes(tmp_path, everything):
    path = tmp_path / "again.yaml"
    plain = everything.model_dump(
        mode="json", exclude_none=True, exclude={"timeout": True, "steps": {"embed": {"timeout"}}}
    )
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    again = Profile.from_file(str(path))
    assert again.model_dump(exclude={"steps"}) == everything.model_dump(exclude={"steps"})
