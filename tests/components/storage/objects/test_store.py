"""One door to files and objects: the same behaviour for local paths and gs://."""

from __future__ import annotations

import base64
import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c
import pytest

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.local import local_error


def crc32c_of(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_what_is_written_is_read(place: str) -> None:
    uri = store.join(place, "a/b", "c.bin")
    content = bytes(range(256)) * 100
    store.write_bytes(uri, content)
    assert store.read_bytes(uri) == content
    info = store.stat(uri)
    assert (info.uri, info.size) == (uri, len(content))
    assert store.crc32c(uri) == store.crc32c(info) == crc32c_of(content)


def test_an_empty_file_is_a_file(place: str) -> None:
    uri = store.join(place, "empty")
    store.write_bytes(uri, b"")
    assert store.read_bytes(uri) == b""
    assert store.stat(uri).size == 0
    assert store.crc32c(uri) == "AAAAAA=="


def test_names_with_odd_characters(place: str) -> None:
    # The emulator builds broken links for names with #, ? and %, which the service escapes.
    uri = store.join(place, "ü x+&'=.txt" if place.startswith("gs://") else "ü x#1?%2F+&'\".txt")
    store.write_bytes(uri, b"odd")
    assert store.read_bytes(uri) == b"odd"
    assert [info.uri for info in store.list_files(place)] == [uri]


def test_a_large_file_is_read_by_ranges_from_anywhere(place: str) -> None:
    # More than one range, and more than one request of an upload.
    block = os.urandom(1 << 16)
    content = block * 320
    uri = store.join(place, "large")
    with store.create(uri) as handle:
        for _ in range(320):
            handle.write(block)
    with store.open_read(uri) as handle:
        assert handle.seekable()
        handle.seek(-10, io.SEEK_END)
        assert handle.read() == content[-10:]
        assert handle.read(5) == b""
        handle.seek(5_000_000)
        assert handle.read(3_000_000) == content[5_000_000:8_000_000]
        handle.seek(17)
        assert handle.read(9) == content[17:26]
        assert handle.tell() == 26
        handle.seek(-6, io.SEEK_CUR)
        assert handle.read(3) == content[20:23]
        handle.seek(0)
        assert handle.read() == content
    assert store.crc32c(uri) == crc32c_of(content)


def test_create_replaces_a_file_whole(place: str) -> None:
    uri = store.join(place, "file")
    store.write_bytes(uri, b"old and long")
    with store.create(uri) as handle:
        handle.write(b"new")
        assert store.read_bytes(uri) == b"old and long"
    assert store.read_bytes(uri) == b"new"


@pytest.mark.parametrize("size", [10, 20_000_000])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit, OSError])
def test_an_exception_in_create_leaves_nothing(place: str, size: int, error: type[BaseException]) -> None:
    def fail() -> None:
        with store.create(store.join(place, "file")) as handle:
            handle.write(b"x" * size)
            raise error

    with pytest.raises(error):
        fail()
    assert store.list_files(place) == []
    if not place.startswith("gs://"):
        assert list(Path(place).iterdir()) == []


def test_a_body_that_closes_the_file_still_creates_it(place: str) -> None:
    uri = store.join(place, "file")
    with store.create(uri) as handle:
        handle.write(b"closed by a writer")
        handle.close()
    assert store.read_bytes(uri) == b"closed by a writer"


def test_a_body_that_closes_the_file_and_fails_leaves_nothing(place: str) -> None:
    def fail() -> None:
        with store.create(store.join(place, "file")) as handle:
            handle.write(b"half")
            handle.close()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not store.exists(store.join(place, "file"))


def test_a_process_killed_in_create_leaves_nothing_visible(place: str, tmp_path: Path) -> None:
    uri = store.join(place, "file")
    program = (
        "import sys, time\n"
        "from driftline.components.storage.objects import store\n"
        "with store.create(sys.argv[1]) as handle:\n"
        "    handle.write(b'x' * 20_000_000)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, uri],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stdout.close()
    assert not store.exists(uri)
    assert store.list_files(place) == []


def test_lists_are_recursive_and_sorted(place: str) -> None:
    names = ["b", "a/z", "a.txt", "a/b/c", "a/b0"]
    for i, name in enumerate(names):
        store.write_bytes(store.join(place, name), b"x" * i)
    expected = sorted(store.join(place, name) for name in names)
    found = store.list_files(place)
    assert [info.uri for info in found] == expected
    assert {info.uri: info.size for info in found} == {store.join(place, name): i for i, name in enumerate(names)}
    assert [info.uri for info in store.list_files(store.join(place, "a"))] == [
        store.join(place, name) for name in ("a/b/c", "a/b0", "a/z")
    ]
    assert [info.uri for info in store.list_files(place + "/")] == expected
    assert [info.uri for info in store.list_files(store.join(place, "b"))] == [store.join(place, "b")]
    assert store.list_files(store.join(place, "none")) == []
    # A name that only begins like another is not in its folder.
    assert store.list_files(store.join(place, "a/b/c/d")) == []


def test_folders_are_listed_one_level_deep(place: str) -> None:
    assert store.list_folders(place) == []
    for name in ("b/x/deep", "a/y", "a/z", "c", "b c/ü"):
        store.write_bytes(store.join(place, name), b"1")
    assert store.list_folders(place) == store.list_folders(f"{place}/") == ["a", "b", "b c"]
    assert store.list_folders(store.join(place, "b")) == ["x"]
    assert store.list_folders(store.join(place, "c")) == []  # a file
    assert store.list_folders(store.join(place, "c/d")) == []


def test_links_to_folders_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert store.list_folders(str(tmp_path)) == ["a"]


def test_when_a_folder_was_last_written(place: str) -> None:
    assert store.last_written(place) is None
    before = datetime.now(UTC) - timedelta(seconds=1)  # file systems' clocks tick coarsely
    store.write_bytes(store.join(place, "a/old"), b"1")
    first = store.last_written(place)
    store.write_bytes(store.join(place, "a/b/new"), b"2")
    last = store.last_written(f"{place}/")
    assert first is not None
    assert last is not None
    assert before <= first <= last <= datetime.now(UTC) + timedelta(seconds=1)
    assert store.last_written(store.join(place, "a/b")) == last
    assert store.last_written(store.join(place, "a/elsewhere")) is None


def test_a_local_folder_counts_files_under_construction_and_itself(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "sub").mkdir(parents=True)
    os.utime(folder, (1000.25, 1000.25))
    assert store.last_written(str(folder)) == datetime.fromtimestamp(1000.25, UTC)
    for name, time in ((".shard.0a1b.part", 3000), ("sub/whole", 2000)):
        (folder / name).touch()
        os.utime(folder / name, (time, time))
    assert store.last_written(str(folder)) == datetime.fromtimestamp(3000, UTC)
    (folder / ".shard.0a1b.part").unlink()
    assert store.last_written(str(folder)) == datetime.fromtimestamp(2000, UTC)


def test_exists(place: str) -> None:
    store.write_bytes(store.join(place, "folder/file"), b"x")
    for name, expected in {
        "folder": True,
        "folder/": True,
        "folder/file": True,
        "fold": False,
        "folder/fil": False,
        "x/y": False,
    }.items():
        assert store.exists(f"{place}/{name}") is expected, name


def test_remove(place: str) -> None:
    for name in ("t/a", "t/b/c", "tt"):
        store.write_bytes(store.join(place, name), b"x")
    store.remove(store.join(place, "t/a"))
    store.remove(store.join(place, "t/a"))
    store.remove(store.join(place, "never/there"))
    with pytest.raises(StorageError, match="is a folder"):
        store.remove(store.join(place, "t"))
    store.remove_tree(store.join(place, "t"))
    store.remove_tree(store.join(place, "t"))
    assert [info.uri for info in store.list_files(place)] == [store.join(place, "tt")]
    store.remove_tree(store.join(place, "tt"))
    assert store.list_files(place) == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_folder_that_another_process_removes_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    folder = tmp_path / "work"
    for name in ("a", "b"):
        store.write_bytes(str(folder / name), b"1")
    remove, calls = shutil.rmtree, 0

    def raced(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            remove(path) if gone else (folder / "a").unlink()
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(folder / "a"))
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", raced)
    store.remove_tree(str(folder))
    assert not folder.exists()
    assert calls == (1 if gone else 2)


def test_a_folder_that_cannot_be_removed_is_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "shown, but not there", str(path / "a"))

    monkeypatch.setattr(shutil, "rmtree", never)
    with pytest.raises(StorageError, match="cannot remove: there is no such file or folder"):
        store.remove_tree(str(tmp_path))


def test_local_folder(place: str) -> None:
    contents = {"config.json": b"{}", "deep/er/weights": os.urandom(3_000_000), "empty": b""}
    for name, content in contents.items():
        store.write_bytes(store.join(place, name), content)
    with store.local_folder(place) as folder:
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        kept = folder
    assert found == contents
    assert kept.exists() is not place.startswith("gs://")
    assert len(store.list_files(place)) == 3


def test_local_folder_of_what_is_no_folder(place: str) -> None:
    store.write_bytes(store.join(place, "file"), b"x")
    with pytest.raises(StorageError) as error, store.local_folder(store.join(place, "none")):
        pass
    one_line(error, store.join(place, "none"), "check the path")
    with (
        pytest.raises(StorageError, match="is a file where a folder is expected"),
        store.local_folder(store.join(place, "file")),
    ):
        pass


def test_a_missing_file(place: str) -> None:
    store.write_bytes(store.join(place, "other"), b"x")
    uri = store.join(place, "missing")
    for call in (store.read_bytes, store.stat, store.open_read, store.crc32c, store.read_json):
        with pytest.raises(StorageError) as error:
            call(uri)
        one_line(error, uri, "there is no such", "check the path")


def test_a_folder_where_a_file_is_expected(place: str) -> None:
    store.write_bytes(store.join(place, "folder/file"), b"x")
    for call in (store.read_bytes, store.stat, store.open_read):
        with pytest.raises(StorageError, match="is a folder where a file is expected"):
            call(store.join(place, "folder"))


def test_json(place: str) -> None:
    uri = store.join(place, "x.json")
    value = {"b": [1, 2.5, None, True], "a": {"ü": "line\nend"}}
    store.write_json(uri, value)
    assert store.read_json(uri) == value
    assert store.read_bytes(uri).startswith('{\n  "a": {\n    "ü": "line\\nend"\n  },\n  "b": ['.encode())


@pytest.mark.parametrize("value", [float("nan"), {"x": float("inf")}, {1, 2}, "\ud800"])
def test_what_is_not_json_is_not_written(place: str, value: object) -> None:
    with pytest.raises(DataError) as error:
        store.write_json(store.join(place, "x.json"), value)
    one_line(error, "x.json", "is not JSON")
    assert store.list_files(place) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_file_that_is_not_json(place: str, content: bytes) -> None:
    uri = store.join(place, "x.json")
    store.write_bytes(uri, content)
    with pytest.raises(DataError) as error:
        store.read_json(uri)
    one_line(error, uri, "is not JSON")


def test_file_uris_are_local_paths(tmp_path: Path) -> None:
    store.write_bytes(f"file://{tmp_path}/with%20space", b"x")
    assert (tmp_path / "with space").read_bytes() == b"x"
    assert store.join(f"file://{tmp_path}", "a") == f"{tmp_path}/a"


@pytest.mark.parametrize(
    "uri", ["s3://bucket/x", "http://host/x", "", "a\0b", "gs://", "gs:///x", "gs://UPPER/x", "file://host/x"]
)
def test_uris_that_cannot_be(uri: str) -> None:
    with pytest.raises(UsageError) as error:
        store.read_bytes(uri)
    one_line(error)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("gs://bucket", "a", "b/c"), "gs://bucket/a/b/c"),
        (("gs://bucket/x/", "/a/", "b"), "gs://bucket/x/a/b"),
        (("/", "a"), "/a"),
        (("folder/", ""), "folder/"),
        (("folder", "", "x"), "folder/x"),
    ],
)
def test_join(parts: tuple[str, ...], expected: str) -> None:
    assert store.join(*parts) == expected


def test_the_root_is_not_removed(gcs_endpoint: str) -> None:
    for uri in ("/", "//", "gs://driftline-tests", "gs://driftline-tests/"):
        with pytest.raises(UsageError, match="refusing"):
            store.remove_tree(uri)


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageError, match="is a file where a folder is expected"):
        store.write_bytes(str(tmp_path / "file" / "x"), b"x")
    with pytest.raises(StorageError, match="is a file where a folder is expected"):
        store.read_bytes(str(tmp_path / "file" / "x"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="is a folder where a file is expected"):
        store.write_bytes(str(tmp_path / "folder"), b"x")
    with pytest.raises(StorageError, match="too long"):
        store.write_bytes(str(tmp_path / ("x" * 300)), b"x")


def test_a_write_that_the_system_refuses_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StorageError) as error:
            store.write_bytes(str(tmp_path / "file"), b"x" * (4 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    one_line(error, "file", "grows past the size")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "check the disk"),
    ],
)
def test_the_systems_errors_say_what_to_do(code: int, what: str) -> None:
    message = str(local_error("data/x", "write", OSError(code, os.strerror(code))))
    assert message.startswith("data/x: cannot write: ")
    assert what in message


def test_files_under_construction_are_not_listed(tmp_path: Path) -> None:
    with store.create(str(tmp_path / "file")) as handle:
        handle.write(b"x")
        assert len(list(tmp_path.iterdir())) == 1
        assert store.list_files(str(tmp_path)) == []


def test_local_users_do_not_wait_for_googles_libraries(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from driftline.components.storage.dataset import reader, windows\n"
        "from driftline.components.storage.objects import json_history, store\n"
        "from driftline.components.storage.texts import reading\n"
        "store.write_bytes(sys.argv[1], b'x')\n"
        "assert not [name for name in sys.modules if name.startswith('google.cloud')]\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x")], check=True, timeout=60)


def test_joining_to_a_scheme_without_a_bucket_is_refused():
    assert store.join("gs://bucket/", "a", "b/c") == "gs://bucket/a/b/c"
    with pytest.raises(UsageError, match="'' is not a bucket's name"):
        store.join("gs://", "a")
