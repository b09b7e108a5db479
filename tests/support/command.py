"""The installed `driftline` command, run as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftline.pipelines import cli

COMMAND = str(Path(sys.executable).parent / "driftline")
TIMEOUT_S = 120  # a run takes 10 s; one that hangs should not hang the tests
PROGRESS = re.compile(r"[\w ]+: \w+( \d+/\d+)? (done in [\d.]+ s|failed|\d+ of \d+ \w+, .*)")
_DECIDED_BY_THE_TEST = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS")


@dataclass(frozen=True)
class Done:
    """A run that ended: its exit status, what it printed, and what it left in its temporary folder."""

    status: int
    stdout: str
    stderr: str
    left: list[str]


def environment(temporary: Path) -> dict[str, str]:
    """Return the environment of a run with a temporary folder of its own."""
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if name not in _DECIDED_BY_THE_TEST}
    return {**inherited, "TMPDIR": str(temporary), "PYTHONSAFEPATH": "1", "TERM": "xterm-256color"}


def listing(folder: Path) -> list[str]:
    """Return every file and folder below a folder, by relative path."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def driftline(*arguments: str, cwd: Path, temporary: Path) -> Done:
    """Run the command to its end, its output in pipes."""
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(temporary),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr, listing(temporary))


@contextmanager
def started(*arguments: str, cwd: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command; at the end of the block it and its tasks are stopped, if they still run."""
    # The command takes Ctrl-C as in a terminal, also where the tests run in the background, which ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [COMMAND, *arguments],
        cwd=cwd,
        env=environment(temporary),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for pid in processes(str(temporary)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes(*words: str) -> list[int]:
    """Return the live processes whose arguments hold all of the words (Linux)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended
            if all(word in line for word in words):
                found.append(int(folder.name))
    return found


def await_line(temporary: Path, words: str) -> None:
    """Wait until a run that was started has printed a line with these words to its log."""
    deadline = time.monotonic() + TIMEOUT_S
    while not any(words in log.read_text() for log in temporary.glob("driftline-log-*/run.log")):
        assert time.monotonic() < deadline, f"no line with {words}"
        time.sleep(0.02)


def refusal(stderr: str) -> str:
    """Return the one line that says what was wrong, after checking that all others are lines of progress."""
    lines = stderr.splitlines()
    others = [line for line in lines if not PROGRESS.fullmatch(line)]
    assert len(others) == 1, stderr
    assert others == lines[-1:], stderr
    assert others[0].startswith("driftline: "), stderr
    return others[0].removeprefix("driftline: ")


def refused(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    """Run the command in this process and return the one line that it refuses with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    printed = capsys.readouterr()
    assert ended.value.code == status, printed.err
    assert printed.out == ""
    return refusal(printed.err)
