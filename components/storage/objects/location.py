"""Names of files (local paths, `file://` and `gs://` URIs), their versions and checksums, and what a store offers."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Literal, Protocol, TypeAlias
from urllib.parse import unquote

import google_crc32c

from driftline.components.errors import StorageConflict, StorageError, UsageError

# Bytes read at a time: enough that the checksum, at gigabytes a second, is not held up by calls.
_BLOCK_BYTES = 1 << 20


GCS_SCHEME = "gs://"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file without reading it.

    Attributes:
        uri: `gs://bucket/path`, or a plain local path.
        size: Bytes.
        crc32c: Base64 of the big-endian CRC-32C, as Google Cloud Storage reports it; None where it is known
            only by reading the file (`store.crc32c` does so).
        version: Which of the contents that its name has had: an object's generation; a local file's inode, time
            of change in ns and size. Good for comparing and for `store.create` alone. Empty where unknown.
    """

    uri: str
    size: int
    crc32c: str | None = None
    version: str = ""


class _Any(Enum):
    ANY = "any"


ANY: Final = _Any.ANY
"""For `store.create`: write over whatever is there."""

Over: TypeAlias = FileInfo | Literal[_Any.ANY] | None
"""What may be written over: anything (`ANY`), nothing (None), or one version of a file."""


class Store(Protocol):
    """What a place for files must offer; `store` documents each function. Failures are StorageErrors."""

    def open_read(self, file: str | FileInfo) -> BinaryIO:
        """Open for reading; seekable."""
        ...

    def create(self, uri: str, over: Over = ANY) -> AbstractContextManager[BinaryIO]:
        """Write a file that becomes visible whole, at a clean exit."""
        ...

    def stat(self, uri: str) -> FileInfo:
        """Describe one file."""
        ...

    def find(self, uri: str) -> FileInfo | None:
        """Describe one file; None where there is none."""
        ...

    def exists(self, uri: str) -> bool:
        """Say whether a file or a folder is there."""
        ...

    def list_files(self, uri: str) -> list[FileInfo]:
        """List a folder's files, recursively."""
        ...

    def list_folders(self, uri: str) -> list[str]:
        """List the names of the folders right below a folder."""
        ...

    def last_written(self, uri: str) -> datetime | None:
        """Say when the newest file of a folder was written."""
        ...

    def remove(self, uri: str) -> None:
        """Remove one file."""
        ...

    def remove_tree(self, uri: str) -> None:
        """Remove a folder and all in it."""
        ...

    def local_folder(self, uri: str) -> AbstractContextManager[Path]:
        """Yield the folder as a local one."""
        ...


def is_gcs(uri: str) -> bool:
    """Say whether `uri` names an object of Google Cloud Storage."""
    return uri.startswith(GCS_SCHEME)


def normalised(uri: str) -> str:
    """Check a URI, and turn `file://` ones into plain paths.

    Raises:
        UsageError: It is empty, of an unknown scheme, or holds a NUL character.
    """
    if not uri or "\0" in uri:
        raise UsageError(
            f"{uri!r} does not name a file or folder: give a local path or gs://bucket/path without NUL characters"
        )
    scheme = _SCHEME.match(uri)
    if scheme is None or is_gcs(uri):
        return uri
    if scheme[1].lower() != "file":
        raise UsageError(f"{uri}: {scheme[1]}:// is not supported; give a local path or gs://bucket/path")
    path = unquote(uri[len("file://") :])
    if not path.startswith("/"):
        raise UsageError(f"{uri}: a file URI holds an absolute path after file://, such as file:///data/texts")
    return path


def split_gcs(uri: str) -> tuple[str, str]:
    """Split `gs://bucket/path` into the bucket and the object's name (empty for the bucket itself).

    Raises:
        UsageError: The bucket's name is not one that Google Cloud Storage allows.
    """
    bucket, _, name = uri[len(GCS_SCHEME) :].partition("/")
    if _BUCKET.match(bucket) is None:
        raise UsageError(
            f"{uri}: {bucket!r} is not a bucket's name (3 to 222 lower-case letters, digits, '.', '_' or '-'); "
            "give gs://bucket/path"
        )
    return bucket, name


def join(uri: str, *parts: str) -> str:
    """Append path components to a local path or a gs:// URI, with one slash between each.

    `join("gs://bucket/", "a", "b/c")` is `"gs://bucket/a/b/c"`.

    Raises:
        UsageError: The URI is empty, of an unknown scheme, or a gs:// one without a bucket.
    """
    base = normalised(uri)
    if is_gcs(base):
        split_gcs(base)  # `gs://` alone would lose its slashes below, and become a local path
    for part in parts:
        piece = part.strip("/")
        if piece:
            base = f"{base if base == '/' else base.rstrip('/') + '/'}{piece}"
    return base


@contextmanager
def unlinked_on_error(path: Path) -> Generator[None]:
    """Remove the file at `path` when the body fails, whatever the failure."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            path.unlink(missing_ok=True)


def conflict(uri: str, over: Over) -> StorageConflict:
    """The error for a file that is not what was to be written over."""
    if over is None:
        return StorageConflict(
            f"{uri}: is there already, where nothing was expected; it stays as it is: look at it, then write over it, "
            "or choose another name"
        )
    return StorageConflict(
        f"{uri}: was replaced or removed since it was looked at; what is there stays as it is: look at it again"
    )


def checked_version(uri: str, over: FileInfo) -> str:
    """The version that is to be written over.

    Raises:
        UsageError: It is unknown.
    """
    if not over.version:
        raise UsageError(f"{uri}: the version to write over is unknown; describe the file by store.stat first")
    return over.version


def relative_names(uri: str, files: list[FileInfo]) -> dict[str, FileInfo]:
    """The names, within the gs:// folder `uri`, of the objects that were found there.

    Raises:
        StorageError: There are none, `uri` is an object itself, or a name cannot be one of a local file.
    """
    base = uri.rstrip("/") + "/"
    if not files:
        raise StorageError(f"{uri}: there is no object under this folder; check the path")
    if files[0].uri == uri.rstrip("/"):
        raise StorageError(f"{uri}: is a file where a folder is expected; name the folder that holds it")
    names: dict[str, FileInfo] = {}
    for info in files:
        name = info.uri[len(base) :]
        # An object's name may hold anything: none may lead out of the folder.
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or "\0" in name or str(plain) != name:
            raise StorageError(f"{info.uri}: the object's name is not a plain path; rename the object")
        names[name] = info
    for name, info in names.items():
        if any(str(parent) in names for parent in PurePosixPath(name).parents):
            raise StorageError(f"{info.uri}: an object is named like its folder; rename one of them")
    return names


def crc32c_text(checksum: google_crc32c.Checksum) -> str:
    """Base64 of the big-endian CRC-32C of what a checksum has seen."""
    return base64.b64encode(checksum.digest()).decode("ascii")


def stream_crc32c(stream: BinaryIO) -> str:
    """Base64 of the big-endian CRC-32C of what is left of a stream. Memory: 2 MiB."""
    checksum = google_crc32c.Checksum()
    while block := stream.read(_BLOCK_BYTES):
        checksum.update(block)
    return crc32c_text(checksum)


def file_crc32c(path: Path) -> str:
    """Base64 of the big-endian CRC-32C of a local file."""
    with path.open("rb") as stream:
        return stream_crc32c(stream)
