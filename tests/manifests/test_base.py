"""The base: what it holds, the rules that it keeps, and that each rule sees what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.manifests import event_rules, rules
from tests.manifests.objects import BASE, Object, environment, named, of_kind, pod_of, pods, title

COMPONENTS = ("serve", "stream", "archive", "monitor")
WORKERS = ("stream", "archive", "monitor")
GROUPED = ("stream", "archive")


def broken(objects: Sequence[Object]) -> list[str]:
    """What breaks any rule, a line each."""
    return [
        *rules.broken_pods(objects),
        *rules.broken_objects(objects),
        *(f"events: {line}" for line in event_rules.events(objects)),
    ]


def test_the_base_keeps_every_rule(base: list[Object]) -> None:
    assert broken(base) == []


def test_it_holds_the_streaming_side_and_no_more(base: list[Object]) -> None:
    generated = ("archive", "encoder", "kafka", "monitor", "places", "serve", "stream")
    for stem in generated:
        named(base, "ConfigMap", f"driftline-{stem}")
    assert sorted(title(one) for one in base if one["kind"] != "ConfigMap") == sorted([
        "ClusterRole/driftline-addressable-inferenceservices",
        "InferenceService/driftline",
        "KafkaSink/driftline-requests-dead-letters",
        "KafkaSource/driftline-requests",
        *(f"ServiceAccount/driftline-{component}" for component in COMPONENTS),
        *(f"Service/driftline-{component}" for component in WORKERS),
        *(f"StatefulSet/driftline-{component}" for component in WORKERS),
    ])  # fmt: skip
    assert len(of_kind(base, "ConfigMap")) == len(generated)


def test_every_file_of_the_base_is_part_of_it() -> None:
    text = (BASE / "kustomization.yaml").read_text(encoding="utf-8")
    files = [path.relative_to(BASE).as_posix() for path in BASE.rglob("*.*") if path.name != "kustomization.yaml"]
    assert len(files) > 5
    assert [name for name in files if name not in text] == []


class TestInferenceService:
    def test_it_runs_as_a_deployment_that_kserve_neither_exposes_nor_scales(self, base: list[Object]) -> None:
        metadata = named(base, "InferenceService", "driftline")["metadata"]
        assert metadata["annotations"] == {
            "serving.kserve.io/deploymentMode": "Standard",
            "serving.kserve.io/autoscalerClass": "none",
        }
        assert metadata["labels"]["networking.kserve.io/visibility"] == "cluster-local"

    def test_its_container_is_the_one_that_kserve_looks_for(self, base: list[Object]) -> None:
        container = pod_of(base, "serve").container
        assert container["name"] == "kserve-container"
        assert [port["name"] for port in container["ports"]] == ["http", "grpc"], "the first is the Service's port 80"

    def test_nothing_batches_in_front_of_it(self, base: list[Object]) -> None:
        """KServe's agent drops the headers of events and turns a model's errors into successes."""
        assert not {"batcher", "logger"} & named(base, "InferenceService", "driftline")["spec"]["predictor"].keys()

    def test_it_has_shared_memory(self, base: list[Object]) -> None:
        for component in ("serve", "stream"):
            pod = pod_of(base, component)
            (name,) = [one["name"] for one in pod.container["volumeMounts"] if one["mountPath"] == "/dev/shm"]
            (volume,) = [one for one in pod.spec["volumes"] if one["name"] == name]
            assert volume["emptyDir"]["medium"] == "Memory"


class TestWorkers:
    @pytest.mark.parametrize("component", GROUPED)
    def test_a_workers_name_in_its_group_is_its_pods(self, base: list[Object], component: str) -> None:
        pod = pod_of(base, component)
        assert pod.owner["kind"] == "StatefulSet", "a Deployment's pods come back under other names"
        variable = f"DRIFTLINE_{component.upper()}_INSTANCE_ID"
        (found,) = [one for one in pod.container["env"] if one["name"] == variable]
        assert found["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}

    @pytest.mark.parametrize("component", WORKERS)
    def test_metrics_and_health_have_the_port_that_the_command_is_given(
        self, base: list[Object], component: str
    ) -> None:
        container = pod_of(base, component).container
        assert container["ports"] == [{"name": "metrics", "containerPort": 8082}]
        assert container["args"][:2] == [component, "--health-port=8082"]
        service = named(base, "Service", f"driftline-{component}")["spec"]
        assert [port["name"] for port in service["ports"]] == ["metrics"]

    def test_parts_that_read_alone_have_groups_of_their_own(self, base: list[Object]) -> None:
        groups = [environment(pod_of(base, one), base)[f"DRIFTLINE_{one.upper()}_GROUP"] for one in GROUPED]
        groups.append(named(base, "KafkaSource", "driftline-requests")["spec"]["consumerGroup"])
        assert len(set(groups)) == len(groups)

    def test_there_is_one_monitor_and_never_two(self, base: list[Object]) -> None:
        monitor = named(base, "StatefulSet", "driftline-monitor")["spec"]
        assert monitor["replicas"] == 1


class TestPlaces:
    def test_all_that_encode_use_one_model(self, base: list[Object]) -> None:
        served = environment(pod_of(base, "serve"), base)["DRIFTLINE_SERVE_MODEL"]
        assert served == "embed=" + environment(pod_of(base, "stream"), base)["DRIFTLINE_STREAM_MODEL"]
        assert served.startswith("embed=gs://")

    def test_what_is_written_is_what_is_read(self, base: list[Object]) -> None:
        seen = {one: environment(pod_of(base, one), base) for one in COMPONENTS}
        topics = {
            seen["stream"]["DRIFTLINE_STREAM_OUTPUT_TOPIC"],
            seen["serve"]["DRIFTLINE_SERVE_OUTPUT_TOPIC"],
            seen["archive"]["DRIFTLINE_ARCHIVE_TOPIC"],
            seen["monitor"]["DRIFTLINE_MONITOR_TOPIC"],
        }
        assert len(topics) == 1
        assert seen["stream"]["DRIFTLINE_STREAM_INPUT_TOPIC"] not in topics


def container(objects: Sequence[Object], component: str = "stream") -> dict[str, Any]:
    return pod_of(objects, component).container


def spec(objects: Sequence[Object], component: str = "stream") -> dict[str, Any]:
    return pod_of(objects, component).spec


def source(objects: Sequence[Object]) -> dict[str, Any]:
    return named(objects, "KafkaSource", "driftline-requests")["spec"]


def data(objects: Sequence[Object], stem: str) -> dict[str, Any]:
    return named(objects, "ConfigMap", f"driftline-{stem}")["data"]


def role(objects: Sequence[Object]) -> Object:
    return named(objects, "ClusterRole", "driftline-addressable-inferenceservices")


def add(objects: list[Object], kind: str, name: str) -> None:
    labels = {"app.kubernetes.io/part-of": "driftline"}
    objects.append({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}})


def drop(objects: list[Object], kind: str, stem: str) -> None:
    objects.remove(named(objects, kind, stem))


def spoilers() -> Iterator[tuple[str, Callable[[list[Object]], Any]]]:
    """What to break, and what the rule must say of it."""
    yield "runAsNonRoot is False", lambda o: spec(o)["securityContext"].update(runAsNonRoot=False)
    yield "runAsUser is 0", lambda o: spec(o, "serve")["securityContext"].update(runAsUser=0)
    yield "seccompProfile", lambda o: spec(o)["securityContext"].update(seccompProfile={"type": "Unconfined"})
    yield "token is mounted", lambda o: spec(o, "serve").pop("automountServiceAccountToken")
    yield "hostNetwork is set", lambda o: spec(o).update(hostNetwork=True)
    yield "kind hostPath", lambda o: spec(o)["volumes"].append({"name": "disk", "hostPath": {"path": "/"}})
    yield "container worker has", lambda o: container(o)["securityContext"].update(privileged=True)
    yield "container kserve-container has", lambda o: container(o, "serve").pop("securityContext")
    yield "requests no cpu", lambda o: container(o)["resources"]["requests"].pop("cpu")
    yield "limit 9Gi, request 8Gi", lambda o: container(o)["resources"]["limits"].update(memory="9Gi")
    yield "nvidia.com/gpu: limit 2", lambda o: container(o)["resources"]["limits"].update({rules.GPU: "2"})
    yield "does not tolerate", lambda o: spec(o).pop("tolerations")
    yield (
        "8 gigabytes",
        lambda o: [container(o)["resources"][one].update(memory="8 gigabytes") for one in ("requests", "limits")],
    )
    yield "has no sizeLimit", lambda o: spec(o)["volumes"][0]["emptyDir"].clear()
    yield "more than half", lambda o: [one.get("emptyDir", {}).update(medium="Memory") for one in spec(o)["volumes"]]
    yield "two ports", lambda o: container(o)["ports"].append({"name": "metrics", "containerPort": 8083})
    yield "no livenessProbe", lambda o: container(o).pop("livenessProbe")
    yield "port health, expected", lambda o: container(o)["readinessProbe"]["httpGet"].update(port="health")
    yield "path livez", lambda o: container(o)["livenessProbe"]["httpGet"].update(path="livez")
    yield "timeout is longer", lambda o: container(o)["livenessProbe"].update(timeoutSeconds=60)
    yield "less than 10 minutes", lambda o: container(o)["startupProbe"].pop("failureThreshold")
    yield "no preStop sleep", lambda o: container(o, "serve").pop("lifecycle")
    yield "less than 45 s", lambda o: spec(o, "serve").update(terminationGracePeriodSeconds=30)
    yield "mounts of", lambda o: container(o)["volumeMounts"].pop()
    yield "/tmp is not writable", lambda o: container(o)["volumeMounts"][0].update(mountPath="/var/tmp")
    yield "is not read-only", lambda o: [one.pop("readOnly", None) for one in container(o)["volumeMounts"]]
    yield "image driftline/embed:latest", lambda o: container(o).update(image="driftline/embed:latest")
    yield "no ServiceAccount", lambda o: spec(o, "serve").update(serviceAccountName="default")
    yield (
        "no ConfigMap driftline-strem",
        lambda o: container(o)["envFrom"][1]["configMapRef"].update(name="driftline-strem"),
    )
    yield "no key MODEL", lambda o: container(o)["env"][3]["valueFrom"]["configMapKeyRef"].update(key="MODEL")
    yield "nothing uses driftline-lone", lambda o: add(o, "ConfigMap", "driftline-lone")
    yield "leads to 0 kinds", lambda o: named(o, "Service", "driftline-stream")["spec"]["selector"].update(app="x")
    yield (
        "no port http in",
        lambda o: named(o, "Service", "driftline-stream")["spec"]["ports"][0].update(targetPort="http"),
    )
    yield "no Service x", lambda o: named(o, "StatefulSet", "driftline-stream")["spec"].update(serviceName="x")
    yield (
        "does not choose its own",
        lambda o: named(o, "StatefulSet", "driftline-stream")["spec"]["selector"].update(matchLabels={"app": "x"}),
    )
    yield "holds secrets", lambda o: add(o, "Secret", "driftline-x")
    yield "belongs into a Secret", lambda o: data(o, "kafka").update(SASL_PASSWORD="guess")
    yield "API_TOKEN belongs into", lambda o: container(o)["env"].append({"name": "API_TOKEN", "value": "guess"})
    yield "looks like a secret", lambda o: data(o, "stream").update(KEY="-----BEGIN PRIVATE KEY-----")
    yield "BROKER looks like", lambda o: data(o, "stream").update(BROKER="https://me:guess@example.com/")
    yield "names its namespace", lambda o: o[0]["metadata"].update(namespace="here")
    yield "no label", lambda o: o[0]["metadata"].pop("labels")
    yield "could be anyone's", lambda o: role(o)["metadata"].update(name="addressable")
    yield "its sink is not there", lambda o: source(o)["sink"]["ref"].update(name="other")
    yield "go to / and are lost", lambda o: source(o)["sink"].pop("uri")
    yield "does not name the model", lambda o: source(o)["sink"].update(uri="/v1/models/other:predict")
    yield "retry is 0", lambda o: source(o)["delivery"].pop("retry")
    yield "retry is 100", lambda o: source(o)["delivery"].update(retry=100)
    yield "no dead-letter sink", lambda o: source(o)["delivery"].pop("deadLetterSink")
    yield "no dead-letter sink", lambda o: drop(o, "KafkaSink", "driftline-requests-dead-letters")
    yield "its dead letters go to", lambda o: source(o).update(topics=["driftline.other"])
    yield "retryAfterMax", lambda o: source(o)["delivery"].update(retryAfterMax="PT60S")
    yield "timeout is 60s", lambda o: source(o)["delivery"].update(timeout="60s")
    yield "ordering is any", lambda o: source(o).update(ordering="any")
    yield "initialOffset is first", lambda o: source(o).update(initialOffset="first")
    yield "backoffPolicy is {}", lambda o: source(o)["delivery"].pop("backoffPolicy")
    yield "embedded twice", lambda o: data(o, "places").update(TEXTS_TOPIC="driftline.requests")
    yield "the workers' are", lambda o: data(o, "kafka").update(BOOTSTRAP_SERVERS="other:9092")
    yield "no ClusterRole lets", lambda o: role(o)["metadata"]["labels"].pop("duck.knative.dev/addressable")
    yield "no ClusterRole lets", lambda o: role(o)["rules"][0].update(resources=["services"])
    yield "more than reading", lambda o: role(o)["rules"][0]["verbs"].append("update")


@pytest.mark.parametrize(("message", "spoil"), list(spoilers()))
def test_what_breaks_a_rule_is_seen(base: list[Object], message: str, spoil: Callable[[list[Object]], Any]) -> None:
    spoil(base)
    assert [line for line in broken(base) if message in line], broken(base)


def test_the_rules_look_at_every_pod(base: list[Object]) -> None:
    assert sorted(pod.labels["app.kubernetes.io/component"] for pod in pods(base)) == sorted(COMPONENTS)
    for pod in pods(base):
        pod.spec.pop("securityContext")
    seen = {line.partition(":")[0] for line in broken(base)}
    assert seen == {"InferenceService/driftline", *(f"StatefulSet/driftline-{one}" for one in WORKERS)}
