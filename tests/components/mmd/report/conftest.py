"""Sample reports, and a Chromium spoken to over a pipe: no port, no driver, no further dependency."""

from __future__ import annotations

import base64
import contextlib
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

import pytest

from driftline.components.mmd.report.data import ReportData
from tests.components.mmd.report.samples import change, make_data


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
        self.shown = ""  # a document, as long as the page that shows it in a frame is open and of the window's size
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
        self.shown = ""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", self.page, **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        for session, kind in self.sessions.items():
            if kind in ("page", "iframe"):
                self.call("Emulation.setEmulatedMedia", session, media=media, features=[scheme])

    def open(self, path: Path) -> None:
        """Open a file and wait until it has loaded, frames included."""
        self.events.clear()
        self.shown = ""
        self.sessions = {self.page: "page"}
        self.call("Page.enable", self.page)
        self.call("Page.navigate", self.page, url=path.as_uri())
        until = time.monotonic() + 30
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._note(self._next(until))

    def resize_frame(self, width: int) -> None:
        """Give the report's frame another width, in CSS px, and wait until the report has it."""
        script = f"document.querySelector('iframe').style.width = '{width}px'"
        self.call("Runtime.evaluate", self.page, expression=script)
        until = time.monotonic() + 30
        while self.evaluate("innerWidth") != width:
            if time.monotonic() > until:
                raise TimeoutError("the frame keeps its width")

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
