"""Runs archivers on a topic in memory in processes of their own, to be killed: a program for tests.

It imports everything once and forks a process for each run. Each line of its input is a JSON request, each line of its
output the answer: how the process ended. A request holds the `seed`, the `events` and the `partitions` of the topic,
the archive's folder `out`, that of its `index`, and `settings`; with `die_at` the process kills itself at that change
of a store, with `kill_after_s` it is killed after so long. A run archives all there is, and tidies until nothing is
left to do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from driftline.components.storage.objects.values import read_value, write_value
from driftline.serving.archive.partition import PartitionArchive
from driftline.serving.archive.state import PartitionState
from tests.serving.archive.archived import busy_log, driven, settings_of
from tests.support.dying import die_at


def run(request: dict[str, Any]) -> None:
    """Archive a topic in this process."""
    log = busy_log(request["seed"], request["events"], request["partitions"])
    if "die_at" in request:
        die_at(request["die_at"])
    archiver = driven(log, settings_of(request["out"], **request["settings"]), Path(request["index"]))
    _poll_few(archiver.source)
    busy = _told_of_tidying()
    while archiver.archiver.archived_offsets != log.ends or busy[0]:
        busy[0] = False
        archiver.turn()
    archiver.archiver.close()


def _poll_few(source: Any) -> None:
    """Have a source return few records at once, so that there are many commits."""
    poll = source.poll
    source.poll = lambda timeout_s, max_records: poll(timeout_s, 7)


def _told_of_tidying() -> list[bool]:
    busy = [False]
    tidy = PartitionArchive.tidy

    def told(self: PartitionArchive, now_ms: int) -> bool:
        done = tidy(self, now_ms)
        busy[0] |= done
        return done

    PartitionArchive.tidy = told
    return busy


def main() -> None:
    """Serve requests until the input ends."""
    with tempfile.TemporaryDirectory() as folder:  # so that no process has to prepare for it anew
        value = PartitionState("t", 0, "o", 1, 0)
        write_value(f"{folder}/value.json", value)
        assert read_value(f"{folder}/value.json", PartitionState) == value
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
        if "kill_after_s" in request:
            time.sleep(request["kill_after_s"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
