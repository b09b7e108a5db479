"""Folders of the object store that are downloaded once per machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from driftline.components.errors import StorageError
from driftline.components.storage.objects import gcs, store
from driftline.components.storage.objects.cache import remembered
from driftline.components.storage.objects.gcs_failures import Retries
from tests.components.storage.objects.test_gcs_reader import eventually
from tests.support.faulty_proxy import Fault, FaultyProxy, Seen

CONTENTS = {"config.json": b"{}", "deep/er/weights": bytes(range(256)) * 40_000, "empty": b"", "vocab.txt": b"a\nb\n"}
# Asks for the folder, says where the copy is and checks the weights.
PROGRAM = """
import sys
from pathlib import Path
from driftline.components.storage.objects import store
with store.cached_folder(sys.argv[1], Path(sys.argv[2])) as folder:
    assert (folder / "deep/er/weights").read_bytes() == bytes(range(256)) * 40_000
    print(folder)
"""


@pytest.fixture
def uri(gcs_bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of objects, which this process reaches through the proxy."""
    for name, content in CONTENTS.items():
        store.write_bytes(f"{gcs_bucket}/m/{name}", content)
    client = storage.Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": proxy.endpoint}
    )
    place = gcs.GcsStore(client, retries=Retries(1.0, 0.01, 0.05))
    monkeypatch.setattr(gcs, "default_store", lambda: place)
    return f"{gcs_bucket}/m"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fetched(proxy: FaultyProxy) -> list[str]:
    """The names of the objects whose content was asked for since the last look, each once."""
    names = sorted({seen.path.partition("?")[0].rpartition("%2Fm%2F")[2].replace("%2F", "/") for seen in proxy.media})
    proxy.seen.clear()
    return names


def test_a_folder_is_downloaded_once(uri: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there" / "yet"
    with store.cached_folder(uri, cache) as folder:
        assert contents(folder) == CONTENTS
        assert folder.is_relative_to(cache)
        kept = folder
    assert fetched(proxy) == ["config.json", "deep/er/weights", "vocab.txt"]
    for spelt in (uri, uri + "/"):
        with store.cached_folder(spelt, cache) as folder:
            assert folder == kept
            assert contents(folder) == CONTENTS
    assert len(proxy.seen) == 2  # the listings
    assert fetched(proxy) == []


def test_the_same_content_elsewhere_is_the_same_copy_and_another_content_another(
    uri: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    with store.cached_folder(uri, tmp_path) as first:
        pass
    for name, content in CONTENTS.items():
        store.write_bytes(f"{uri}-again/{name}", content)
    fetched(proxy)
    with store.cached_folder(f"{uri}-again", tmp_path) as again:
        assert again == first
    assert fetched(proxy) == []
    store.write_bytes(f"{uri}/vocab.txt", b"a\nc\n")  # of the same size
    with store.cached_folder(uri, tmp_path) as other:
        assert other != first
        assert contents(other) == {**CONTENTS, "vocab.txt": b"a\nc\n"}
    # Nothing was taken from those who may be using it.
    assert contents(first) == CONTENTS


def test_no_cache_and_local_folders_are_as_before(uri: str, tmp_path: Path) -> None:
    with store.cached_folder(uri, None) as folder:
        assert contents(folder) == CONTENTS
    assert not folder.exists()
    (tmp_path / "model").mkdir()
    with store.cached_folder(str(tmp_path / "model"), tmp_path / "cache") as folder:
        assert folder == tmp_path / "model"
    with pytest.raises(StorageError, match="check the path"), store.cached_folder(f"{uri}/none", tmp_path / "cache"):
        pass
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["truncated", "edited", "removed", "restored"])
@pytest.mark.parametrize("record", ["kept", "lost", "damaged"])
def test_a_damaged_copy_is_never_used(uri: str, proxy: FaultyProxy, tmp_path: Path, damage: str, record: str) -> None:
    with store.cached_folder(uri, tmp_path) as folder:
        weights = folder / "deep/er/weights"
    whole = CONTENTS["deep/er/weights"]
    harm = {
        "truncated": lambda: os.truncate(weights, 1_000_000),
        "edited": lambda: weights.write_bytes(whole[:-1] + b"x"),
        "removed": weights.unlink,
        # The right bytes at another time: no need to download.
        "restored": lambda: (weights.write_bytes(whole), os.utime(weights, (1, 1))),
    }
    harm[damage]()
    spoil = {
        "kept": lambda: None,
        "lost": (folder.parent / "record.json").unlink,
        "damaged": lambda: (folder.parent / "record.json").write_bytes(b'["\xff'),
    }
    spoil[record]()
    fetched(proxy)
    with store.cached_folder(uri, tmp_path) as again:
        assert contents(again) == CONTENTS
    assert fetched(proxy) == {"restored": []}.get(damage, ["deep/er/weights"])
    with store.cached_folder(uri, tmp_path) as again:
        assert contents(again) == CONTENTS
    assert fetched(proxy) == []


def test_who_has_a_damaged_file_open_keeps_it(uri: str, tmp_path: Path) -> None:
    with store.cached_folder(uri, tmp_path) as folder:
        weights = folder / "deep/er/weights"
    os.truncate(weights, 10)
    with weights.open("rb") as held, store.cached_folder(uri, tmp_path) as folder:
        assert contents(folder) == CONTENTS
        assert held.read() == CONTENTS["deep/er/weights"][:10]


def test_files_of_another_origin_are_refused(uri: str, tmp_path: Path) -> None:
    with store.cached_folder(uri, tmp_path) as folder:
        (folder / "deep" / "pytorch_model.bin").write_bytes(b"x")
    with (
        pytest.raises(StorageError, match=rf"deep/pytorch_model.bin: lies in the cached copy of {uri}, but is none"),
        store.cached_folder(uri, tmp_path),
    ):
        pass


def test_a_download_that_fails_leaves_what_was_finished_and_goes_on_from_there(
    uri: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    def plan(seen: Seen) -> Fault | None:
        if not (seen.is_media and "weights" in seen.path):
            return None
        eventually(lambda: {path.name for path in tmp_path.rglob("*")} >= finished)
        return Fault("status", 403)

    finished = {"config.json", "vocab.txt", "empty"}
    proxy.plan = plan
    with pytest.raises(StorageError, match="weights: cannot read: no permission"), store.cached_folder(uri, tmp_path):
        pass
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {*finished, "lock"}
    proxy.plan = lambda seen: None
    fetched(proxy)
    with store.cached_folder(uri, tmp_path) as folder:
        assert contents(folder) == CONTENTS
    assert fetched(proxy) == ["deep/er/weights"]


def test_a_download_that_was_killed_is_taken_up(
    uri: str, gcs_endpoint: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.plan = lambda seen: Fault("delay", seconds=60) if seen.range == (8388608, 10239999) else None
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": proxy.endpoint}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, uri, str(tmp_path)], env=environment)
    try:
        # The other files are there, and half of the weights.
        finished = {"config.json", "vocab.txt", "empty"}
        eventually(lambda: finished <= {path.name for path in tmp_path.rglob("*")})
        eventually(lambda: list(tmp_path.rglob(".weights*.part")))
        eventually(lambda: sum(seen.is_media for seen in proxy.seen) >= 5)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=30)
    proxy.plan = lambda seen: None
    fetched(proxy)
    with store.cached_folder(uri, tmp_path) as folder:
        assert contents(folder) == CONTENTS
    assert fetched(proxy) == ["deep/er/weights"]
    assert not list(tmp_path.rglob("*.part"))


def test_processes_at_once_download_once(uri: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    # Slow enough that all of them come while the first one downloads.
    proxy.plan = lambda seen: Fault("delay", seconds=0.5) if seen.is_media else None
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": proxy.endpoint}
    command = [sys.executable, "-c", PROGRAM, uri, str(tmp_path)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        folders = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(timeout=30)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(folders)) == 1
    assert contents(Path(folders[0].strip())) == CONTENTS
    ranges = [(seen.path, seen.range) for seen in proxy.media]
    assert len(ranges) == len(set(ranges)) == 5  # the weights are three


def test_processes_without_locks_do_no_harm(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from driftline.components.storage.objects import cache

    def no_locks(descriptor: int, operation: int) -> None:
        # Another process does the same meanwhile, and is still at it.
        monkeypatch.undo()
        with store.cached_folder(uri, tmp_path) as folder:
            (folder / ".weights.0123.part").write_bytes(b"half")
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    with store.cached_folder(uri, tmp_path) as folder:
        assert contents(folder) == {**CONTENTS, ".weights.0123.part": b"half"}


def test_a_cache_that_cannot_be_written(uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(
                StorageError,
                match=rf"^{cache}: cannot keep a copy of {uri} in this cache: a part of the path is a file[^\n]+$",
            ),
            store.cached_folder(uri, cache),
        ):
            pass


def test_what_is_remembered_is_worked_out_once_for_each_content(uri: str, tmp_path: Path) -> None:
    asked: list[str] = []

    def compute() -> str:
        asked.append("")
        return f"value {len(asked)}"

    for _ in range(2):
        with store.cached_folder(uri, tmp_path) as folder:
            assert remembered(folder, "note-1", compute) == "value 1"
    assert remembered(folder, "note-2", compute) == "value 2"
    store.write_bytes(f"{uri}/vocab.txt", b"new")
    with store.cached_folder(uri, tmp_path) as folder:
        assert remembered(folder, "note-1", compute) == "value 3"
    (folder.parent / "notes" / "note-1").unlink()
    (folder.parent / "notes").rmdir()
    (folder.parent / "notes").write_bytes(b"in the way")
    assert remembered(folder, "note-1", compute) == "value 4"


def test_the_record_is_json_for_people_to_read(uri: str, tmp_path: Path) -> None:
    with store.cached_folder(uri, tmp_path) as folder:
        pass
    record = json.loads((folder.parent / "record.json").read_text())
    assert {name: size for name, (size, _) in record.items()} == {name: len(c) for name, c in CONTENTS.items()}
