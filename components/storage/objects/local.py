"""Local files: read, created atomically, listed, removed."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from driftline.components.errors import StorageError, UsageError
from driftline.components.storage.objects.location import ANY, FileInfo, Over, conflict, unlinked_on_error

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Few system calls for streamed Parquet and JSONL, little memory where many files are open.
_BUFFER_BYTES = 1 << 20
# A file under construction is `.<name>.<random>.part` in the target's folder: only a process killed outright
# leaves one behind, and no listing shows it.
PART_SUFFIX = ".part"
# Attempts at a folder that others remove at the same time: each race lost takes an entry away, so that a few suffice.
_REMOVALS = 100

_REASONS = {
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EISDIR: "is a folder where a file is expected; name a file in it",
    errno.ENOTDIR: "a part of the path is a file where a folder is expected; check the path",
    errno.EEXIST: "a part of the path is a file where a folder is expected; check the path",
    errno.EACCES: "no permission; let this user read the file, or write to its folder",
    errno.EPERM: "no permission; let this user read the file, or write to its folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "no space is left on the device; free some, or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another folder",
    errno.EFBIG: "the file grows past the size that is allowed; raise the limit, or choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "this process has too many files open; raise the limit (ulimit -n)",
}


def local_error(path: str | Path, doing: str, error: OSError) -> StorageError:
    """Turn an operating system's error into one clear line."""
    known = _REASONS.get(error.errno or 0)
    if known is None:
        known = f"{error.strerror or error}; check the disk or the mount"
    return StorageError(f"{path}: cannot {doing}: {known}")


@contextmanager
def _reported(path: str | Path, doing: str) -> Generator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise local_error(path, doing, error) from error


def _described(uri: str, state: os.stat_result) -> FileInfo:
    version = f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"
    return FileInfo(uri, state.st_size, version=version)


def _put(part: Path, target: Path, uri: str, over: Over) -> None:
    """Give the file `part` the name `target` where `over` allows it.

    Raises:
        StorageConflict: It does not; `part` is still there.
        OSError: The system refuses.
    """
    if over is ANY:
        part.replace(target)
        return
    if over is None:
        try:
            os.link(part, target)
        except FileExistsError:
            raise conflict(uri, over) from None
        except OSError as error:
            # Some network and FUSE file systems have no links: checked below instead.
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK):
                raise
        else:
            part.unlink(missing_ok=True)
            return
    with _folder_locked(target.parent):
        try:
            there = _described(uri, target.stat()).version
        except FileNotFoundError:
            there = None
        if there != (None if over is None else over.version):
            raise conflict(uri, over)
        part.replace(target)


@contextmanager
def _folder_locked(folder: Path) -> Generator[None]:
    """Keep out other processes that look before they rename; without effect where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # unlocks


class _LocalFile(io.FileIO):
    """A raw file whose failures are StorageErrors: a full disk shows while writing, not while opening."""

    def __init__(self, path: Path, mode: str, shown: str | Path) -> None:
        super().__init__(path, mode)
        self._shown = shown

    def _fail(self, doing: str, error: OSError) -> NoReturn:
        raise local_error(self._shown, doing, error) from error

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self._fail("read", error)

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            self._fail("read", error)

    def write(self, b: ReadableBuffer, /) -> int:
        try:
            return super().write(b)
        except OSError as error:
            self._fail("write", error)


@contextmanager
def written_file(path: Path, shown: str | Path) -> Generator[BinaryIO]:
    """Yield a new file at `path` to write; flushed to the disk at a clean exit, removed on any exception.

    Args:
        path: A path at which nothing is yet.
        shown: The name to use in messages.
    """
    with _reported(shown, "write"):
        raw = _LocalFile(path, "xb", shown)
    with unlinked_on_error(path):
        handle = io.BufferedWriter(raw, _BUFFER_BYTES)
        try:
            yield handle
            # The body may have closed it, as some writers do.
            if not handle.closed:
                handle.flush()
        finally:
            # Closes without flushing: after a failed write a second flush would fail again and hide the
            # reason.
            raw.close()
        with _reported(shown, "write"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class LocalStore:
    """The store of plain files."""

    def open_read(self, file: str | FileInfo) -> BinaryIO:
        """Open a file for reading."""
        uri = file.uri if isinstance(file, FileInfo) else file
        with _reported(uri, "read"):
            return io.BufferedReader(_LocalFile(Path(uri), "rb", uri), _BUFFER_BYTES)

    @contextmanager
    def create(self, uri: str, over: Over = ANY) -> Generator[BinaryIO]:
        """Write to a temporary file beside the target, then rename it over the target where `over` allows it."""
        target = Path(uri)
        with _reported(uri, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A name of the greatest length still leaves room for the temporary one.
        part = target.with_name(f".{target.name[:64]}.{secrets.token_hex(8)}{PART_SUFFIX}")
        with written_file(part, uri) as handle:
            yield handle
        with unlinked_on_error(part), _reported(uri, "write"):
            _put(part, target, uri, over)

    def stat(self, uri: str) -> FileInfo:
        """Describe one file."""
        with _reported(uri, "read"):
            path = Path(uri)
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return _described(uri, found)

    def find(self, uri: str) -> FileInfo | None:
        """Describe one file; None where there is none."""
        try:
            return self.stat(uri)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise

    def exists(self, uri: str) -> bool:
        """Say whether a file or a folder is there."""
        with _reported(uri, "look up"):
            try:
                Path(uri).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def list_files(self, uri: str) -> list[FileInfo]:
        """List the files of a folder, recursively; those still being written are left out."""
        if not self.exists(uri):
            return []
        with _reported(uri, "list"):
            if not Path(uri).is_dir():
                return [self.stat(uri)]
            found: list[FileInfo] = []
            for folder, _, names in os.walk(uri, onerror=_raise):
                for name in names:
                    if name.startswith(".") and name.endswith(PART_SUFFIX):
                        continue
                    path = Path(folder, name)
                    # A dangling link, or a file removed meanwhile, is no file.
                    with suppress(FileNotFoundError):
                        if path.is_file():
                            found.append(_described(str(path), path.stat()))
        return sorted(found, key=lambda info: info.uri)

    def list_folders(self, uri: str) -> list[str]:
        """List the names of a folder's folders; links to folders are none."""
        with _reported(uri, "list"):
            try:
                with os.scandir(uri) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def last_written(self, uri: str) -> datetime | None:
        """Return when the newest file was written, those under construction included; else the folder itself."""
        with _reported(uri, "look up"):
            times: list[int] = []
            for folder, _, names in os.walk(uri, onerror=_raise_unless_missing):
                for name in names:
                    with suppress(FileNotFoundError):
                        times.append(Path(folder, name).lstat().st_mtime_ns)
            if not times:
                with suppress(FileNotFoundError, NotADirectoryError):
                    times.append(Path(uri).stat().st_mtime_ns)
        return datetime.fromtimestamp(max(times) / 1e9, UTC) if times else None

    def remove(self, uri: str) -> None:
        """Remove one file; a missing one is fine."""
        with _reported(uri, "remove"):
            if Path(uri).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            Path(uri).unlink(missing_ok=True)

    def remove_tree(self, uri: str) -> None:
        """Remove a folder and all in it; a missing one is fine."""
        path = Path(uri)
        if path.resolve() == Path(path.anchor or "/").resolve():
            raise UsageError(f"{uri}: refusing to remove the root folder; name the folder to remove")
        with _reported(uri, "remove"):
            if path.is_dir() and not path.is_symlink():
                _remove_folder(path)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def local_folder(self, uri: str) -> Generator[Path]:
        """Yield the folder itself."""
        path = Path(uri)
        if not self.exists(uri):
            raise StorageError(f"{uri}: cannot read: {_REASONS[errno.ENOENT]}")
        if not path.is_dir():
            raise StorageError(f"{uri}: is a file where a folder is expected; name the folder that holds it")
        yield path


def _remove_folder(path: Path) -> None:
    for _ in range(_REMOVALS):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            # Another process removes it as well: what is left is removed here.
            if path.exists():
                continue
        return
    shutil.rmtree(path)


def _raise(error: OSError) -> None:
    raise error


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
