from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from driftline.components.errors import UsageError
from driftline.serving.telemetry.health import Health, serving_health


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_are_answered_as_things_stand_when_they_come() -> None:
    troubles: dict[str, str | None] = {"live": None, "ready": "loading the model"}
    health = Health(lambda: troubles["live"], lambda: troubles["ready"])
    registry = CollectorRegistry()
    Counter("driftline_test", "What is counted.", registry=registry).inc(3)
    with serving_health(0, health, registry, host="127.0.0.1") as port:
        assert get(port, "/livez") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "loading the model\n")
        troubles.update(live="stuck", ready=None)
        assert get(port, "/livez?verbose") == (503, "stuck\n")
        assert get(port, "/readyz") == (200, "ok\n")
        status, body = get(port, "/metrics")
        assert status == 200
        assert "driftline_test_total 3.0" in body
        assert get(port, "/other")[0] == 404
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5)


def test_a_port_that_is_taken_is_named() -> None:
    health = Health(lambda: None, lambda: None)
    with serving_health(0, health, CollectorRegistry(), host="127.0.0.1") as port:
        second = serving_health(port, health, CollectorRegistry(), host="127.0.0.1")
        with pytest.raises(UsageError, match=rf"health-port {port}: .*choose another one"):
            second.__enter__()
