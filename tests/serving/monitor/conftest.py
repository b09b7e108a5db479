"""A reference and its baseline, calibrated once for all tests of the monitor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from driftline.components.storage.objects import store
from driftline.serving.monitor.baseline import Baseline, stored_baseline
from driftline.serving.monitor.metrics import MonitorMetrics
from driftline.serving.monitor.monitor import Monitor
from driftline.serving.monitor.settings import MonitorSettings
from driftline.serving.monitor.state import MonitorState, StateFile
from tests.serving.monitor import streams


@dataclass
class Bench:
    """A baseline, and monitors that begin or go on with a state of one test's own."""

    settings: MonitorSettings
    baseline: Baseline

    def monitor(self, *, targets: dict[str, Any] | None = None, fresh: bool = False, **changes: Any) -> Monitor:
        options = {"clock": changes.pop("clock")} if "clock" in changes else {}
        settings = replace(self.settings, **changes)
        file = StateFile(settings.state)
        state = file.load(self.baseline)
        if state is None or fresh:
            state = MonitorState.new(self.baseline, {})
        given: Any = {"alert": streams.Inbox()} if targets is None else targets
        metrics = MonitorMetrics(CollectorRegistry())
        return Monitor(settings, self.baseline, state, file, given, metrics, **options)


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Baseline, str]:
    """A reference's URI, its baseline and the folder with that as stored."""
    folder = tmp_path_factory.mktemp("monitor")
    dataset = streams.reference(folder / "reference")
    settings = streams.monitor_settings(dataset, str(folder / "state"))
    return dataset, stored_baseline(settings.reference, settings.state), settings.state


@pytest.fixture
def bench(calibrated: tuple[str, Baseline, str], tmp_path: Path) -> Bench:
    """The baseline with a place for states that holds it already, so that nothing is calibrated again."""
    dataset, baseline, made = calibrated
    state = str(tmp_path / "monitor-state")
    for info in store.list_files(made):
        store.write_bytes(store.join(state, Path(info.uri).name), store.read_bytes(info.uri))
    return Bench(streams.monitor_settings(dataset, state), baseline)
