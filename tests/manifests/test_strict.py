"""Every object has the form that its kind has, and the check of it sees what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.manifests.objects import Object, named, title
from tests.manifests.strict import closed, problems


def test_every_object_of_the_base_fits_its_schema(base: list[Object]) -> None:
    assert len(base) >= 15
    assert {title(one): problems(one) for one in base if problems(one)} == {}


def pod(one: Object) -> dict[str, Any]:
    return one["spec"]["predictor"] if one["kind"] == "InferenceService" else one["spec"]["template"]["spec"]


BROKEN: list[tuple[str, str, Callable[[Object], Any], str]] = [
    ("StatefulSet", "driftline-stream", lambda one: one["spec"].update(replica=2), "spec.replica: unknown"),
    ("StatefulSet", "driftline-stream", lambda one: one["spec"].update(replicas="2"), "spec.replicas: expected int"),
    ("StatefulSet", "driftline-stream", lambda one: one["spec"].pop("selector"), "`selector`"),
    ("StatefulSet", "driftline-stream", lambda one: one.update(apiVersion="apps/v1beta1"), "apps/v1beta1"),
    (
        "StatefulSet", "driftline-archive",
        lambda one: pod(one)["containers"][0]["livenessProbe"]["httpGet"].update(prot=1), "httpGet.prot: unknown",
    ),
    (
        "StatefulSet", "driftline-archive",
        lambda one: pod(one)["containers"][0]["securityContext"].update(readOnlyRootFilesystem="yes"),
        "readOnlyRootFilesystem: expected bool",
    ),
    (
        "StatefulSet", "driftline-monitor",
        lambda one: pod(one)["containers"][0]["resources"]["limits"].update(memory=4), "limits.memory: expected str",
    ),
    ("StatefulSet", "driftline-monitor", lambda one: one["spec"].update(replicas=True), "spec.replicas: expected int"),
    ("StatefulSet", "driftline-monitor", lambda one: pod(one).update(volumes={}), "volumes: expected a list"),
    ("ConfigMap", "driftline-kafka", lambda one: one["data"].update(PORT=9092), "data.PORT: expected str"),
    ("ConfigMap", "driftline-kafka", lambda one: one["metadata"].update(label={}), "metadata.label: unknown"),
    ("ClusterRole", "driftline-addressable-inferenceservices", lambda one: one["rules"][0].pop("verbs"), "`verbs`"),
    ("InferenceService", "driftline", lambda one: one["spec"]["predictor"].update(minReplica=1), "'minReplica'"),
    (
        "InferenceService", "driftline",
        lambda one: pod(one)["containers"][0]["envFrom"][0].update(configMap={}), "'configMap' was unexpected",
    ),
    (
        "InferenceService", "driftline",
        lambda one: pod(one)["volumes"][0]["emptyDir"].update(size="1Gi"), "'size' was unexpected",
    ),
    (
        "InferenceService", "driftline",
        lambda one: pod(one).update(terminationGracePeriodSeconds="60"), "'60' is not of type 'integer'",
    ),
    ("InferenceService", "driftline", lambda one: one["metadata"].update(annotation={}), "annotation: unknown"),
    ("InferenceService", "driftline", lambda one: one.update(status={}), "status"),
    ("KafkaSource", "driftline-requests", lambda one: one["spec"].update(topic="t"), "'topic' was unexpected"),
    ("KafkaSource", "driftline-requests", lambda one: one["spec"].pop("topics"), "'topics' is a required property"),
    (
        "KafkaSource", "driftline-requests",
        lambda one: one["spec"]["delivery"].update(retries=3), "'retries' was unexpected",
    ),
    ("KafkaSource", "driftline-requests", lambda one: one["spec"]["sink"]["ref"].pop("name"), "'name' is a required"),
    ("KafkaSink", "driftline-requests-dead-letters", lambda one: one["spec"].update(topics=[]), "'topics' was unexp"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "spoil", "message"), BROKEN)
def test_what_breaks_an_objects_form_is_seen(
    base: list[Object], kind: str, name: str, spoil: Callable[[Object], Any], message: str
) -> None:
    one = named(base, kind, name)
    assert problems(one) == []
    spoil(one)
    found = problems(one)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_kind_without_a_schema_fails(base: list[Object]) -> None:
    one = named(base, "KafkaSource", "driftline-requests")
    one["apiVersion"] = "sources.knative.dev/v1alpha1"
    with pytest.raises(pytest.fail.Exception, match=r"no schema of sources\.knative\.dev/v1alpha1 KafkaSource"):
        problems(one)


def test_closing_a_schema_keeps_what_is_open_on_purpose() -> None:
    schema = {
        "type": "object",
        "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        },
    }
    shut = closed(schema)
    assert shut["additionalProperties"] is False
    assert "additionalProperties" not in shut["properties"]["free"]
    assert shut["properties"]["map"]["additionalProperties"] == {"type": "string"}
    assert shut["properties"]["list"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in schema
