"""What follows from a result: an event, an error, or nothing."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloudevents.http import from_http

from driftline.components.errors import DataError, StorageError, UsageError, reason_first
from driftline.components.mmd.result import DriftResult, SkippedResult
from driftline.components.notification.component import fail_on_drift, notify
from driftline.components.notification.sending import TOKEN, NotSentError
from driftline.components.notification.step import URL_VARIABLE, DriftFound, event_of
from driftline.components.notification.step import fail_on_drift as fail_step
from driftline.components.notification.step import notify as notify_step
from driftline.components.storage.objects.store import write_json
from tests.components.mmd.report.samples import CURRENT_TEXTS, REFERENCE_TEXTS, make_data, make_skipped
from tests.components.notification.receiver import answer, dies, receiving
from tests.support.pod import run_pod

NAMES = {
    "run": "9b1fd0c2a7f54e0c8d1f6b1c7d1f2e3a",
    "job": "driftline-drift-7xk2p",
    "as_of": "2026-03-15T00:00:00+00:00",
    "report_uri": "gs://lake/drift/2026-03-14/report.html",
    "created": "2026-03-15T06:00:07+00:00",
}
ASKED = "gs://reviews/embeddings/date=yesterday"
SEEN = 75


def found(drift: bool = True, **changes: Any) -> DriftResult:
    result = make_data(drift).result
    current = dataclasses.replace(result.current, asked=ASKED)
    return dataclasses.replace(result, current=current, **{**NAMES, **changes})


def written(folder: Path, result: DriftResult | SkippedResult | Any) -> str:
    """Write a run's result, and return where its report would be."""
    plain = result.to_json() if isinstance(result, DriftResult | SkippedResult) else result
    (folder / "result.json").write_text(json.dumps(plain), encoding="utf-8")
    return str(folder / "report.html")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN, URL_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, logger="driftline")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == "driftline"]


def test_drift_is_told(tmp_path: Path, said: Callable[[], list[dict[str, Any]]]) -> None:
    result = found()
    with receiving() as receiver:
        for _ in range(2):  # as a task that is started again does
            notify_step(report_uri=written(tmp_path, result), notify_url=f" {receiver.url}/hook/s3cr3t ")
        first, second = receiver.seen
    assert (first.body, first.target) == (second.body, "/hook/s3cr3t")
    event = from_http(first.headers, first.body)
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": result.run,
        "source": "/driftline/drift-runs",
        "type": "driftline.drift.detected",
        "subject": ASKED,
        "time": "2026-03-15T06:00:07.000Z",
        "datacontenttype": "application/json",
    }
    assert event.get_data() == {
        "verdict": "drift found",
        "p_value": result.p_value,
        "level": 0.05,
        "method": "exact",
        "mmd2": 3.21e-3,
        "mmd2_interval": [2.81e-3, 3.67e-3],
        "auc": 0.613,
        "model": "all-MiniLM-L6-v2",
        "revision": "c9745ed1",
        "reference": {
            "uri": "gs://reviews/embeddings/2026-02",
            "asked": "gs://reviews/embeddings/2026-02",
            "rows": 48210,
            "sampled": 1000,
        },
        "current": {"uri": "gs://reviews/embeddings/2026-03-14", "asked": ASKED, "rows": 6127, "sampled": 1000},
        "report_uri": NAMES["report_uri"],
        "run": NAMES["run"],
        "job": NAMES["job"],
        "as_of": NAMES["as_of"],
    }
    assert said()[1] == {
        "driftline": "progress",
        "step": "notify",
        "task": 0,
        "tasks": 1,
        "sent_to": receiver.url,
        "status": 202,
        "id": result.run,
        "report": NAMES["report_uri"],
    }
    assert "s3cr3t" not in str(said())


def test_the_readme_shows_an_event_as_it_is() -> None:
    readme = (Path(__file__).parents[3] / "components" / "notification" / "README.md").read_text(encoding="utf-8")
    shown = json.loads(readme.partition("```json\n")[2].partition("```")[0])
    made = event_of(found())

    def shape(value: Any) -> Any:
        return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value)

    assert shape(shown) == shape(made)
    assert [*shown["data"]] == [*made["data"]]


def test_texts_are_never_sent(tmp_path: Path) -> None:
    with receiving() as receiver:
        notify_step(report_uri=written(tmp_path, found()), notify_url=receiver.url)
        body = receiver.seen[0].body.decode()
    for text in (*CURRENT_TEXTS, *REFERENCE_TEXTS):
        assert text[:20] not in body
    assert not [moved.id for moved in found().moved if moved.id in body]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (found(False), "no drift found: p = "),
        (make_skipped(), "the run was skipped: current gs://reviews/embeddings/date=2026-03-14: the window is empty"),
    ],
)
def test_nothing_is_told_where_there_is_no_drift(
    tmp_path: Path, said: Callable[[], list[dict[str, Any]]], result: Any, why: str
) -> None:
    with receiving() as receiver:
        notify_step(report_uri=written(tmp_path, result), notify_url=receiver.url)
        fail_step(report_uri=written(tmp_path, result))
        assert receiver.seen == []
    told = [line for line in said() if line["driftline"] == "progress"]
    assert [line["step"] for line in told] == ["notify", "fail-on-drift"]
    assert all(line["why"].startswith(why) for line in told)


@pytest.mark.parametrize("url", ["", " \n"])
def test_nobody_to_tell(tmp_path: Path, said: Callable[[], list[dict[str, Any]]], url: str) -> None:
    notify_step(report_uri=written(tmp_path, found()), notify_url=url)
    start, told, done = said()
    assert (told["sent_to"], told["why"], told["report"]) == ("nobody", "no notify_url is given", NAMES["report_uri"])
    assert (start["driftline"], done["driftline"]) == ("start", "done")


def test_the_url_and_the_token_may_be_a_secrets(
    tmp_path: Path, said: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "t0ken\n")
    with receiving() as receiver, receiving() as parameter:
        monkeypatch.setenv(URL_VARIABLE, f"{receiver.url}/s3cr3t\n")
        notify_step(report_uri=written(tmp_path, found()), notify_url="")
        assert [seen.headers["Authorization"] for seen in receiver.seen] == ["Bearer t0ken"]
        notify_step(report_uri=written(tmp_path, found()), notify_url=parameter.url)
        assert (len(receiver.seen), len(parameter.seen)) == (1, 1)
        receiver.behaviours = [answer(403, b"no /s3cr3t for t0ken")]
        with pytest.raises(
            UsageError, match=r"\ADRIFTLINE_NOTIFY_URL: the receiver answers 403 Forbidden: no … for …;"
        ):
            notify_step(report_uri=written(tmp_path, found()), notify_url="")
    monkeypatch.setenv(URL_VARIABLE, "hooks.example.org/s3cr3t")
    with pytest.raises(UsageError, match=r"\ADRIFTLINE_NOTIFY_URL: expected http:// or https://"):
        notify_step(report_uri=written(tmp_path, found()), notify_url="")
    assert "s3cr3t" not in str(said())
    assert "t0ken" not in str(said())


def test_a_wrong_url_is_refused_with_or_without_drift(tmp_path: Path) -> None:
    for drift in (True, False):
        with pytest.raises(UsageError, match=r"\Anotify_url: expected http:// or https://"):
            notify_step(report_uri=written(tmp_path, found(drift)), notify_url="hooks.example.org/s3cr3t")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "'status' is not there"),
        ([1], "list indices must be integers"),
        ({**found().to_json(), "version": 99}, "expected a driftline.drift-result of version 3"),
        ({key: value for key, value in found().to_json().items() if key != "p_value"}, ""),
    ],
)
def test_a_result_that_is_none(tmp_path: Path, content: Any, reason: str) -> None:
    for run in (lambda uri: notify_step(report_uri=uri, notify_url=""), lambda uri: fail_step(report_uri=uri)):
        with pytest.raises(DataError, match="expected a drift result") as caught:
            run(written(tmp_path, content))
        assert reason in str(caught.value)


@pytest.mark.parametrize("uri", ["", " ", "gs://lake/drift/", "/"])
def test_a_place_that_is_no_reports(uri: str) -> None:
    with pytest.raises(UsageError, match=r"\Areport_uri: expected the place of a run's report"):
        fail_step(report_uri=uri)


def test_a_run_whose_result_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"result\.json: cannot read: there is no such file"):
        notify_step(report_uri=str(tmp_path / "report.html"), notify_url="")


def test_in_the_bucket_and_the_folder_at_hand(gcs_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(f"{gcs_bucket}/july/result.json", found().to_json())
    with pytest.raises(DriftFound):
        fail_step(report_uri=f"{gcs_bucket}/july/report.html")
    written(tmp_path, found())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DriftFound):
        fail_step(report_uri="report.html")


def test_an_event_of_a_result_without_names_and_with_odd_numbers() -> None:
    first = found(run="", created="2026-03-15T06:00:07", mmd2_interval=None, mmd2=float("nan"))
    event = event_of(dataclasses.replace(first, current=dataclasses.replace(first.current, asked="")))
    assert event["id"] == f"2026-03-15T06:00:07 {first.current.digest}"
    assert event["time"] == "2026-03-15T06:00:07.000Z"
    assert event["subject"] == first.current.uri
    assert (event["data"]["mmd2"], event["data"]["mmd2_interval"]) == (None, None)


@pytest.mark.parametrize(("p_value", "shown"), [(1 / 501, "0.0020"), (0.05, "0.050"), (0.012345, "0.012")])
def test_drift_fails_the_run_with_one_line(tmp_path: Path, p_value: float, shown: str) -> None:
    with pytest.raises(DriftFound) as caught:
        fail_step(report_uri=written(tmp_path, found(p_value=p_value)))
    message = f"drift found: p = {shown} at level 0.05; report {NAMES['report_uri']}"
    assert str(caught.value) == reason_first(message) == message
    assert len(message.partition(";")[0]) < SEEN


@pytest.mark.parametrize("error", [DriftFound("drift found: p = 0.01 at level 0.05"), NotSentError("notify_url: no")])
def test_errors_cross_processes_as_they_are(error: Exception) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other)) == (type(error), str(error))


# As pods ----------------------------------------------------------------------------------------------------------


def test_a_pod_that_finds_drift_ends_with_the_verdict(tmp_path: Path) -> None:
    pod = run_pod(fail_on_drift, tmp_path, report_uri=written(tmp_path, found()))
    assert pod.status != 0
    assert pod.log[-1] == f"drift found: p = 0.0020 at level 0.05; report {NAMES['report_uri']}"
    assert pod.log[-2].startswith('{"error": "drift found: p = 0.0020 at level 0.05; report ')
    assert (pod.records[-1]["kind"], pod.records[-1]["step"]) == ("DriftFound", "fail-on-drift")


def test_a_pod_that_finds_none_ends_well(tmp_path: Path) -> None:
    pod = run_pod(fail_on_drift, tmp_path, report_uri=written(tmp_path, make_skipped()))
    assert pod.status == 0
    assert [record["driftline"] for record in pod.records] == ["start", "progress", "done"]


def test_a_pod_tells_what_a_secret_names_and_nothing_of_the_secret(tmp_path: Path) -> None:
    uri = written(tmp_path, found())
    with receiving(
        dies(b"HTTP/1.1 503 no\r\nbroken headers\r\n\r\n"), answer(202), answer(403, b"no /s3cr3t")
    ) as receiver:
        environment = {URL_VARIABLE: f"{receiver.url}/s3cr3t?k=s3cr3t", TOKEN: "t0ken"}
        pod = run_pod(notify, tmp_path, report_uri=uri, environment=environment)
        assert pod.status == 0
        assert [record["driftline"] for record in pod.records] == ["start", "progress", "progress", "done"]
        assert pod.records[-2]["sent_to"] == receiver.url
        refused = run_pod(notify, tmp_path, report_uri=uri, environment=environment, notify_url="")
        assert refused.status != 0
        told = "DRIFTLINE_NOTIFY_URL: the receiver answers 403 Forbidden: no …"
        assert refused.log[-1].startswith(told)
        assert len(told) <= SEEN
    for line in pod.log + refused.log:
        assert "s3cr3t" not in line
        assert "t0ken" not in line
