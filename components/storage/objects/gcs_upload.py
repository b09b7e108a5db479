"""Uploads to Google Cloud Storage: resumable, in bounded memory, and only over what was meant to be written over."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Protocol

from driftline.components.errors import StorageError
from driftline.components.storage.objects.checksum import file_crc32c
from driftline.components.storage.objects.gcs_failures import FAILURES, Retries, is_transient, status_of
from driftline.components.storage.objects.location import ANY, Over, conflict, split_gcs

UPLOAD_CHUNK_BYTES = 16 << 20
"""Bytes of one request of a resumable upload, all of which are held in memory; a multiple of 256 KiB."""

# Metadata of an object: which call wrote it. So a writer whose answer was lost knows its own work again.
_WRITER = "driftline-write"


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
