"""Sample reports, and a Chromium spoken to over a pipe: no port, no driver, no further dependency."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.result import DriftResult, MovedText, StepTiming
from driftline.components.sampling.identity import SampleIdentity

REFERENCE_TEXTS = (
    "A slow, tender family drama, and the last half hour is worth the whole ticket.",
    "The director lets the camera rest on faces, and trusts the audience to wait.",
    "Funny for an hour, then it loses its nerve and explains every joke twice.",
    "Handsome, well acted and about twenty minutes too long; I would still see it again.",
    "What begins as a heist ends as a study of two brothers who cannot say sorry.",
)
CURRENT_TEXTS = (
    "The parcel came two days late and the lid was cracked, but support sent a new one at once.",
    "Battery lasts a day and a half with the screen on; the charger gets too warm to touch.",
    "Five stars for the fit, two for the colour: what arrived is green rather than blue.",
    "Stopped pairing with my phone after the update, and the manual only repeats the box.",
    "Good value if you are patient with the app, which forgets the password every week.",
)


def make_data(drift: bool = True, permutations: int = 500, points: int = 1000, runs: int = 12) -> ReportData:
    """Return what a real run with these sizes would hand to the report; at most 28 runs."""
    rng = np.random.default_rng(20260314)
    permuted = 2.4e-4 * (rng.chisquare(9, permutations) / 9 - 1)
    statistic = 3.21e-3 if drift else 3.1e-5
    threshold = float(np.quantile(permuted, 0.95))
    p_value = float(1 + (permuted >= statistic).sum()) / (permutations + 1)
    reference = rng.normal(size=(points, 2)) * [1.3, 0.9]
    shift = np.where(rng.random((points, 1)) < 0.35, [[1.9, 1.1]], [[0.1, 0.0]]) if drift else 0.0
    current = rng.normal(size=(points, 2)) * [1.2, 0.95] + shift
    ratios = tuple((0.16 * 0.9 ** np.arange(64) / 2).tolist())
    past = [
        HistoryPoint(
            created=f"2026-03-{3 + k:02d}T06:00:00+00:00",
            statistic=float(rng.normal(0, 6e-5)) if k < runs - 3 or not drift else 1.155e-3 * (k - runs + 3.8),
            threshold=threshold * float(rng.normal(1, 0.03)),
            p_value=0.4,
            drift=drift and k >= runs - 3,
        )
        for k in range(min(runs, 28))
    ]
    past[-1] = HistoryPoint(past[-1].created, statistic, threshold, p_value, drift)
    moved = tuple(
        MovedText(
            id=f"{'review' if text in CURRENT_TEXTS else 'film'}-{4021 + 97 * k}",
            sample="current" if text in CURRENT_TEXTS else "reference",
            witness=witness,
            text=text,
        )
        for k, (text, witness) in enumerate(
            [(CURRENT_TEXTS[k % 5], -0.093 + 0.0041 * k) for k in range(10)]
            + [(REFERENCE_TEXTS[k % 5], 0.021 + 0.0037 * k) for k in range(10)]
        )
    )
    digest = "sha256:9f2c41d07be85a36c0174fd2e96b83ac15d0f7482be9631ca04d58f7126be3a9"
    result = DriftResult(
        created=past[-1].created,
        drift=drift,
        statistic=statistic,
        p_value=p_value,
        threshold=threshold,
        level=0.05,
        permutations=permutations,
        seed=17,
        kernel="rbf",
        gamma=0.5713,
        reference=SampleIdentity(
            "gs://reviews/embeddings/2026-02", digest, "all-MiniLM-L6-v2", "c9745ed1", 384, 48210, 1000
        ),
        current=SampleIdentity(
            "gs://reviews/embeddings/2026-03-14",
            "sha256:" + digest[:6:-1],
            "all-MiniLM-L6-v2",
            "c9745ed1",
            384,
            6127,
            1000,
        ),
        components=64,
        explained_variance_ratio=ratios,
        moved=moved,
        steps=(
            StepTiming("sample", 1, 3.42),
            StepTiming("project", 4, 11.8),
            StepTiming("kernel", 8, 96.3),
            StepTiming("test", 1, 0.214),
        ),
    )
    return ReportData(
        result,
        permuted,
        reference.astype(np.float32),
        current.astype(np.float32),
        (0.412, 0.187),
        tuple(past),
    )


def change(data: ReportData, **values: object) -> ReportData:
    """Return the data with fields of the report, or of its result, replaced."""
    mine = {field.name for field in dataclasses.fields(ReportData)}
    outer = {key: value for key, value in values.items() if key in mine}
    inner = {key: value for key, value in values.items() if key not in mine}
    return dataclasses.replace(data, result=dataclasses.replace(data.result, **inner), **outer)


@pytest.fixture(scope="session")
def sample() -> Callable[..., ReportData]:
    return make_data


@pytest.fixture(scope="session")
def changed() -> Callable[..., ReportData]:
    return change


# Runs before the browser: gives the pipe's two ends the numbers 3 and 4, where Chromium listens and answers.
# They are moved out of the way first, since they may be 3 and 4 the other way round.
_LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A headless Chromium that shows one page, and everything it said since the page was opened.

    Speaks the DevTools protocol over a pipe. The report runs in a sandboxed frame, which Chromium may keep in
    a process of its own, so every target is attached to before it runs.
    """

    def __init__(self, executable: str, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
            "--disable-background-networking --disable-component-update --disable-dev-shm-usage "
            "--hide-scrollbars --remote-debugging-pipe"
        )
        command = [executable, *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0
        self.events: list[dict] = []
        self.sessions: dict[str, str] = {}  # session to the kind of its target
        self._answers: dict[int, dict] = {}
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.page = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

    def call(self, method: str, session: str | None = None, timeout_s: float = 30.0, **parameters) -> dict:
        """Call a DevTools method and return its result; events that arrive meanwhile are kept."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout_s
        while True:
            if number in self._answers:
                answer = self._answers.pop(number)
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(self._next(until))

    def _listen(self, session: str, kind: str) -> None:
        self.sessions[session] = kind
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        for method, parameters in (
            ("Runtime.enable", {}),
            ("Log.enable", {}),
            ("Network.enable", {}),
            ("Target.setAutoAttach", attach),
            ("Runtime.runIfWaitingForDebugger", {}),
        ):
            self.call(method, session, **parameters)

    def _note(self, message: dict) -> None:
        if "id" in message:
            # Not always the call that waits: attaching to a target calls in its turn.
            self._answers[message["id"]] = message
            return
        self.events.append(message)
        if message.get("method") == "Target.attachedToTarget":
            given = message["params"]
            self._listen(given["sessionId"], given["targetInfo"]["type"])

    def _next(self, until: float) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("Chromium does not answer")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def emulate(self, width: int, dark: bool = False, height: int = 900, media: str = "") -> None:
        """Set the window's size in CSS px, the preferred colours and the medium."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", self.page, **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        for session, kind in self.sessions.items():
            if kind in ("page", "iframe"):
                self.call("Emulation.setEmulatedMedia", session, media=media, features=[scheme])

    def open(self, path: Path) -> None:
        """Open a file and wait until it has loaded, frames included."""
        self.events.clear()
        self.sessions = {self.page: "page"}
        self.call("Page.enable", self.page)
        self.call("Page.navigate", self.page, url=path.as_uri())
        until = time.monotonic() + 30
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._note(self._next(until))

    def frame(self) -> tuple[str, int | None]:
        """Return the session and the context of the report's frame, or of the page where there is none."""
        for session, kind in self.sessions.items():
            if kind == "iframe":
                return session, None
        contexts = [
            event["params"]["context"]
            for event in self.events
            if event.get("method") == "Runtime.executionContextCreated"
        ]
        tree = self.call("Page.getFrameTree", self.page)["frameTree"]
        inner = [child["frame"]["id"] for child in tree.get("childFrames", [])]
        chosen = [c["id"] for c in contexts if inner and c.get("auxData", {}).get("frameId") == inner[0]]
        return self.page, chosen[-1] if chosen else None

    def evaluate(self, expression: str) -> object:
        """Return the value of a JavaScript expression inside the report."""
        session, context = self.frame()
        where = {"contextId": context} if context else {}
        answer = self.call("Runtime.evaluate", session, expression=expression, returnByValue=True, **where)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the console and the log have said: errors, warnings, violations."""
        self.evaluate("0")  # what was said before is then on this side of the pipe
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event.get("method") in methods]

    def requests(self) -> list[str]:
        """Return the addresses that the page and its frames asked for.

        As the network log and the frame's own list of resources say: a frame may ask before it is attached to.
        """
        listed = self.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [*listed, *(event["params"]["request"]["url"] for event in sent)]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write what is shown as a PNG."""
        data = self.call("Page.captureScreenshot", self.page, captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser and every process it started."""
        with contextlib.suppress(OSError, TimeoutError, subprocess.TimeoutExpired):
            self.call("Browser.close", timeout_s=10)
            self._process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on the PATH: install Debian's chromium to run the browser tests")
    profile = tmp_path_factory.mktemp("chromium")
    opened = Browser(executable, profile)
    yield opened
    opened.close()
    shutil.rmtree(profile, ignore_errors=True)
