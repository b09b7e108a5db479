"""The command's options: what they become, from the command line and from the environment, and what is refused."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from driftline.components.errors import UsageError
from driftline.components.mmd.online import OnlineSettings
from driftline.serving.__main__ import serving
from driftline.serving.monitor import worker
from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings, RunSettings

REQUIRED = ["--bootstrap-servers", "a:9092", "--topic", "t", "--reference", "gs://b/r", "--state", "gs://b/s"]
RUN = [*REQUIRED, "--on-drift", "submit:drift", "--kfp-url", "http://kfp:8888"]


def settings_of(monkeypatch: pytest.MonkeyPatch, arguments: list[str], **environment: str) -> MonitorSettings:
    """Run the command without the worker, and return what the worker is given."""
    given: list[MonitorSettings] = []
    monkeypatch.setattr(worker, "run", lambda settings, kafka, stop, *, health_port: given.append(settings))
    runner = CliRunner()
    result = runner.invoke(serving, ["monitor", *arguments], env=environment, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return given[0]


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, REQUIRED) == MonitorSettings(
        "t", ReferenceSettings("gs://b/r", online=OnlineSettings(ert=100_000.0)), "gs://b/s"
    )


def test_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    online = ["--ert=5000", "--window=100", "--kind=sliding", "--steps=10", "--features=64", "--kernel=laplace-l2"]
    more = ["--on-alarm=restart", "--seed=3", "--reference-rows=0", "--components=0", "--projection=p.json"]
    told = ["--alerts-topic=a", "--start-at=latest", "--texts=2", "--save-interval-s=1.5", "--cool-down-s=60"]
    kfp = ["--kfp-namespace=n", "--kfp-experiment=e", "--kfp-service-account=sa", "--kfp-token-file=f"]
    parameters = [
        "--run-parameter=window_max_rows=5000",
        "--run-parameter=output_folder=gs://b/{alert}",
        '--run-parameter=x="1"',
    ]
    assert settings_of(monkeypatch, [*RUN, *online, *more, *told, *kfp, *parameters]) == MonitorSettings(
        "t",
        ReferenceSettings(
            "gs://b/r",
            0,
            0,
            "p.json",
            OnlineSettings(5000.0, 100, "sliding", 10, 64, "laplace-l2", "restart", 3),
        ),
        "gs://b/s",
        "a",
        "latest",
        2,
        1.5,
        RunSettings(
            "http://kfp:8888",
            "drift",
            (("reference", "gs://b/r"), ("window_max_rows", 5000), ("output_folder", "gs://b/{alert}"), ("x", "1")),
            "n",
            "e",
            "sa",
            "f",
            60.0,
        ),
    )


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"BOOTSTRAP_SERVERS": "a:9092", "TOPIC": "t", "REFERENCE": "r", "STATE": "s", "ERT": "7000"}
    found = settings_of(monkeypatch, [], **{f"DRIFTLINE_MONITOR_{name}": text for name, text in names.items()})
    assert (found.topic, found.reference.dataset, found.reference.online.ert) == ("t", "r", 7000.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*REQUIRED, "--ert", "900"], "ert: expected a number of records of at least 5 windows, 1000, got 900"),
        ([*REQUIRED, "--kind", "flat"], "Invalid value for '--kind': 'flat' is not one of 'ewma', 'sliding'"),
        ([*REQUIRED, "--on-alarm", "stop"], "Invalid value for '--on-alarm': 'stop' is not one of 'continue', "),
        ([*REQUIRED, "--start-at", "now"], "Invalid value for '--start-at': 'now' is not one of 'earliest', 'latest'"),
        ([*REQUIRED, "--texts", "-1"], "Invalid value for '--texts': -1 is not in the range x>=0"),
        ([*REQUIRED, "--components", "-1"], "components: expected 0 or more, got -1"),
        ([*REQUIRED, "--reference-rows", "-1"], "Invalid value for '--reference-rows': -1 is not in the range x>=0"),
        ([*REQUIRED, "--save-interval-s", "nan"], "save-interval-s: expected 0 or more, got nan"),
        ([*REQUIRED, "--alerts-topic", "t"], "alerts-topic: is 't', the topic that is watched; choose another one"),
        ([*REQUIRED, "--on-drift", "exec:rm"], "on-drift: expected submit: and a pipeline's name, got 'exec:rm'"),
        ([*REQUIRED, "--on-drift", "submit:d"], "kfp-url: expected http:// or https:// and a host, got ''"),
        ([*RUN, "--kfp-url", "file:///etc/passwd"], "kfp-url: expected http:// or https:// and a host, got 'file:"),
        ([*RUN, "--on-drift", "submit:"], "on-drift: expected submit: and a pipeline's name, got none"),
        ([*RUN, "--cool-down-s", "-1"], "Invalid value for '--cool-down-s': -1.0 is not in the range x>=0"),
        ([*RUN, "--run-parameter", "x"], "run-parameter: expected NAME=VALUE, got 'x'"),
        ([*RUN, "--run-parameter", "=x"], "run-parameter: expected NAME=VALUE, got '=x'"),
    ],
)
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    with pytest.raises((UsageError, click.UsageError)) as caught:
        settings_of(monkeypatch, arguments)
    error = caught.value
    told = error.format_message() if isinstance(error, click.UsageError) else str(error)
    assert told.startswith(message)


@pytest.mark.parametrize(("text", "expected"), [("NaN", "NaN"), ("true", True), ("1.5", 1.5), ("a=b", "a=b"), ("", "")])
def test_values_of_parameters(monkeypatch: pytest.MonkeyPatch, text: str, expected: Any) -> None:
    found = settings_of(monkeypatch, [*RUN, "--run-parameter", f"x={text}"]).run
    assert found is not None
    assert dict(found.parameters)["x"] == expected
