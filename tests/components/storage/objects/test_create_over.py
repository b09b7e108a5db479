"""Writing only over what was meant to be written over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.components.errors import StorageConflict, StorageError, UsageError
from driftline.components.storage.objects import local, store


def write(uri: str, content: bytes, over: store.Over) -> None:
    with store.create(uri, over=over) as handle:
        handle.write(content)


def test_over_nothing(place: str) -> None:
    uri = store.join(place, "file")
    write(uri, b"first", None)
    with pytest.raises(StorageConflict, match=rf"^{uri}: is there already[^\n]+it stays as it is"):
        write(uri, b"second", None)
    assert store.read_bytes(uri) == b"first"
    assert [info.uri for info in store.list_files(place)] == [uri]
    store.remove(uri)
    write(uri, b"third", None)
    assert store.read_bytes(uri) == b"third"


def test_over_one_version(place: str) -> None:
    uri = store.join(place, "file")
    store.write_bytes(uri, b"first")
    first = store.stat(uri)
    write(uri, b"other", first)
    second = store.stat(uri)
    assert second.version != first.version
    assert store.list_files(place) == [second]
    for expected in (first, store.FileInfo(uri, 5, version="12345")):
        with pytest.raises(StorageConflict, match=rf"^{uri}: was replaced or removed since it was looked at"):
            write(uri, b"third", expected)
    assert store.read_bytes(uri) == b"other"
    store.remove(uri)
    with pytest.raises(StorageConflict, match="was replaced or removed"):
        write(uri, b"third", second)
    assert not store.exists(uri)
    assert store.list_files(place) == []


def test_over_anything(place: str) -> None:
    uri = store.join(place, "file")
    write(uri, b"first", store.ANY)
    write(uri, b"second", store.ANY)
    assert store.read_bytes(uri) == b"second"


def test_a_version_is_of_one_content(place: str) -> None:
    uri = store.join(place, "file")
    versions: set[str] = set()
    for i in range(5):
        store.write_bytes(uri, b"x%d" % i)
        info = store.stat(uri)
        assert info == store.stat(uri) == store.list_files(uri)[0]
        versions.add(info.version)
    assert len(versions) == 5
    with store.open_read(info) as handle:
        assert handle.read() == b"x4"


def overtaken(uri: str, over: store.Over, other: Callable[[], None]) -> None:
    with store.create(uri, over=over) as handle:
        handle.write(b"slow")
        other()


def test_a_conflict_is_decided_at_the_end(place: str) -> None:
    uri = store.join(place, "file")
    with pytest.raises(StorageConflict):
        overtaken(uri, None, lambda: write(uri, b"quick", None))
    assert store.read_bytes(uri) == b"quick"
    info = store.stat(uri)
    with pytest.raises(StorageConflict):
        overtaken(uri, info, lambda: store.write_bytes(uri, b"quicker"))
    assert store.read_bytes(uri) == b"quicker"
    assert [info.uri for info in store.list_files(place)] == [uri]


def test_an_unknown_version_is_refused(place: str) -> None:
    uri = store.join(place, "file")
    with (
        pytest.raises(UsageError, match=r"describe the file by store\.stat first"),
        store.create(uri, over=store.FileInfo(uri, 5)),
    ):
        pass
    assert not store.exists(uri)


@pytest.mark.parametrize("condition", ["nothing", "version"])
def test_of_many_writers_one_wins(place: str, condition: str) -> None:
    uri = store.join(place, "file")
    store.write_bytes(uri, b"before")
    over = store.stat(uri) if condition == "version" else None
    if over is None:
        store.remove(uri)
    outcomes: list[int] = []
    barrier = threading.Barrier(8)

    def run(i: int) -> None:
        try:
            with store.create(uri, over=over) as handle:
                handle.write(b"%d" % i)
                barrier.wait(60)
        except StorageConflict:
            return
        outcomes.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(outcomes) == 1
    assert store.read_bytes(uri) == b"%d" % outcomes[0]
    assert [info.uri for info in store.list_files(place)] == [uri]


def test_local_writers_look_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = local._described

    def slowly(uri: str, state: os.stat_result) -> store.FileInfo:
        time.sleep(0.05)  # all would find the version that they expect, if they looked at once
        return described(uri, state)

    monkeypatch.setattr(local, "_described", slowly)
    test_of_many_writers_one_wins(str(tmp_path / "data"), "version")


def no_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOTSUP, "Operation not supported")


@pytest.mark.parametrize(
    "test", [test_over_nothing, test_over_one_version, test_a_conflict_is_decided_at_the_end], ids=lambda t: t.__name__
)
@pytest.mark.parametrize("locks", [True, False])
def test_local_file_systems_without_links_or_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[str], None], locks: bool
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    if not locks:
        monkeypatch.setattr(local.fcntl, "flock", no_locks)
    test(str(tmp_path / "data"))


def test_a_failure_to_link_for_another_reason_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match="no space is left"):
        write(str(tmp_path / "file"), b"x", None)
    assert list(tmp_path.iterdir()) == []


# Runs with a file system of 4 MiB, in a mount namespace of its own: it is gone when the process is.
FULL_DISK = """
import os, sys, tempfile
from pathlib import Path
from driftline.components.errors import StorageError
from driftline.components.storage.objects import store

disk, uri = Path(sys.argv[1]), sys.argv[2]

def refused(uri, **settings):
    try:
        with store.create(uri, **settings) as handle:
            for _ in range(8):
                handle.write(b"x" * (1 << 20))
    except StorageError as error:
        return str(error)
    raise SystemExit("not refused")

store.write_bytes(str(disk / "file"), b"before")
before = store.stat(str(disk / "file"))
print(refused(str(disk / "file")))
print(refused(str(disk / "file"), over=before))
print(refused(str(disk / "new"), over=None))
assert store.read_bytes(str(disk / "file")) == b"before"
assert os.listdir(disk) == ["file"], os.listdir(disk)

tempfile.tempdir = str(disk)
store.write_bytes(uri, b"before")
print(refused(uri))
assert store.read_bytes(uri) == b"before"
assert os.listdir(disk) == ["file"], os.listdir(disk)

tempfile.tempdir = None
folder = uri.rsplit("/", 1)[0]
store.write_bytes(folder + "/large", b"y" * (8 << 20))
for cache in (disk / "cache", None):
    try:
        if cache is None:
            tempfile.tempdir = str(disk)
        with store.cached_folder(folder, cache):
            raise SystemExit("not refused")
    except StorageError as error:
        print(error)
    assert not list(disk.rglob("*.part")), list(disk.rglob("*"))
tempfile.tempdir = None
store.remove(folder + "/large")
with store.cached_folder(folder, disk / "cache") as copy:
    assert [path.name for path in copy.iterdir()] == ["object"]
print("done")
"""


def test_a_full_disk_gives_one_line_and_leaves_nothing(tmp_path: Path, gcs_bucket: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=4m tmpfs '{disk}'"
    try:
        subprocess.run([*inside, mount], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    uri = f"{gcs_bucket}/object"
    ended = subprocess.run(
        [*inside, f'{mount} && exec "$@"', "sh", sys.executable, "-c", FULL_DISK, str(disk), uri],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 7
    assert lines[-1] == "done"
    for line, named in zip(
        lines, [f"{disk}/file: ", f"{disk}/file: ", f"{disk}/new: ", uri, f"{disk}/cache/", f"{disk}/"], strict=False
    ):
        assert line.startswith(named)
        assert "no space is left on the device; free some" in line
