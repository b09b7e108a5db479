"""The overlays that the README shows build, keep the rules, and say what they are meant to say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.manifests import event_rules, rules
from tests.manifests.objects import BASE, ROOT, Object, build, environment, named, of_kind, pod_of, pods, title
from tests.manifests.strict import problems

BROKERS = ["kafka-a:9092", "kafka-b:9092"]


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's files, beside a copy of the base, where it places them."""
    folder = tmp_path_factory.mktemp("overlays")
    shutil.copytree(BASE, folder / "driftline" / "manifests" / "base")
    readme = (ROOT / "manifests" / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", readme, flags=re.DOTALL))
    assert {Path(path).parent.name for path in shown} == {"reviews", "reviews-with-login", "without-events"}
    for path, text in shown.items():
        (folder / path).parent.mkdir()
        (folder / path).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(params=["reviews", "reviews-with-login"])
def overlay(request: pytest.FixtureRequest, overlays: Path) -> list[Object]:
    return build(overlays / request.param)


def test_an_overlay_keeps_the_rules(overlay: list[Object]) -> None:
    assert [line for one in overlay for line in problems(one)] == []
    assert list(event_rules.events(overlay)) == []
    assert list(rules.references(overlay)) == []
    assert list(rules.secrets(overlay)) == []
    expected = [line for line in rules.broken_pods(overlay) if "pinned: " not in line]
    assert expected == []


def test_an_overlay_reaches_every_pod(overlay: list[Object]) -> None:
    assert len(list(pods(overlay))) == 4
    for pod in pods(overlay):
        image = pod.container["image"]
        assert re.fullmatch(r"registry\.example\.com/ml/driftline/embed@sha256:[0-9a-f]{64}", image)
        command = pod.labels["app.kubernetes.io/component"].upper()
        assert environment(pod, overlay)[f"DRIFTLINE_{command}_BOOTSTRAP_SERVERS"] == ",".join(BROKERS)
    assert {one["metadata"].get("namespace") for one in overlay if one["kind"] != "ClusterRole"} == {"reviews"}
    for kind in ("KafkaSource", "KafkaSink"):
        (one,) = of_kind(overlay, kind)
        assert one["spec"]["bootstrapServers"] == BROKERS
    for component in ("serve", "stream", "archive", "monitor"):
        values = environment(pod_of(overlay, component), overlay).values()
        assert not [value for value in values if "example" in value]


def test_the_login_reaches_everything_that_speaks_to_kafka(overlays: Path) -> None:
    objects = build(overlays / "reviews-with-login")
    for pod in pods(objects):
        prefix = f"DRIFTLINE_{pod.labels['app.kubernetes.io/component'].upper()}_"
        found = environment(pod, objects)
        assert found[prefix + "SECURITY_PROTOCOL"] == "SASL_SSL"
        (mount,) = [one for one in pod.container["volumeMounts"] if one["name"] == "kafka-secret"]
        files = [found[prefix + name] for name in ("SASL_PASSWORD_FILE", "TLS_CA_FILE")]
        assert {str(Path(path).parent) for path in files} == {mount["mountPath"]}
    sasl = named(objects, "KafkaSource", "driftline-requests")["spec"]["net"]["sasl"]
    assert {one["secretKeyRef"]["name"] for one in sasl.values() if one is not True} == {"driftline-kafka"}
    sink = named(objects, "KafkaSink", "driftline-requests-dead-letters")
    assert sink["spec"]["auth"]["secret"]["ref"]["name"] == "driftline-kafka"


def test_what_is_not_needed_is_left_out(overlays: Path, base: list[Object]) -> None:
    left = {title(one) for one in base} - {title(one) for one in build(overlays / "without-events")}
    assert left == {"KafkaSource/driftline-requests", "KafkaSink/driftline-requests-dead-letters"}


def test_a_prefix_of_names_is_followed_into_custom_resources(tmp_path: Path) -> None:
    """What kustomize renames is renamed where it is named, too; custom resources need to be told."""
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamePrefix: second-\nresources: [../base]\n",
        encoding="utf-8",
    )
    objects = build(tmp_path / "second")
    assert {name.partition("-")[0] for name in (one["metadata"]["name"] for one in objects)} == {"second"}
    assert list(rules.references(objects)) == []
    assert list(event_rules.events(objects)) == []


def test_a_changed_setting_is_a_changed_pod(overlays: Path, base: list[Object]) -> None:
    changed = build(overlays / "reviews")
    for component in ("serve", "stream", "archive", "monitor"):
        before, after = (
            [source["configMapRef"]["name"] for source in pod_of(objects, component).container["envFrom"]]
            for objects in (base, changed)
        )
        assert before[0] != after[0], "driftline-kafka has other brokers"
        assert before[1:] == after[1:], "the other options are the same"
