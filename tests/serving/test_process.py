"""The frame of a long-running process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from driftline.serving.process import Condition, stopping_on_signals
from driftline.serving.telemetry.health import Health


def test_a_signal_that_comes_while_python_imports_ends_the_process_in_order(tmp_path: Path) -> None:
    """The first process of a container is sent none that it has not asked for; here the default would be -15."""
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    command = [sys.executable, "-m", "driftline.serving", "stream"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (143, b"")


def test_a_signal_asks_to_end_and_what_was_set_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals() as stop:
        assert not stop.is_set
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set
        assert stop.wait(0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_is_alive_while_it_starts_and_then_as_its_work_is() -> None:
    condition = Condition()
    condition.doing = "loading the model"
    assert (condition.health.live(), condition.health.ready()) == (None, "loading the model")
    condition.work = Health(lambda: "stuck for 301 s", lambda: None)
    assert (condition.health.live(), condition.health.ready()) == ("stuck for 301 s", None)
