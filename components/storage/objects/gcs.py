"""Google Cloud Storage: objects read by ranges, uploaded whole and checksummed, listed, removed.

Imported only when a gs:// URI is met, so that users of local files do not wait for Google's libraries. The
libraries themselves honour `STORAGE_EMULATOR_HOST`, with anonymous credentials, when the client is made.
"""

from __future__ import annotations

import functools
import secrets
import tempfile
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.cloud import storage
from requests.adapters import HTTPAdapter

from driftline.components.errors import StorageError, UsageError
from driftline.components.storage.objects.gcs_failures import (
    FAILURES,
    Retries,
    failure,
    is_transient,
    reported,
    status_of,
)
from driftline.components.storage.objects.gcs_reader import RANGE_BYTES, ObjectFile, RangedObject
from driftline.components.storage.objects.local import LocalStore, written_file
from driftline.components.storage.objects.location import (
    ANY,
    GCS_SCHEME,
    FileInfo,
    Over,
    conflict,
    file_crc32c,
    relative_names,
    split_gcs,
)

UPLOAD_CHUNK_BYTES = 16 << 20
"""Bytes of one request of a resumable upload, all of which are held in memory; a multiple of 256 KiB."""

# Metadata of an object: which call wrote it. So a writer whose answer was lost knows its own work again.
_WRITER = "driftline-write"


# Seconds to connect, and to wait for the next bytes: a healthy endpoint answers in well under a second, so
# longer silence means that the connection is dead and a new attempt is the better bet.
_TIMEOUT_S = (10.0, 60.0)
# Connections kept open: several readers with several ranges each; the default of 10 would drop and reopen some.
_CONNECTIONS = 64
# Files downloaded at once, each by several ranges.
_FILES_AT_ONCE = 4


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
        raise failure(GCS_SCHEME, "connect", error) from error


class GcsStore:
    """The store of gs:// objects; for use by any number of threads.

    Args:
        client: A `google.cloud.storage.Client`.
        retries: How long failed requests are tried again.
        timeout_s: Seconds to connect, and to wait for the next bytes.
    """

    def __init__(
        self,
        client: storage.Client,
        *,
        retries: Retries | None = None,
        timeout_s: tuple[float, float] = _TIMEOUT_S,
    ) -> None:
        self._client: Any = client
        self._retries = retries or Retries()
        self._timeout_s = timeout_s
        self._call: dict[str, Any] = {"timeout": timeout_s, "retry": self._retries.of_calls()}
        adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
        for scheme in ("https://", "http://"):
            self._client._http.mount(scheme, adapter)

    def _blob(self, uri: str, **settings: Any) -> Any:
        bucket, name = split_gcs(uri)
        if not name or name.endswith("/"):
            raise StorageError(f"{uri}: is a folder where a file is expected; name an object in it")
        return self._client.bucket(bucket).blob(name, **settings)

    def _listed(self, uri: str, bucket: str, prefix: str, limit: int | None = None) -> list[Any]:
        fields = "items(name,size,crc32c,generation),nextPageToken"
        objects, _ = self._listing(uri, bucket, prefix, fields=fields, max_results=limit)
        return objects

    def _listing(self, uri: str, bucket: str, prefix: str, **settings: Any) -> tuple[list[Any], list[str]]:
        """List objects to the end; with a delimiter also the beginnings of names up to it."""
        try:
            with reported(uri, "list"):
                found = self._client.list_blobs(bucket, prefix=prefix or None, **settings, **self._call)
                return list(found), list(found.prefixes)
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

    def open_read(self, file: str | FileInfo) -> BinaryIO:
        """Open an object for reading by ranges; without a request where its version is known."""
        return ObjectFile(self._ranged(file))

    def _ranged(self, file: str | FileInfo, *, in_order: bool = False) -> RangedObject:
        info = (
            file
            if isinstance(file, FileInfo) and file.version
            else self.stat(file.uri if isinstance(file, FileInfo) else file)
        )

        def fetch(start: int, end: int, stop: threading.Event) -> bytes:
            def attempt() -> bytes:
                # One generation: these bytes, or a failure. A new blob each time, since an answer overwrites its
                # generation. raw_download: as stored, whose size and checksum are known, also if gzip-encoded.
                data: bytes = self._blob(info.uri, generation=int(info.version)).download_as_bytes(
                    start=start,
                    end=end - 1,
                    raw_download=True,
                    single_shot_download=True,
                    checksum=None,
                    timeout=self._timeout_s,
                    retry=None,
                )
                if len(data) != end - start:
                    raise ConnectionError(f"bytes {start} to {end} were asked for, {len(data)} bytes came")
                return data

            with reported(info.uri, "read"):
                return self._retries.run(attempt, stop)

        return RangedObject(info.uri, info.size, info.crc32c, fetch, in_order=in_order)

    @contextmanager
    def create(self, uri: str, over: Over = ANY) -> Generator[BinaryIO]:
        """Write to a temporary local file, then upload it whole with its checksum.

        Nothing is sent before the body has ended cleanly, so an exception, or the end of the process, cannot
        finalise half an object. The service compares checksum and version before the object becomes visible.
        """
        self._blob(uri)
        bucket, _ = split_gcs(uri)
        with _scratch_folder(uri) as scratch:
            path = scratch / "content"
            with written_file(path, f"{uri} (its temporary copy in {scratch.parent}, see TMPDIR)") as handle:
                yield handle
            with reported(uri, "write"):
                upload(self._client.bucket(bucket), uri, path, over, self._retries, self._timeout_s)

    def stat(self, uri: str) -> FileInfo:
        """Describe one object; no download."""
        blob = self._blob(uri)
        try:
            with reported(uri, "read"):
                blob.reload(**self._call)
        except StorageError as error:
            if isinstance(error.__cause__, api_errors.NotFound):
                raise self._missing(uri) from error
            raise
        return _described(uri, blob)

    def find(self, uri: str) -> FileInfo | None:
        """Describe one object; None where there is none."""
        return self._object(uri, *split_gcs(uri))

    def _object(self, uri: str, bucket: str, name: str) -> FileInfo | None:
        """Describe one object, or None; by a listing, which tells a missing bucket from a missing object."""
        # Of all names that begin so, the very name is the first.
        for blob in self._listed(uri, bucket, name, limit=1):
            if blob.name == name and not name.endswith("/"):
                return _described(f"{GCS_SCHEME}{bucket}/{name}", blob)
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
            _described(prefix + blob.name, blob)
            for blob in self._listed(uri, bucket, _under(name))
            # The console marks folders by empty objects whose names end in a slash.
            if not blob.name.endswith("/")
        ]
        if not found and name:
            single = self._object(uri, bucket, name)
            return [] if single is None else [single]
        return sorted(found, key=lambda info: info.uri)

    def list_folders(self, uri: str) -> list[str]:
        """List what stands between `uri/` and the next slash in the names of objects."""
        bucket, name = split_gcs(uri)
        prefix = _under(name.rstrip("/"))
        _, found = self._listing(uri, bucket, prefix, delimiter="/", fields="prefixes,nextPageToken")
        names = (folder[len(prefix) :].rstrip("/") for folder in found)
        return sorted(name for name in names if name)  # empty where an object's name holds two slashes

    def last_written(self, uri: str) -> datetime | None:
        """Return when the newest object under `uri/` was made, by the service's clock."""
        bucket, name = split_gcs(uri)
        fields = "items(name,timeCreated),nextPageToken"
        found, _ = self._listing(uri, bucket, _under(name.rstrip("/")), fields=fields)
        return max((blob.time_created for blob in found if not blob.name.endswith("/")), default=None)

    def remove(self, uri: str) -> None:
        """Remove one object; a missing one is fine."""
        try:
            with reported(uri, "remove"):
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
        files = relative_names(uri, self.list_files(uri))
        with _scratch_folder(uri) as scratch:
            self.download((info, scratch / name) for name, info in files.items())
            yield scratch

    def download(self, files: Iterable[tuple[FileInfo, Path]]) -> None:
        """Download objects to local paths, several at once.

        Each file appears, or takes the place of another one, once it is whole and its checksum is right. Folders
        are made. After a failure, files that were finished stay. Memory: about 40 MiB for each of four at once.

        Raises:
            StorageError: An object cannot be read, is damaged on its way, or a file cannot be written.
        """
        stop = threading.Event()

        def copy(info: FileInfo, target: Path) -> None:
            ranged = self._ranged(info, in_order=True)
            with closing(ranged), LocalStore().create(str(target)) as handle:
                # The last of these also compares the checksum.
                for start in range(0, ranged.size, RANGE_BYTES):
                    if stop.is_set():
                        raise CancelledError
                    handle.write(ranged.read_at(start, RANGE_BYTES))

        def copy_unless_stopped(info: FileInfo, target: Path) -> None:
            try:
                if not stop.is_set():
                    copy(info, target)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(_FILES_AT_ONCE, "driftline-download") as threads:
            try:
                done = [threads.submit(copy_unless_stopped, info, target) for info, target in files]
                wait(done, return_when=FIRST_EXCEPTION)
            finally:
                # Also when interrupted here: the others end at their next bytes.
                stop.set()
        errors = [error for error in (one.exception() for one in done) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, CancelledError)):
            raise error


def _under(name: str) -> str:
    """How the names of objects in a folder begin."""
    return f"{name}/" if name else ""


def _described(uri: str, blob: Any) -> FileInfo:
    return FileInfo(uri, int(blob.size), blob.crc32c, str(blob.generation))


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


class Bucket(Protocol):
    """Makes blobs; that of google-cloud-storage does."""

    def blob(self, name: str, chunk_size: int | None = None) -> Any:
        """A blob that is not looked up."""
        ...


class _SessionLostError(ConnectionError):
    """The service has forgotten an upload half-way: it begins anew."""


def upload(bucket: Bucket, uri: str, path: Path, over: Over, retries: Retries, timeout_s: tuple[float, float]) -> None:
    """Upload a file of at most 5 TiB as the object `uri`.

    Its CRC-32C is stated before its content, so that the service refuses a truncated or damaged upload before the
    object becomes visible. An upload of which the answer was lost, and which then meets its own object, has
    succeeded.

    Args:
        bucket: Where to.
        uri: The object.
        path: The content.
        over: What may be written over.
        retries: How long to try.
        timeout_s: Seconds to connect, and to wait for bytes.

    Raises:
        StorageConflict: Something else is there than `over` says.
        StorageError: There is no such bucket.
        Exception: One of FAILURES.
    """
    writer, checksum = secrets.token_hex(16), file_crc32c(path)
    _, name = split_gcs(uri)
    generation = None if over is ANY else 0 if over is None else int(over.version)

    def is_ours() -> bool:
        blob = bucket.blob(name)
        try:
            blob.reload(timeout=timeout_s, retry=retries.of_calls())
        except FAILURES as error:
            if status_of(error) != 404:
                raise
            return False
        return (blob.metadata or {}).get(_WRITER) == writer and blob.crc32c == checksum

    def attempt() -> None:
        blob = bucket.blob(name, chunk_size=UPLOAD_CHUNK_BYTES)
        blob.crc32c = checksum
        blob.metadata = {_WRITER: writer}
        try:
            # No checksum for the library to take: it would compare only after a large object is visible.
            blob.upload_from_filename(
                str(path),
                content_type="application/octet-stream",
                checksum=None,
                if_generation_match=generation,
                timeout=timeout_s,
                retry=retries.of_uploads(),
            )
        except FAILURES as error:
            if is_transient(error):
                raise
            if is_ours():
                return
            status = status_of(error)
            if status == 412:
                raise conflict(uri, over) from error
            if status in (404, 410) and _of_session(error):
                raise _SessionLostError("the service has lost the upload half-way") from error
            if status == 404:
                bucket_name, _ = split_gcs(uri)
                raise StorageError(
                    f"{uri}: there is no bucket {bucket_name!r}; check its name, or create it"
                ) from error
            raise
        except ValueError as error:
            # The library's word where the service kept less of a request than was sent, as it may.
            raise _SessionLostError(f"the upload broke off ({error})") from error

    retries.run(attempt)


def _of_session(error: BaseException) -> bool:
    """Say whether a failure is about a resumable upload under way, not about its beginning."""
    response = getattr(error, "response", None)
    request = getattr(response, "request", None)
    return getattr(request, "method", None) == "PUT"
