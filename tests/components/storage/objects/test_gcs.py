"""What only Google Cloud Storage can do wrong."""

from __future__ import annotations

import gzip
import socket

import pytest
import requests
from google.api_core import exceptions as api_errors
from google.auth import exceptions as auth_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from driftline.components.errors import StorageError
from driftline.components.storage.objects import gcs, gcs_reader, store
from driftline.components.storage.objects.gcs_failures import Retries, failure, is_transient
from driftline.components.storage.objects.location import relative_names


def test_a_missing_bucket_is_told_from_a_missing_object(gcs_bucket: str) -> None:
    uri = "gs://no-such-bucket/folder/x"
    for call in (
        store.read_bytes,
        store.stat,
        store.exists,
        store.list_files,
        store.remove,
        store.remove_tree,
    ):
        with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
            call(uri)
    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
        store.write_bytes(uri, b"x")
    with pytest.raises(StorageError, match="there is no bucket"), store.local_folder("gs://no-such-bucket/m"):
        pass
    with pytest.raises(StorageError, match="no such object in the bucket"):
        store.read_bytes(f"{gcs_bucket}/x")


def test_a_service_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        # Bound, not listening: connections are refused.
        taken.bind(("127.0.0.1", 0))
        client = storage.Client(
            project="p",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": f"http://127.0.0.1:{taken.getsockname()[1]}"},
        )
        place = gcs.GcsStore(client, retries=Retries(0.5, 0.05))
        with pytest.raises(StorageError, match="cannot be reached") as error:
            place.stat("gs://bucket/x")
        with pytest.raises(StorageError, match="cannot be reached"), place.create("gs://bucket/x") as handle:
            handle.write(b"x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (api_errors.Forbidden("denied\nby policy"), "roles/storage.objectUser"),
        (api_errors.Unauthorized("who"), "no valid Google Cloud credentials"),
        (auth_errors.DefaultCredentialsError("none"), "no valid Google Cloud credentials"),
        (auth_errors.TransportError("down"), "token service cannot be reached"),
        (api_errors.BadRequest("bad\nname"), "refuses the request"),
        (api_errors.TooManyRequests("slow down"), "cannot be reached"),
        (api_errors.RetryError("deadline", ValueError()), "cannot be reached"),
        (requests.exceptions.ConnectionError("reset"), "cannot be reached"),
    ],
)
def test_every_failure_says_what_to_do(error: Exception, what: str) -> None:
    message = str(failure("gs://b/x", "read", error))
    assert message.startswith("gs://b/x: cannot read: ")
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (api_errors.TooManyRequests("slow down"), True),
        (api_errors.ServiceUnavailable("x"), True),
        (api_errors.InternalServerError("x"), True),
        (api_errors.BadGateway("x"), True),
        (api_errors.GatewayTimeout("x"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (requests.exceptions.ConnectionError("reset"), True),
        (requests.exceptions.ReadTimeout("slow"), True),
        (auth_errors.TransportError("down"), True),
        (auth_errors.RefreshError("busy", retryable=True), True),
        (auth_errors.RefreshError("revoked"), False),
        (api_errors.Forbidden("x"), False),
        (api_errors.NotFound("x"), False),
        (api_errors.PreconditionFailed("x"), False),
        (api_errors.BadRequest("x"), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_worth_another_attempt(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected


@pytest.mark.parametrize("size", [10, 20_000_000])
def test_the_service_refuses_an_upload_damaged_on_its_way(
    gcs_bucket: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(gcs, "file_crc32c", lambda path: "AAAAAA==")
    with pytest.raises(StorageError, match="refuses the request"):
        store.write_bytes(f"{gcs_bucket}/x", b"x" * size)
    assert not store.exists(f"{gcs_bucket}/x")


def test_a_download_damaged_on_its_way_is_refused(gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_bytes(f"{gcs_bucket}/m/x", b"content")
    monkeypatch.setattr(gcs_reader, "crc32c_text", lambda checksum: "AAAAAA==")
    with pytest.raises(StorageError, match="damaged on their way"), store.local_folder(f"{gcs_bucket}/m"):
        pass


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a//b", "./a", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str) -> None:
    # The emulator takes no such names, the service does.
    info = store.FileInfo(f"gs://driftline-tests/m/{name}", 1, None)
    with pytest.raises(StorageError, match=r"^gs://driftline-tests/m/(?s:.)+: the object's name is not a plain path"):
        relative_names("gs://driftline-tests/m", [info])


def test_an_object_named_like_a_folder(gcs_bucket: str) -> None:
    store.write_bytes(f"{gcs_bucket}/m/a", b"x")
    store.write_bytes(f"{gcs_bucket}/m/a/b", b"x")
    with pytest.raises(StorageError, match="named like its folder"), store.local_folder(f"{gcs_bucket}/m"):
        pass


def test_the_consoles_folder_markers_are_no_files(gcs_bucket: str) -> None:
    bucket, name = gcs_bucket.removeprefix("gs://").split("/")
    client = gcs.default_store()._client
    client.bucket(bucket).blob(f"{name}/folder/").upload_from_string(b"")
    assert store.list_files(gcs_bucket) == []
    assert store.exists(f"{gcs_bucket}/folder")


def test_objects_with_gzip_encoding_are_read_as_stored(gcs_bucket: str) -> None:
    bucket, name = gcs_bucket.removeprefix("gs://").split("/")
    blob = gcs.default_store()._client.bucket(bucket).blob(f"{name}/x")
    blob.content_encoding = "gzip"
    content = gzip.compress(b"text " * 100)
    blob.upload_from_string(content)
    assert store.read_bytes(f"{gcs_bucket}/x") == content
    with store.local_folder(gcs_bucket) as folder:
        assert (folder / "x").read_bytes() == content


def test_a_checksum_that_the_metadata_lacks_is_computed(gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, b"content")
    known = store.stat(uri)
    assert known.crc32c is not None
    assert store.crc32c(store.FileInfo(uri, known.size, None)) == known.crc32c
