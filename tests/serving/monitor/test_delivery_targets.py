"""Where deliveries go: a real HTTP server in Kubeflow's place, a real broker in Kafka's."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp
import pytest

from driftline.components.errors import DriftlineError, UsageError
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.alerts import alert, alert_id, binary_event, run_of
from driftline.serving.monitor.delivery_targets import AlertsTopic, KubeflowRuns
from driftline.serving.monitor.outbox import Delivery
from driftline.serving.monitor.settings import RunSettings
from tests.serving.monitor.kubeflow import kubeflow_with_drift
from tests.support.brokers import create_topics, fresh, read_topic, settings_of
from tests.support.kubeflow_double import KubeflowDouble, serving_kubeflow

RUN = Delivery(
    "run", "a1", {"name": "drift on embeddings a1", "parameters": {"reference": "gs://b/r", "window_max_rows": 5000}}
)


@pytest.fixture
def kubeflow() -> KubeflowDouble:
    return kubeflow_with_drift()


@pytest.fixture
def url(kubeflow: KubeflowDouble) -> Generator[str]:
    with serving_kubeflow(kubeflow) as address:
        yield address


def test_a_run_is_started_as_kubeflows_own_client_does(kubeflow: KubeflowDouble, url: str) -> None:
    KubeflowRuns(RunSettings(url, "drift", (), service_account="runner", experiment="monitoring")).deliver(RUN)
    client = kfp.Client(host=url)
    (version,) = kubeflow.versions.values()
    (experiment,) = kubeflow.experiments
    client.run_pipeline(
        experiment_id=experiment,
        job_name="drift on embeddings a1",
        params={"reference": "gs://b/r", "window_max_rows": 5000},
        pipeline_id=client.get_pipeline_id("drift"),
        version_id=version["pipeline_version_id"],
        service_account="runner",
    )
    ours, theirs = (without_times(run) for run in kubeflow.runs.values())
    assert ours == theirs


def without_times(run: dict[str, Any]) -> dict[str, Any]:
    own = ("run_id", "created_at", "scheduled_at", "state_history")
    return {key: value for key, value in run.items() if key not in own}


def test_a_run_that_is_there_is_not_started_again(kubeflow: KubeflowDouble, url: str) -> None:
    runs = KubeflowRuns(RunSettings(url + "/", "drift", ()))
    runs.deliver(RUN)
    runs.deliver(RUN)
    runs.deliver(replace(RUN, content={**RUN.content, "name": "drift on embeddings a2"}))
    names = [run["display_name"] for run in kubeflow.runs.values()]
    assert names == ["drift on embeddings a1", "drift on embeddings a2"]
    default = {one["experiment_id"] for one in kubeflow.experiments.values() if one["display_name"] == "Default"}
    assert {run["experiment_id"] for run in kubeflow.runs.values()} == default


def test_it_is_of_the_latest_version(kubeflow: KubeflowDouble, url: str) -> None:
    (first,) = kubeflow.versions.values()
    spec = [first["pipeline_spec"]]
    latest = kubeflow._create_version(first["pipeline_id"], "v2", "v2", {}, spec)
    KubeflowRuns(RunSettings(url, "drift", ())).deliver(RUN)
    (run,) = kubeflow.runs.values()
    assert run["pipeline_version_reference"]["pipeline_version_id"] == latest["pipeline_version_id"]


def test_the_namespace_and_the_token_go_along(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n", encoding="ascii")
    kubeflow = kubeflow_with_drift("team")
    kubeflow.token = "first"
    with serving_kubeflow(kubeflow) as url:
        runs = KubeflowRuns(
            RunSettings(url, "drift", (), namespace="team", token_file=str(token), experiment="monitoring")
        )
        runs.deliver(RUN)
        kubeflow.token = "second"
        token.write_text("second", encoding="ascii")  # such tokens are replaced every hour or so
        runs.deliver(RUN)
        asked = [parse_qs(urlsplit(target).query) for method, target in kubeflow.asked if method == "GET"]
        named = [query.get("namespace") for query in asked if "filter" in query or not query]
        assert named == [["team"]] * len(named)
        assert len(kubeflow.runs) == 1
        token.unlink()
        with pytest.raises(UsageError, match=r"kfp-token-file .*token: No such file or directory; name a file"):
            runs.deliver(RUN)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (401, {"message": "Unauthenticated"}),
            r"/runs: answers 401 Unauthorized: Unauthenticated; no login was given",
        ),
        ((500, {}), r"/apis/v2beta1/runs: answers 500 Internal Server Error: {}$"),
        ((499, {"message": "?"}), r"answers 499: \?$"),
        ((200, b"<html>"), r"answers 200 with a web page; no login was given: give one .*, or check the host$"),
        ((200, []), r"expected a JSON object, got something else; check the host$"),
    ],
)
def test_a_refusal_is_one_line(kubeflow: KubeflowDouble, url: str, answer: tuple[int, Any], message: str) -> None:
    kubeflow.before = lambda method, target: answer
    with pytest.raises(DriftlineError, match=message) as caught:
        KubeflowRuns(RunSettings(url, "drift", ())).deliver(RUN)
    assert "\n" not in str(caught.value)
    assert len(kubeflow.asked) == 1, "tried once: the stream waits meanwhile"
    assert kubeflow.runs == {}


def test_what_is_not_there(kubeflow: KubeflowDouble, url: str) -> None:
    with pytest.raises(UnavailableError, match=r"expected one pipeline 'none', found 0; upload it, or check"):
        KubeflowRuns(RunSettings(url, "none", ())).deliver(RUN)
    with pytest.raises(UnavailableError, match=r"expected one experiment 'none', found 0"):
        KubeflowRuns(RunSettings(url, "drift", (), experiment="none")).deliver(RUN)
    kubeflow.versions.clear()
    with pytest.raises(UnavailableError, match=r"expected one version of pipeline 'drift', found 0"):
        KubeflowRuns(RunSettings(url, "drift", ())).deliver(RUN)
    assert kubeflow.runs == {}


def test_nobody_there() -> None:
    with pytest.raises(DriftlineError, match=r"gives no answer \(Connection refused\); check the host, the network"):
        KubeflowRuns(RunSettings("http://127.0.0.1:9", "drift", ())).deliver(RUN)


def alert_of(identity: str = "a1") -> Delivery:
    window = {"earliest": "2026-11-24T23:59:58.000Z", "latest": "2026-11-25T00:00:10.000Z"}
    return alert("a topic/1", identity, 1_764_028_810_123, {"topic": "a topic/1", "score": 0.25, "window": window})


def test_parameters_are_filled_in() -> None:
    given = (
        ("current", "gs://b/archive/date={first_date}..{last_date}"),
        ("output_folder", "gs://b/{alert}"),
        ("test_level", 0.01),
    )
    run = run_of(RunSettings("http://kfp", "drift", given), alert_of())
    assert run == Delivery(
        "run",
        "a1",
        {
            "name": "drift on a topic/1 a1",
            "parameters": {
                "current": "gs://b/archive/date=2026-11-24..2026-11-25",
                "output_folder": "gs://b/a1",
                "test_level": 0.01,
            },
        },
    )


def test_an_alert_is_a_cloudevent_in_binary_mode() -> None:
    headers, content = binary_event(alert_of().content)
    assert dict(headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"a1",
        "ce_source": b"/driftline/monitors/a%20topic%2F1",
        "ce_type": b"driftline.drift.detected",
        "ce_subject": b"a topic/1",
        "ce_time": b"2025-11-25T00:00:10.123Z",
        "content-type": b"application/json",
    }
    assert json.loads(content) == alert_of().content["data"]


def test_an_id_names_a_place_in_the_stream() -> None:
    first = alert_id("t", "key", {0: 5, 1: 7})
    assert first == alert_id("t", "key", {1: 7, 0: 5})
    others = [alert_id("u", "key", {0: 5, 1: 7}), alert_id("t", "k", {0: 5, 1: 7}), alert_id("t", "key", {0: 5, 1: 8})]
    assert len({first, *others}) == 4


def test_alerts_reach_their_topic(bootstrap: str) -> None:
    topic = fresh("alerts")
    create_topics(bootstrap, {topic: 1})
    alerts = AlertsTopic(settings_of(bootstrap), topic)
    try:
        alerts.deliver(alert_of("a1"))
        alerts.deliver(alert_of("a2"))
    finally:
        alerts.close()
    first, second = read_topic(bootstrap, topic)
    assert (first.headers, first.value) == binary_event(alert_of("a1").content)
    assert dict(second.headers)["ce_id"] == b"a2"
    assert first.key == second.key == b"a topic/1"
    with pytest.raises(UsageError, match=r"alerts-topic none: is not at .*; create it, or check the name"):
        AlertsTopic(settings_of(bootstrap), "none")
