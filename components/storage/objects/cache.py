"""Folders of the object store kept on the local disk, once per machine and safe for many processes.

A cache holds, for each content that was ever asked for,

    <key>/files/…       the files, each put there whole
    <key>/record.json   size and time of change of each, as they were when its checksum was right
    <key>/lock          held by the process that downloads
    <key>/notes/…       what is known about the content, such as a model's revision

where the key is a digest of the files' names, sizes and checksums.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from driftline.components.errors import StorageError
from driftline.components.storage.objects.local import PART_SUFFIX, LocalStore, local_error
from driftline.components.storage.objects.location import FileInfo, file_crc32c

Download = Callable[[Iterable[tuple[FileInfo, Path]]], None]
"""Downloads objects to local paths, each of which appears or is replaced once it is whole."""

_RECORD = "record.json"


def cached_copy(uri: str, files: Mapping[str, FileInfo], cache: Path, download: Download) -> Path:
    """The local copy of a folder, downloaded as far as it is not there yet.

    Args:
        uri: The folder, for messages.
        files: Its files by their names within it.
        cache: Where copies lie.
        download: How to get files.

    Returns:
        The folder of the copy, to be read only.

    Raises:
        StorageError: A file cannot be read, the cache cannot be written, or the copy holds files of another origin.
    """
    place = cache / _key(files)
    folder = place / "files"
    # Without the lock, so that a cache that is complete may be read-only, and nobody waits.
    if not _missing(place, files, checksums=False):
        _refuse_others(uri, folder, files)
        return folder
    with _reported(uri, cache):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(uri, cache, place / "lock") as alone:
        if alone:
            _remove_halves(folder)
        # Each appears when it is whole, so that a process that is killed here leaves less to do for the next. Whoever
        # has a damaged file open keeps it; whoever opens it next gets the whole one.
        download((files[name], folder / name) for name in _missing(place, files, checksums=True))
        with _reported(uri, cache):
            record = {name: _stamp(folder / name) for name in files}
        _write(place / _RECORD, json.dumps(record, indent=1, sort_keys=True))
    _refuse_others(uri, folder, files)
    return folder


def remembered(folder: Path, note: str, compute: Callable[[], str]) -> str:
    """What `compute` said of a cached copy's content when it was first asked; it is asked now if never before.

    Args:
        folder: What `store.cached_folder` gave for a gs:// folder with a cache.
        note: A name for what is remembered, new whenever `compute` changes its mind.
        compute: Works it out.
    """
    path = folder.parent / "notes" / note
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    value = compute()
    # A cache that can be read only: worked out again next time.
    with suppress(StorageError):
        _write(path, value)
    return value


def _key(files: Mapping[str, FileInfo]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        info = files[name]
        digest.update(f"{name}\0{info.size}\0{info.crc32c or info.version}\0".encode())
    return digest.hexdigest()[:32]


def _stamp(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _missing(place: Path, files: Mapping[str, FileInfo], *, checksums: bool) -> list[str]:
    """The files that are not there as they should be: by the record, else by their checksum where asked for."""
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        record = cast("dict[str, Any]", known) if isinstance(known, dict) else {}
    missing: list[str] = []
    for name, info in files.items():
        path = place / "files" / name
        try:
            stamp = _stamp(path)
            whole = stamp[0] == info.size and (
                record.get(name) == stamp
                or (checksums and info.crc32c is not None and file_crc32c(path) == info.crc32c)
            )
        except OSError:
            whole = False
        if not whole:
            missing.append(name)
    return missing


def _remove_halves(folder: Path) -> None:
    """Remove what processes that were killed had begun to download: nobody else does so now."""
    for path in folder.rglob(f".*{PART_SUFFIX}"):
        with suppress(OSError):
            path.unlink()


def _refuse_others(uri: str, folder: Path, files: Mapping[str, FileInfo]) -> None:
    for info in LocalStore().list_files(str(folder)):
        name = Path(info.uri).relative_to(folder).as_posix()
        if name not in files and not any(piece.startswith(".") for piece in name.split("/")):
            raise StorageError(
                f"{info.uri}: lies in the cached copy of {uri}, but is none of its files; remove it from the cache"
            )


def _write(path: Path, content: str) -> None:
    with LocalStore().create(str(path)) as handle:
        handle.write(content.encode())


@contextmanager
def _locked(uri: str, cache: Path, path: Path) -> Generator[bool]:
    """Wait until no other process downloads. Yields whether the file system has such locks.

    The system gives a lock back when its process ends, however it ends.
    """
    with _reported(uri, cache):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            # Two processes then download at once, and each puts the same whole files in place.
            alone = False
        yield alone
    finally:
        os.close(descriptor)


@contextmanager
def _reported(uri: str, cache: Path) -> Generator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = str(local_error("", "", error)).split(": ", 2)[-1]
        raise StorageError(
            f"{cache}: cannot keep a copy of {uri} in this cache: {reason} (or go without a cache)"
        ) from error
