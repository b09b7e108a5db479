"""A store that breaks connections, truncates, throttles and stalls, over real TCP: the data is right or refused."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.objects import gcs, store
from driftline.components.storage.objects.gcs_failures import Retries
from driftline.components.storage.objects.gcs_reader import RangedObject
from tests.support.faulty_proxy import Fault, FaultyProxy, Kind, Seen

QUICK = Retries(deadline_s=20.0, first_delay_s=0.01, longest_delay_s=0.05)
SMALL = b"small " * 1000
RANGE_BYTES, UPLOAD_BYTES = 2 << 20, 8 << 20  # half of the real ones; up to 8 MiB are sent in one request anyway
LARGE = random.Random(2).randbytes(10_000_000)  # more than one request of an upload, and several ranges

PERMANENT = [(401, "no valid Google Cloud credentials"), (403, "roles/storage.objectUser"), (400, "refuses")]


def client_of(proxy: FaultyProxy) -> storage.Client:
    return storage.Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": proxy.endpoint}
    )


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let objects be read and written in smaller parts, so that ten megabytes have several."""
    monkeypatch.setattr(gcs, "UPLOAD_CHUNK_BYTES", UPLOAD_BYTES)
    monkeypatch.setattr(gcs, "RANGE_BYTES", RANGE_BYTES)
    monkeypatch.setitem(RangedObject.__init__.__kwdefaults__, "range_bytes", RANGE_BYTES)


@pytest.fixture
def place(proxy: FaultyProxy, request: pytest.FixtureRequest) -> gcs.GcsStore:
    """A store that is reached through the proxy, and that tries again within milliseconds."""
    delayed = hasattr(request.node, "callspec") and getattr(request.node.callspec.params.get("fault"), "seconds", 0)
    # A delay is waited out this long; elsewhere a busy machine may take its time.
    return gcs.GcsStore(client_of(proxy), retries=QUICK, timeout_s=(5.0, 0.4 if delayed else 1.0))


def put(place: gcs.GcsStore, uri: str, content: bytes, over: store.Over = store.ANY) -> None:
    with place.create(uri, over) as handle:
        handle.write(content)


def got(place: gcs.GcsStore, uri: str) -> bytes:
    with place.open_read(uri) as handle:
        return handle.read()


TRANSIENT = [
    *(Fault("status", status) for status in (408, 429, 500, 502, 503, 504)),
    Fault("refuse"),
    Fault("no-answer"),
    Fault("half-answer"),
    Fault("delay", seconds=1.5),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}-{fault.status}")
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_reads_survive(proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, fault: Fault, content: bytes) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, content)
    proxy.next_faults(fault, fault, where=lambda seen: seen.is_media)
    assert got(place, uri) == content
    proxy.next_faults(fault, where=lambda seen: not seen.is_media)
    assert got(place, uri) == content


def test_a_range_that_comes_short_is_asked_for_again(proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, LARGE)
    proxy.next_faults(Fault("short-answer"), Fault("short-answer"), where=lambda seen: seen.is_media)
    assert got(place, uri) == LARGE
    assert len(proxy.media) == -(-len(LARGE) // RANGE_BYTES) + 2


def test_a_damaged_range_is_refused(proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, tmp_path: Path) -> None:
    uri = f"{gcs_bucket}/m/x"
    store.write_bytes(uri, LARGE)
    proxy.next_faults(Fault("damage"), where=lambda seen: seen.is_media)
    with pytest.raises(StorageError, match="damaged on their way"):
        got(place, uri)
    proxy.next_faults(Fault("damage"), where=lambda seen: seen.is_media)
    with pytest.raises(StorageError, match="damaged on their way"):
        place.download([(store.stat(uri), tmp_path / "folder" / "x")])
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("fault", [*TRANSIENT, Fault("half-sent")], ids=lambda fault: f"{fault.kind}-{fault.status}")
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("over", ["any", "none", "version"])
def test_uploads_survive(
    proxy: FaultyProxy,
    place: gcs.GcsStore,
    gcs_bucket: str,
    fault: Fault,
    content: bytes,
    which: str,
    over: str,
) -> None:
    uri = f"{gcs_bucket}/x"
    if over != "none":
        store.write_bytes(uri, b"before")
    condition = {"any": store.ANY, "none": None}.get(over) if over != "version" else store.stat(uri)
    last = -(-len(content) // UPLOAD_BYTES)
    uploads: list[Seen] = []

    def plan(seen: Seen) -> Fault | None:
        if not seen.is_upload:
            return None
        uploads.append(seen)
        return fault if len(uploads) == (1 if which == "first" else last) else None

    proxy.plan = plan
    put(place, uri, content, condition)
    assert store.read_bytes(uri) == content
    assert store.stat(uri).crc32c == store.crc32c(store.FileInfo(uri, len(content)))
    assert len(uploads) > last  # the fault took place


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", ["half-sent", "status", "no-answer"])
def test_an_upload_that_never_ends_well_leaves_what_was_there(
    proxy: FaultyProxy, gcs_bucket: str, content: bytes, fault: Kind
) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, b"before")
    place = gcs.GcsStore(client_of(proxy), retries=Retries(0.3, 0.01, 0.05))
    chunks: list[int] = []

    def plan(seen: Seen) -> Fault | None:
        if not seen.is_upload:
            return None
        chunks.append(seen.sent)
        # Of a large upload the first part comes through.
        return None if content is LARGE and len(chunks) == 1 else Fault("half-sent" if fault == "no-answer" else fault)

    proxy.plan = plan
    with pytest.raises(StorageError, match=rf"^{uri}: cannot write: [^\n]+cannot be reached[^\n]+run it again$"):
        put(place, uri, content)
    assert store.read_bytes(uri) == b"before"
    assert [info.uri for info in store.list_files(gcs_bucket)] == [uri]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_lost_answer_is_no_conflict_and_another_writer_is_one(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, content: bytes
) -> None:
    uri = f"{gcs_bucket}/x"
    final: Callable[[Seen], bool] = lambda seen: seen.is_upload and seen.sent != UPLOAD_BYTES  # noqa: E731
    proxy.next_faults(Fault("no-answer"), where=final)
    put(place, uri, content, None)
    first = store.stat(uri)
    proxy.next_faults(Fault("no-answer"), where=final)
    put(place, uri, content, first)
    assert store.stat(uri).version != first.version
    # The same bytes by another call are another writer's.
    for over in (None, first):
        with pytest.raises(StorageConflict, match=rf"^{uri}: "):
            put(place, uri, content, over)


def test_a_conflict_that_arises_during_an_upload(proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x"

    def plan(seen: Seen) -> None:
        if seen.method == "PUT" and not store.exists(uri):
            store.write_bytes(uri, b"the other's")

    proxy.plan = plan
    with pytest.raises(StorageConflict, match="is there already"):
        put(place, uri, LARGE, None)
    assert store.read_bytes(uri) == b"the other's"


def test_a_session_that_the_service_forgot_begins_anew(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str
) -> None:
    uri = f"{gcs_bucket}/x"
    for status in (404, 410):
        proxy.next_faults(Fault("status", status), where=lambda seen: seen.method == "PUT")
        put(place, uri, LARGE)
        assert store.read_bytes(uri) == LARGE


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_listing_looking_and_removing_survive(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, fault: Fault
) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, SMALL)
    for call in (
        lambda: [info.uri for info in place.list_files(gcs_bucket)] == [uri],
        lambda: place.stat(uri).size == len(SMALL),
        lambda: place.exists(uri),
        lambda: place.remove(uri) is None,
    ):
        proxy.next_faults(fault)
        assert call()
    assert not store.exists(uri)


@pytest.mark.parametrize(("status", "what"), PERMANENT)
def test_what_cannot_succeed_fails_at_once(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, status: int, what: str
) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, SMALL)
    info = store.stat(uri)
    proxy.plan = lambda seen: Fault("status", status)
    for call, requests in (
        (lambda: place.stat(uri), 1),
        (lambda: got(place, uri), 1),
        (lambda: place.open_read(info).read(), 1),
        (lambda: place.list_files(gcs_bucket), 1),
        (lambda: place.remove(uri), 1),
        (lambda: put(place, uri, SMALL), 2),  # and a look whether it was written after all
    ):
        proxy.seen.clear()
        with pytest.raises(StorageError, match=what) as error:
            call()
        assert "\n" not in str(error.value)
        assert len(proxy.seen) <= requests


@pytest.mark.parametrize("status", [429, 503])
def test_thirty_seconds_without_a_store_are_survived_with_the_default_delays(
    proxy: FaultyProxy, gcs_bucket: str, status: int
) -> None:
    """All ten times as fast."""
    assert gcs.GcsStore(client_of(proxy))._retries == Retries()
    place = gcs.GcsStore(client_of(proxy), retries=Retries(*(seconds / 10 for seconds in astuple(Retries()))))
    survive(proxy, place, f"{gcs_bucket}/x", seconds=3.0, status=status)


def survive(proxy: FaultyProxy, place: gcs.GcsStore, uri: str, seconds: float, status: int) -> None:
    put(place, uri, LARGE)
    # Down in the middle of a read that had begun, and at the beginning of everything else, all at once.
    reading = place.open_read(uri)
    assert reading.read(300_000) == LARGE[:300_000]
    results: dict[str, object] = {}
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: reading.read() == LARGE[300_000:],
        "write": lambda: put(place, f"{uri}-new", LARGE, None),
        "list": lambda: uri in [info.uri for info in place.list_files(uri.rsplit("/", 1)[0])],
    }

    def run(name: str) -> None:
        results[name] = calls[name]()

    threads = [threading.Thread(target=run, args=(name,)) for name in calls]
    proxy.down_for(seconds, status)
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 200)
    reading.close()
    assert time.monotonic() - began >= seconds
    assert results == {"read": True, "write": None, "list": True}
    assert store.read_bytes(f"{uri}-new") == LARGE
    # Not a storm of requests: the delays grow.
    assert len([seen for seen in proxy.seen if not seen.is_media]) < 100


def test_an_outage_longer_than_the_deadline_fails_with_one_line(proxy: FaultyProxy, gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, SMALL)
    proxy.plan = lambda seen: Fault("status", 503)
    place = gcs.GcsStore(client_of(proxy), retries=Retries(0.3, 0.01, 0.05))
    info = store.stat(uri)
    for call in (
        lambda: got(place, uri),
        lambda: place.open_read(info).read(),
        lambda: put(place, uri, SMALL),
        lambda: place.list_files(gcs_bucket),
    ):
        with pytest.raises(StorageError, match=rf"^{gcs_bucket}[^\n]+cannot be reached[^\n]+503[^\n]+run it again$"):
            call()


def test_a_clock_that_jumps_changes_nothing(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rng = time.time, random.Random(3)
    monkeypatch.setattr(time, "time", lambda: real() + rng.uniform(-1e8, 1e8))
    uri = f"{gcs_bucket}/x"
    proxy.down_for(0.2)
    put(place, uri, LARGE)
    info = place.stat(uri)
    proxy.down_for(0.2)
    with place.open_read(info) as handle:
        assert handle.read() == LARGE
    proxy.down_for(0.2)
    assert place.list_files(uri) == [info]


def test_an_object_replaced_while_it_is_read_is_refused(place: gcs.GcsStore, gcs_bucket: str) -> None:
    uri = f"{gcs_bucket}/x"
    store.write_bytes(uri, LARGE)
    before = store.stat(uri)
    with place.open_read(uri) as handle:
        assert handle.read(10) == LARGE[:10]
        store.write_bytes(uri, bytes(len(LARGE)))
        with pytest.raises(StorageError, match="replaced or removed meanwhile"):
            handle.read()
    with place.open_read(before) as handle, pytest.raises(StorageError, match="replaced or removed meanwhile"):
        handle.read()


def test_a_folder_is_downloaded_in_parallel_through_faults(
    proxy: FaultyProxy, place: gcs.GcsStore, gcs_bucket: str
) -> None:
    contents = {f"a{i}/b/c{i}": os.urandom(1 + i * 350_000) for i in range(12)}
    for name, content in contents.items():
        store.write_bytes(f"{gcs_bucket}/m/{name}", content)
    kinds: list[Kind] = ["half-answer", "refuse", "short-answer", "status", "no-answer"]
    rng, lock = random.Random(4), threading.Lock()

    def plan(seen: Seen) -> Fault | None:
        with lock:
            return Fault(rng.choice(kinds)) if seen.is_media and rng.random() < 0.3 else None

    proxy.plan = plan
    with place.local_folder(f"{gcs_bucket}/m") as folder:
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == contents
    # The listing is the only request about metadata.
    assert len([seen for seen in proxy.seen if not seen.is_media]) == 1


def test_a_download_that_fails_ends_the_others(proxy: FaultyProxy, gcs_bucket: str, tmp_path: Path) -> None:
    for i in range(8):
        store.write_bytes(f"{gcs_bucket}/m/{i}", LARGE[:2_500_000])
    place = gcs.GcsStore(client_of(proxy), retries=QUICK)

    def plan(seen: Seen) -> Fault | None:
        if not seen.is_media:
            return None
        return Fault("status", 403) if "%2F3?" in seen.path else Fault("delay", seconds=1.0)

    proxy.plan = plan
    with pytest.raises(StorageError, match=r"/m/3: cannot read: no permission"):
        place.download([(info, tmp_path / info.uri[-1]) for info in store.list_files(f"{gcs_bucket}/m")])
    # The three that had begun beside it are given up, the four after them never begin.
    assert list(tmp_path.iterdir()) == []
    assert {seen.path.partition("?")[0][-1] for seen in proxy.media} == set("0123")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("driftline-download")]
