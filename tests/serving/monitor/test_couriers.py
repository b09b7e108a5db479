"""Where deliveries go: a real HTTP server in Kubeflow's place, a real broker in Kafka's."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import kfp
import pytest

from driftline.components.errors import UsageError
from driftline.serving.errors import UnavailableError
from driftline.serving.monitor.alerts import Delivery, alert, alert_id, binary_event, run_of
from driftline.serving.monitor.couriers import AlertsTopic, KubeflowRuns
from driftline.serving.monitor.settings import RunSettings
from tests.serving.monitor.kubeflow import Kubeflow, serving_kubeflow
from tests.support.brokers import create_topics, fresh, noida_broker, read_topic, settings_of

RUN = Delivery("run", "a1", {"name": "drift on embeddings a1", "parameters": {"reference": "gs://b/r", "sample": 5000}})


@pytest.fixture
def kubeflow() -> Kubeflow:
    return Kubeflow()


@pytest.fixture
def url(kubeflow: Kubeflow) -> Generator[str]:
    with serving_kubeflow(kubeflow) as address:
        yield address


def test_a_run_is_started_as_kubeflows_own_client_does(kubeflow: Kubeflow, url: str) -> None:
    KubeflowRuns(RunSettings(url, "drift", (), service_account="runner", experiment="monitoring")).deliver(RUN)
    client = kfp.Client(host=url)
    client.run_pipeline(
        experiment_id="e-1",
        job_name="drift on embeddings a1",
        params={"reference": "gs://b/r", "sample": 5000},
        pipeline_id=client.get_pipeline_id("drift"),
        version_id="v-9",
        service_account="runner",
    )
    ours, theirs = kubeflow.runs
    assert ours == theirs


def test_a_run_that_is_there_is_not_started_again(kubeflow: Kubeflow, url: str) -> None:
    runs = KubeflowRuns(RunSettings(url + "/", "drift", ()))
    runs.deliver(RUN)
    runs.deliver(RUN)
    runs.deliver(replace(RUN, content={**RUN.content, "name": "drift on embeddings a2"}))
    assert [run["display_name"] for run in kubeflow.runs] == ["drift on embeddings a1", "drift on embeddings a2"]
    assert "experiment_id" not in kubeflow.runs[0]


def test_the_namespace_and_the_token_go_along(kubeflow: Kubeflow, url: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n", encoding="ascii")
    runs = KubeflowRuns(RunSettings(url, "drift", (), namespace="team", token_file=str(token)))
    runs.deliver(RUN)
    assert kubeflow.authorization == {"Bearer first"}
    token.write_text("second", encoding="ascii")  # such tokens are replaced every hour or so
    runs.deliver(RUN)
    assert kubeflow.authorization == {"Bearer first", "Bearer second"}
    assert {tuple(query["namespace"]) for _, _, query in kubeflow.asked if "filter" in query} == {("team",)}
    token.unlink()
    with pytest.raises(UnavailableError, match=r"kfp-token-file .*token: No such file or directory; name a file"):
        runs.deliver(RUN)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((401, b'{"message":\n "Unauthenticated"}'), r'answers 401 Unauthorized: {"message": "Unauthenticated"}$'),
        ((500, b""), r"/apis/v2beta1/runs: answers 500 Internal Server Error: nothing more$"),
        ((499, b"?"), r"answers 499 : \?$"),
        ((200, b"<html>"), r"gives no answer \(.*\); check the address and the network$"),
        ((200, b"[]"), r"expected a JSON object, got something else; check the address$"),
    ],
)
def test_a_refusal_is_one_line(kubeflow: Kubeflow, url: str, refusal: tuple[int, bytes], message: str) -> None:
    kubeflow.refusal = refusal
    with pytest.raises(UnavailableError, match=message) as caught:
        KubeflowRuns(RunSettings(url, "drift", ())).deliver(RUN)
    assert "\n" not in str(caught.value)
    assert kubeflow.runs == []


def test_what_is_not_there(kubeflow: Kubeflow, url: str) -> None:
    with pytest.raises(UnavailableError, match=r"expected one pipeline 'none', found 0; upload it, or check"):
        KubeflowRuns(RunSettings(url, "none", ())).deliver(RUN)
    with pytest.raises(UnavailableError, match=r"expected one experiment 'none', found 0"):
        KubeflowRuns(RunSettings(url, "drift", (), experiment="none")).deliver(RUN)
    assert kubeflow.runs == []


def test_nobody_there() -> None:
    with pytest.raises(UnavailableError, match=r"gives no answer \(.*refused\); check the address and the network"):
        KubeflowRuns(RunSettings("http://127.0.0.1:9", "drift", ())).deliver(RUN)


def alert_of(identity: str = "a1") -> Delivery:
    window = {"earliest": "2026-11-24T23:59:58.000Z", "latest": "2026-11-25T00:00:10.000Z"}
    return alert("a topic/1", identity, 1_764_028_810_123, {"topic": "a topic/1", "score": 0.25, "window": window})


def test_parameters_are_filled_in() -> None:
    given = (("current", "gs://b/archive/date={first_date}..{last_date}"), ("out", "gs://b/{alert}"), ("level", 0.01))
    run = run_of(RunSettings("http://kfp", "drift", given), alert_of())
    assert run == Delivery(
        "run",
        "a1",
        {
            "name": "drift on a topic/1 a1",
            "parameters": {
                "current": "gs://b/archive/date=2026-11-24..2026-11-25",
                "out": "gs://b/a1",
                "level": 0.01,
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


def test_alerts_reach_their_topic() -> None:
    with noida_broker() as bootstrap:
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
