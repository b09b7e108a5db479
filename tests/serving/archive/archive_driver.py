"""Runs archivers on a topic in memory in processes of their own, to be killed: a program for tests.

It imports everything once, by archiving a little itself, and forks a process for each run. Each line of its input is a
JSON request, each line of its output the answer: the process's exit code. A request holds the `seed`, the `events` and
the `partitions` of the topic, the archive's folder `out`, that of its `index`, and `settings`. With `die_at` the
process kills itself at that change of a store, with `delay_s` so long after it. A run archives all there is, and
compacts until nothing is left to do.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driftline.components.storage.objects.local import LocalStore
from driftline.serving.archive.partition import PartitionArchive
from tests.serving.archive.archived import busy_log, driven, settings_of
from tests.support.dying import die_at


def run(request: dict[str, Any]) -> None:
    """Archive a topic in this process."""
    log = busy_log(request["seed"], request["events"], request["partitions"])
    if "delay_s" in request:
        _die_soon_after(request["die_at"], request["delay_s"])
    elif "die_at" in request:
        die_at(request["die_at"])
    archiver = driven(log, settings_of(request["out"], **request["settings"]), Path(request["index"]))
    _poll_few(archiver.source)
    busy = _watched_maintenance()
    while archiver.archiver.archived_offsets != log.ends or busy[0]:
        busy[0] = False
        archiver.turn()
    archiver.archiver.close()


def _die_soon_after(changes: int, delay_s: float) -> None:
    """Kill this process at any moment, soon after so many files were written."""
    create, count = LocalStore.create, itertools.count(1)

    @contextmanager
    def counted(self: LocalStore, *place: Any) -> Generator[Any]:
        with create(self, *place) as handle:
            yield handle
        if next(count) == changes:
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    LocalStore.create = counted


def _poll_few(source: Any) -> None:
    """Have a source return few records at once, so that there are many commits."""
    poll = source.poll
    source.poll = lambda timeout_s, max_records: poll(timeout_s, 7)


def _watched_maintenance() -> list[bool]:
    busy = [False]
    maintain = PartitionArchive.maintain

    def watched(self: PartitionArchive, now_ms: int) -> bool:
        done = maintain(self, now_ms)
        busy[0] |= done
        return done

    PartitionArchive.maintain = watched
    return busy


def main() -> None:
    """Serve requests until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        topic = {"seed": 3, "events": 11, "partitions": 1}
        run({**topic, "out": f"{folder}/archive", "index": f"{folder}/index", "settings": {"compact_files": 2}})
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run(request)
                code = 0
            except Exception:  # noqa: BLE001 - whatever it is, the test that asked shows it
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
