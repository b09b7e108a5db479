"""What must hold of the way from a topic to the server, or records are lost, though no schema minds."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from tests.manifests.objects import Object, environment, name_of, of_kind, pod_of, title

CHOICES = {
    ("ordering",): {"ordered", "unordered"},
    ("initialOffset",): {"earliest", "latest"},
    ("delivery", "backoffPolicy"): {"exponential", "linear"},
}
DURATION = re.compile(r"PT(\d+H)?(\d+M)?(\d+(\.\d+)?S)?")


def events(objects: Sequence[Object]) -> Iterator[str]:
    """What would lose, double or hold up records between a KafkaSource and the server."""
    brokers = environment(pod_of(objects, "stream"), objects)["DRIFTLINE_STREAM_BOOTSTRAP_SERVERS"].split(",")
    sinks = {(one["apiVersion"], one["kind"], name_of(one)): one for one in objects}
    streamed = environment(pod_of(objects, "stream"), objects)["DRIFTLINE_STREAM_INPUT_TOPIC"]
    for source in of_kind(objects, "KafkaSource"):
        for line in _source(source, sinks, objects):
            yield f"{title(source)}: {line}"
        if streamed in source["spec"]["topics"]:
            yield f"{title(source)}: the stream worker reads {streamed} too, so that its texts are embedded twice"
    for one in (*of_kind(objects, "KafkaSource"), *of_kind(objects, "KafkaSink")):
        if one["spec"]["bootstrapServers"] != brokers:
            yield f"{title(one)}: brokers {one['spec']['bootstrapServers']}, the workers' are {brokers}"
    yield from _role(objects)


def _source(source: Object, sinks: dict[tuple[str, str, str], Object], objects: Sequence[Object]) -> Iterator[str]:
    spec = source["spec"]
    sink = _referred(spec["sink"], sinks)
    if sink is None:
        yield "its sink is not there"
    path = urlsplit(spec["sink"].get("uri", "")).path
    served = environment(pod_of(objects, "serve"), objects)["DRIFTLINE_SERVE_MODEL"].partition("=")[0]
    if path in ("", "/"):
        yield "its sink has no path, so that records go to / and are lost"
    elif f"/{served}" not in path.partition(":")[0]:
        yield f"its sink's path {path} does not name the model {served}"
    delivery = spec.get("delivery", {})
    if not 1 <= delivery.get("retry", 0) <= 20:
        yield f"retry is {delivery.get('retry', 0)}: an outage makes dead letters, or holds up a partition for days"
    letters = _referred(delivery.get("deadLetterSink", {}), sinks)
    if letters is None:
        yield "no dead-letter sink, so that what cannot be processed is lost"
    elif letters["spec"]["topic"] not in [f"{topic}.dead-letters" for topic in spec["topics"]]:
        yield f"its dead letters go to {letters['spec']['topic']}"
    if "retryAfterMax" in delivery:
        yield "retryAfterMax is refused where the feature delivery-retryafter is off, as it is by default"
    for place in ("timeout", "backoffDelay"):
        if not DURATION.fullmatch(delivery.get(place, "")) or delivery[place] == "PT":
            yield f"delivery.{place} is {delivery.get(place)}, expected a duration such as PT0.5S"
    for keys, choices in CHOICES.items():
        value = functools.reduce(lambda held, key: held.get(key, {}), keys, spec)
        if str(value) not in choices:
            yield f"{'.'.join(keys)} is {value}, expected one of {sorted(choices)}"


def _referred(destination: Object, sinks: dict[tuple[str, str, str], Object]) -> Object | None:
    ref = destination.get("ref", {})
    return sinks.get((ref.get("apiVersion"), ref.get("kind"), ref.get("name")))


def _role(objects: Sequence[Object]) -> Iterator[str]:
    label = "duck.knative.dev/addressable"
    roles = [one for one in of_kind(objects, "ClusterRole") if one["metadata"]["labels"].get(label) == "true"]
    granted = {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = {("serving.kserve.io", "inferenceservices", verb) for verb in ("get", "list", "watch")}
    if not needed <= granted:
        yield "no ClusterRole lets Knative read an InferenceService's address"
    if not {verb for _, _, verb in granted} <= {"get", "list", "watch"}:
        yield "the ClusterRole grants more than reading"
