"""One door to local paths and gs:// objects.

A URI is `gs://bucket/path`, a plain local path, or `file:///path`. Every failure of the operating system or
of Google Cloud Storage is a StorageError of one line; a URI of another scheme is a UsageError.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from driftline.components.errors import DataError
from driftline.components.storage.objects.cache import cached_copy
from driftline.components.storage.objects.local import LocalStore
from driftline.components.storage.objects.location import (
    ANY,
    FileInfo,
    Over,
    Store,
    checked_version,
    is_gcs,
    join,
    normalised,
    relative_names,
    stream_crc32c,
)

__all__ = [
    "ANY",
    "FileInfo",
    "Over",
    "cached_folder",
    "crc32c",
    "create",
    "exists",
    "find",
    "join",
    "json_bytes",
    "last_written",
    "list_files",
    "list_folders",
    "local_folder",
    "open_read",
    "read_bytes",
    "read_json",
    "remove",
    "remove_tree",
    "stat",
    "write_bytes",
    "write_json",
]

_LOCAL = LocalStore()


def _store(uri: str) -> tuple[Store, str]:
    place = normalised(uri)
    if not is_gcs(place):
        return _LOCAL, place
    # Imported here: it takes seconds, which users of local files need not wait.
    from driftline.components.storage.objects import gcs

    return gcs.default_store(), place


def open_read(file: str | FileInfo) -> BinaryIO:
    """Open a file for reading in binary; seekable.

    A gs:// object stays the same object to the end: one that is replaced meanwhile fails instead of changing
    under the reader. Of one described by a FileInfo exactly the version described is read, and a request is saved.
    What is asked for is fetched by ranges of at most 4 MiB; large reads, and those who read on in order, have
    several requests in flight at once (about 40 MiB of memory, threads that end with `close`). Whoever has read
    all bytes in order has had them compared with the object's checksum.

    Raises:
        StorageError: It is missing, a folder, not readable or not reachable; while reading, that it is damaged.
    """
    uri = file.uri if isinstance(file, FileInfo) else file
    store, place = _store(uri)
    return store.open_read(file if isinstance(file, FileInfo) else place)


@contextmanager
def create(uri: str, *, over: Over = ANY) -> Generator[BinaryIO]:
    """Write a file whose content becomes visible whole at a clean exit, or not at all.

    Local parent folders are made. For gs:// the content goes to a temporary local file first (so TMPDIR must have
    room for it) and is uploaded with its checksum.

    Conditions hold at the moment when the file becomes visible. On gs:// the service itself compares. Locally,
    "nothing is there" is decided by the file system as well; "that very version" is compared, under a lock of the
    folder, just before the rename: a process that writes without a condition in that instant, or one on another
    machine where a network file system has no locks, can lose what it wrote. The same is true of "nothing is
    there" on file systems without hard links.

    Args:
        uri: The file.
        over: What it may replace: `ANY`, whatever is there; None, nothing; a FileInfo, that very version of it.

    Raises:
        StorageConflict: Something else is there than `over` says; it stays as it is.
        StorageError: It cannot be written; what is there stays as it is.
        UsageError: `over` has no version.
    """
    store, place = _store(uri)
    if isinstance(over, FileInfo):
        checked_version(uri, over)
    with store.create(place, over) as handle:
        yield handle


def read_bytes(uri: str) -> bytes:
    """Read a whole file into memory.

    Raises:
        StorageError: It cannot be read.
    """
    with open_read(uri) as handle:
        return handle.read()


def write_bytes(uri: str, content: bytes, *, over: Over = ANY) -> None:
    """Write a whole file, atomically; `over` as for `create`.

    Raises:
        StorageConflict: Something else is there than `over` says.
        StorageError: It cannot be written.
    """
    with create(uri, over=over) as handle:
        handle.write(content)


def read_json(uri: str) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: It cannot be read.
        DataError: It is not JSON in UTF-8.
    """
    content = read_bytes(uri)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri}: is not JSON ({error}); restore the file or write it again") from error


def json_bytes(uri: str, value: Any) -> bytes:
    """Return the content of a JSON file: UTF-8, sorted keys, indented by 2.

    Raises:
        DataError: The value is not JSON: NaN, infinity, or an object of another type; `uri` is named.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{uri}: the value to write is not JSON ({error}); give finite numbers, strings, lists and mappings"
        ) from error


def write_json(uri: str, value: Any, *, over: Over = ANY) -> None:
    """Write a value as JSON, as of `json_bytes`, atomically; `over` as for `create`.

    Raises:
        StorageConflict: Something else is there than `over` says.
        StorageError: It cannot be written.
        DataError: The value is not JSON.
    """
    write_bytes(uri, json_bytes(uri, value), over=over)


def stat(uri: str) -> FileInfo:
    """Describe one file without reading it.

    Raises:
        StorageError: It is missing, a folder, or not reachable.
    """
    store, place = _store(uri)
    return store.stat(place)


def find(uri: str) -> FileInfo | None:
    """Describe one file without reading it; None where there is none. On gs:// that is one request.

    Raises:
        StorageError: It cannot be known: a folder, no permission, not reachable, no such bucket.
    """
    store, place = _store(uri)
    return store.find(place)


def crc32c(file: str | FileInfo) -> str:
    """Base64 of a file's big-endian CRC-32C, as Google Cloud Storage reports it.

    Taken from an object's metadata where they hold it; else by streaming the file, 1 MiB at a time.

    Raises:
        StorageError: It cannot be read.
    """
    info = file if isinstance(file, FileInfo) else stat(file)
    if info.crc32c is not None:
        return info.crc32c
    with open_read(info) as handle:
        return stream_crc32c(handle)


def exists(uri: str) -> bool:
    """Say whether a file or a folder is there (on gs://: an object, or any object under `uri/`).

    Raises:
        StorageError: It cannot be known: no permission, not reachable, no such bucket.
    """
    store, place = _store(uri)
    return store.exists(place)


def list_files(uri: str) -> list[FileInfo]:
    """List the files under a folder, recursively, sorted by URI; none where the folder is missing.

    A gs:// folder exists only through its objects, so that missing and empty are one. `uri` of a file lists
    that file. Symbolic links to files are followed, those to folders are not.

    Raises:
        StorageError: It cannot be listed: no permission, not reachable, no such bucket.
    """
    store, place = _store(uri)
    return store.list_files(place)


def list_folders(uri: str) -> list[str]:
    """Return the names of the folders right below a folder, sorted; none where there is no such folder.

    On gs:// that is one listing, however many objects lie below them. Locally, links to folders are left out, as
    `list_files` does.

    Raises:
        StorageError: They cannot be listed: no permission, not reachable, no such bucket.
    """
    store, place = _store(uri)
    return store.list_folders(place)


def last_written(uri: str) -> datetime | None:
    """Return when the newest file below a folder was written, in UTC; None where there is none.

    On gs:// that is when the object's content came to be, by the service's clock. Locally files under construction
    count, and a folder without any files counts itself.

    Raises:
        StorageError: It cannot be known: no permission, not reachable, no such bucket.
    """
    store, place = _store(uri)
    return store.last_written(place)


def remove(uri: str) -> None:
    """Remove one file; a missing one is fine.

    Raises:
        StorageError: It is a folder, or may not be removed.
    """
    store, place = _store(uri)
    store.remove(place)


def remove_tree(uri: str) -> None:
    """Remove a folder and all in it (or one file); a missing one is fine, also one that another process removes.

    Raises:
        UsageError: It is the root folder or a whole bucket.
        StorageError: Something may not be removed.
    """
    store, place = _store(uri)
    store.remove_tree(place)


@contextmanager
def local_folder(uri: str) -> Generator[Path]:
    """Yield a folder as a local path, for libraries that read only those (a model's folder, say).

    A local folder is yielded itself: do not write to it. A gs:// one is downloaded to a temporary folder,
    each file checked by its CRC-32C, and removed afterwards.

    Raises:
        StorageError: It is missing, a file, or not readable.
    """
    store, place = _store(uri)
    with store.local_folder(place) as path:
        yield path


@contextmanager
def cached_folder(uri: str, cache: Path | None) -> Generator[Path]:
    """Yield a folder as a local path, as `local_folder` does, downloading a gs:// one once per machine.

    Copies lie in `cache` by their content (names, sizes, checksums), so a folder that has changed is another one.
    Any number of processes may use a cache at once: one downloads, the others wait for it. A copy that is used is
    whole: files are compared with their checksums as they are downloaded, and one that was touched since is
    compared again or downloaded again; a download that was killed is taken up where it was. Nothing is ever
    deleted: whoever owns the cache does that, while nobody uses it.

    Args:
        uri: The folder. A local one is yielded itself: do not write to it, nor to a copy.
        cache: Where the copies lie, made if need be; None for a copy in a temporary folder.

    Raises:
        StorageError: It is missing, a file, or not readable, or the cache cannot be written.
    """
    place = normalised(uri)
    if cache is None or not is_gcs(place):
        with local_folder(uri) as path:
            yield path
        return
    from driftline.components.storage.objects import gcs

    store = gcs.default_store()
    yield cached_copy(place, relative_names(place, store.list_files(place)), cache, store.download)
