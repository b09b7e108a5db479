"""Google Cloud Storage: objects read by ranges, uploaded whole and checksummed, listed, removed.

Imported only when a gs:// URI is met, so that users of local files do not wait for Google's libraries. The
libraries themselves honour `STORAGE_EMULATOR_HOST`, with anonymous credentials, when the client is made.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import requests
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import storage
from google.cloud.storage import exceptions as storage_errors
from google.cloud.storage.retry import DEFAULT_RETRY

from driftline.components.errors import StorageError, UsageError
from driftline.components.storage.checksum import file_crc32c
from driftline.components.storage.local import as_binary, written_file
from driftline.components.storage.location import GCS_SCHEME, FileInfo, split_gcs

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Seconds to connect, and to wait for the next bytes: a healthy endpoint answers in well under a second, so
# longer silence means that the connection is dead and a new attempt is the better bet.
_REQUEST_TIMEOUT_S = (10.0, 60.0)
# Seconds for all attempts at one request together: rides out a minute of throttling or a load balancer's
# restart, and still fails a step while its operator is looking.
RETRY_DEADLINE_S = 120.0
# Bytes of one ranged read: large enough that latency is small against transfer, small enough that reading a
# Parquet footer does not fetch the file.
_READ_CHUNK_BYTES = 4 << 20
# Bytes of one request of a resumable upload, all of which are held in memory; a multiple of 256 KiB.
_UPLOAD_CHUNK_BYTES = 16 << 20

_FAILURES = (
    api_errors.GoogleAPIError,
    auth_errors.GoogleAuthError,
    storage_errors.InvalidResponse,
    storage_errors.DataCorruption,
    requests.exceptions.RequestException,
)


@functools.cache
def default_store() -> GcsStore:
    """The process's store, with one client: made at the first gs:// URI, from the environment of that moment.

    Raises:
        StorageError: No credentials are to be found.
    """
    try:
        # The project only matters to calls that make buckets, and none is made here.
        return GcsStore(storage.Client(project=None))
    except auth_errors.GoogleAuthError as error:
        raise _failure(GCS_SCHEME, "connect", error) from error


def _status(error: Exception) -> int | None:
    if isinstance(error, api_errors.GoogleAPICallError):
        return None if error.code is None else int(error.code)
    if isinstance(error, storage_errors.InvalidResponse):
        return int(error.response.status_code)
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _failure(uri: str, doing: str, error: Exception) -> StorageError:
    """Turn a library's error into one clear line."""
    status = _status(error)
    if isinstance(error, auth_errors.TransportError):
        reason = "Google's token service cannot be reached; check the network"
    elif isinstance(error, auth_errors.GoogleAuthError) or status == 401:
        reason = "no valid Google Cloud credentials; run as a service account (Workload Identity) or set them up"
    elif status == 403:
        reason = "no permission; grant this service account roles/storage.objectUser on the bucket"
    elif status == 404:
        reason = "there is no such object; check the URI, and whether it was replaced or removed meanwhile"
    elif isinstance(error, storage_errors.DataCorruption):
        reason = "the bytes were damaged on their way (their CRC-32C differs); run it again"
    elif status is not None and 400 <= status < 500 and status not in (408, 429):
        reason = f"Google Cloud Storage refuses the request ({_one_line(error)}); check the URI"
    else:
        reason = f"Google Cloud Storage cannot be reached ({_one_line(error)}); check the network and run it again"
    return StorageError(f"{uri}: cannot {doing}: {reason}")


@contextmanager
def _reported(uri: str, doing: str) -> Generator[None]:
    try:
        yield
    except _FAILURES as error:
        raise _failure(uri, doing, error) from error


class _ObjectReader(io.RawIOBase):
    """An object's bytes as stored, read by ranges; failures are StorageErrors."""

    def __init__(self, uri: str, reader: Any) -> None:
        self._uri = uri
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        with _reported(self._uri, "read"):
            data: bytes = self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with _reported(self._uri, "read"):
            return self._reader.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with _reported(self._uri, "read"):
            return self._reader.seek(offset, whence)


class GcsStore:
    """The store of gs:// objects.

    Args:
        client: A `google.cloud.storage.Client`.
        retry_deadline_s: Seconds for all attempts at one request together.
    """

    def __init__(self, client: storage.Client, *, retry_deadline_s: float = RETRY_DEADLINE_S) -> None:
        self._client: Any = client
        self._call: dict[str, Any] = {
            "timeout": _REQUEST_TIMEOUT_S,
            "retry": DEFAULT_RETRY.with_timeout(retry_deadline_s),
        }

    def _blob(self, uri: str, **settings: Any) -> Any:
        bucket, name = split_gcs(uri)
        if not name or name.endswith("/"):
            raise StorageError(f"{uri}: is a folder where a file is expected; name an object in it")
        return self._client.bucket(bucket).blob(name, **settings)

    def _listed(self, uri: str, bucket: str, prefix: str, limit: int | None = None) -> list[Any]:
        fields = "items(name,size,crc32c),nextPageToken"
        try:
            with _reported(uri, "list"):
                return list(
                    self._client.list_blobs(
                        bucket, prefix=prefix or None, max_results=limit, fields=fields, **self._call
                    )
                )
        except StorageError as error:
            if isinstance(error.__cause__, api_errors.NotFound):
                raise StorageError(f"{uri}: there is no bucket {bucket!r}; check its name, or create it") from error
            raise

    def _missing(self, uri: str) -> StorageError:
        """Say why an object is not there. Raises where the bucket is missing or may not be listed."""
        bucket, name = split_gcs(uri)
        if self._listed(uri, bucket, f"{name}/", limit=1):
            return StorageError(f"{uri}: is a folder where a file is expected; name an object in it")
        return StorageError(f"{uri}: there is no such object in the bucket; check the path")

    def _found(self, uri: str, **settings: Any) -> Any:
        blob = self._blob(uri, **settings)
        try:
            with _reported(uri, "read"):
                # Also fixes the generation: later reads get these bytes or fail.
                blob.reload(**self._call)
        except StorageError as error:
            if isinstance(error.__cause__, api_errors.NotFound):
                raise self._missing(uri) from error
            raise
        return blob

    def open_read(self, uri: str) -> BinaryIO:
        """Open an object for reading by ranges."""
        blob = self._found(uri)
        # raw_download: the bytes as stored, whose size and checksum are known, also for gzip-encoded objects.
        reader = blob.open("rb", chunk_size=_READ_CHUNK_BYTES, raw_download=True, **self._call)
        return as_binary(_ObjectReader(uri, reader))

    @contextmanager
    def create(self, uri: str) -> Generator[BinaryIO]:
        """Write to a temporary local file, then upload it whole with its checksum.

        Nothing is sent before the body has ended cleanly, so an exception, or the end of the process, cannot
        finalise half an object. The service compares the checksum before the object becomes visible.
        """
        blob = self._blob(uri, chunk_size=_UPLOAD_CHUNK_BYTES)
        with _scratch_folder(uri) as scratch:
            path = scratch / "content"
            with written_file(path, uri) as handle:
                yield handle
            # In the metadata sent first: the service compares it before the object becomes visible, whereas
            # the library's own check of a large upload comes after.
            blob.crc32c = file_crc32c(path)
            try:
                with _reported(uri, "write"):
                    blob.upload_from_filename(
                        str(path), content_type="application/octet-stream", checksum=None, **self._call
                    )
            except StorageError as error:
                if isinstance(error.__cause__, Exception) and _status(error.__cause__) == 404:
                    bucket, _ = split_gcs(uri)
                    raise StorageError(f"{uri}: there is no bucket {bucket!r}; check its name, or create it") from error
                raise

    def stat(self, uri: str) -> FileInfo:
        """Describe one object; no download."""
        blob = self._found(uri)
        return FileInfo(uri, int(blob.size), blob.crc32c)

    def _object(self, uri: str, bucket: str, name: str) -> FileInfo | None:
        """Describe one object, or None; by a listing, which tells a missing bucket from a missing object."""
        # Of all names that begin so, the very name is the first.
        for blob in self._listed(uri, bucket, name, limit=1):
            if blob.name == name and not name.endswith("/"):
                return FileInfo(f"{GCS_SCHEME}{bucket}/{name}", int(blob.size), blob.crc32c)
        return None

    def exists(self, uri: str) -> bool:
        """Say whether an object, or any object under `uri/`, is there."""
        bucket, name = split_gcs(uri)
        if not name:
            self._listed(uri, bucket, "", limit=1)
            return True
        if self._object(uri, bucket, name) is not None:
            return True
        return bool(self._listed(uri, bucket, f"{name.rstrip('/')}/", limit=1))

    def list_files(self, uri: str) -> list[FileInfo]:
        """List the objects under `uri/`, or the object `uri` itself."""
        bucket, name = split_gcs(uri)
        name = name.rstrip("/")
        prefix = f"{GCS_SCHEME}{bucket}/"
        found = [
            FileInfo(prefix + blob.name, int(blob.size), blob.crc32c)
            for blob in self._listed(uri, bucket, f"{name}/" if name else "")
            # The console marks folders by empty objects whose names end in a slash.
            if not blob.name.endswith("/")
        ]
        if not found and name:
            single = self._object(uri, bucket, name)
            return [] if single is None else [single]
        return sorted(found, key=lambda info: info.uri)

    def remove(self, uri: str) -> None:
        """Remove one object; a missing one is fine."""
        try:
            with _reported(uri, "remove"):
                self._blob(uri).delete(**self._call)
        except StorageError as error:
            if not isinstance(error.__cause__, api_errors.NotFound):
                raise
            missing = self._missing(uri)
            if "is a folder" in str(missing):
                raise missing from error

    def remove_tree(self, uri: str) -> None:
        """Remove all objects under `uri/`, or the object `uri` itself; none is fine."""
        bucket, name = split_gcs(uri)
        if not name.strip("/"):
            raise UsageError(f"{uri}: refusing to empty the bucket {bucket!r}; name a folder in it")
        for info in self.list_files(uri):
            self.remove(info.uri)

    @contextmanager
    def local_folder(self, uri: str) -> Generator[Path]:
        """Download every object under `uri/` to a temporary folder, checksum by checksum."""
        files = self.list_files(uri)
        base = uri.rstrip("/") + "/"
        if not files:
            raise StorageError(f"{uri}: there is no object under this folder; check the path")
        if files[0].uri == uri.rstrip("/"):
            raise StorageError(f"{uri}: is a file where a folder is expected; name the folder that holds it")
        with _scratch_folder(uri) as scratch:
            for info in files:
                self._download(info, scratch, info.uri[len(base) :])
            yield scratch

    def _download(self, info: FileInfo, folder: Path, name: str) -> None:
        # An object's name may hold anything: none may lead out of the folder.
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise StorageError(f"{info.uri}: the object's name is not a plain path; rename the object")
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{info.uri}: an object is named like its folder; rename one of them") from error
        blob = self._found(info.uri)
        with written_file(target, info.uri) as handle, _reported(info.uri, "read"):
            blob.download_to_file(handle, raw_download=True, checksum=None, **self._call)
        if blob.crc32c is not None and file_crc32c(target) != blob.crc32c:
            raise StorageError(
                f"{info.uri}: cannot read: the bytes were damaged on their way (their CRC-32C differs); run it again"
            )


@contextmanager
def _scratch_folder(uri: str) -> Generator[Path]:
    """A temporary local folder, removed afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="driftline-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"{uri}: no temporary folder can be made ({error.strerror}); free some space, or set TMPDIR"
        ) from error
    with folder as path:
        yield Path(path)
