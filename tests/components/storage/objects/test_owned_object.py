"""An object that its owner replaces, on stores that conflict, lose answers, and are late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.objects import gcs, store
from driftline.components.storage.objects.gcs_failures import Retries
from driftline.components.storage.objects.owned_object import OwnedObject, Replacement
from tests.components.storage.objects.test_gcs_faults import client_of
from tests.support.faulty_proxy import Fault, FaultyProxy

WRITTEN, ALREADY_OURS, LOST = Replacement
AWAY, CONFLICT = StorageError("away"), StorageConflict("something else is there")


@pytest.fixture
def uri(place: str) -> str:
    """An object that is not there yet."""
    return store.join(place, "state.json")


@pytest.fixture
def on_write(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Disturb the next write: something happens before it, it takes place or not, it is answered with an error."""
    write = store.write_bytes

    def disturb(
        fails: StorageError | None = None, *, before: Callable[[], Any] = lambda: None, happens: bool = True
    ) -> None:
        def disturbed(uri: str, content: bytes, *, over: store.Over = store.ANY) -> None:
            monkeypatch.setattr(store, "write_bytes", write)
            before()
            if happens:
                write(uri, content, over=over)
            if fails is not None:
                raise fails

        monkeypatch.setattr(store, "write_bytes", disturbed)

    return disturb


def fail(owned: OwnedObject, content: bytes) -> None:
    with pytest.raises(StorageError, match="away"):
        owned.replace(content)


def test_it_is_replaced_again_and_again(uri: str) -> None:
    owned = OwnedObject.look_up(uri)
    assert owned.seen is None
    assert owned.is_current()
    for content in (b"first", b"second", b"second"):
        assert owned.replace(content) is WRITTEN
        assert owned.seen == store.stat(uri)
        assert owned.is_current()
        assert store.read_bytes(uri) == content


def test_of_two_owners_the_second_to_write_has_lost_until_it_looks_again(uri: str) -> None:
    assert OwnedObject(uri).replace(b"before") is WRITTEN
    first, second = OwnedObject.look_up(uri), OwnedObject.look_up(uri)
    assert first.replace(b"first") is WRITTEN
    assert not second.is_current()
    assert [second.replace(b"second"), second.replace(b"third")] == [LOST, LOST]
    assert OwnedObject(uri).replace(b"new") is LOST
    assert store.read_bytes(uri) == b"first"
    assert first.replace(b"first again") is WRITTEN
    assert OwnedObject.look_up(uri).replace(b"second") is WRITTEN
    assert first.replace(b"first") is LOST


def test_an_object_that_was_removed_is_lost(uri: str) -> None:
    owned = OwnedObject(uri)
    owned.replace(b"first")
    store.remove(uri)
    assert not owned.is_current()
    assert owned.replace(b"second") is LOST
    assert not store.exists(uri)


def test_an_attempt_that_the_client_tried_again_and_that_met_itself_is_ours(
    uri: str, on_write: Callable[..., None]
) -> None:
    owned = OwnedObject(uri)
    for content in (b"first", b"second"):
        on_write(CONFLICT)
        assert owned.replace(content) is ALREADY_OURS
        assert store.read_bytes(uri) == content
        assert owned.is_current()
    assert owned.replace(b"third") is WRITTEN


@pytest.mark.parametrize("start", [None, b"before"])
def test_an_attempt_whose_answer_was_lost_is_found_by_the_next(
    uri: str, on_write: Callable[..., None], start: bytes | None
) -> None:
    if start is not None:
        store.write_bytes(uri, start)
    owned = OwnedObject.look_up(uri)
    on_write(AWAY)
    fail(owned, b"first")
    assert owned.replace(b"first") is ALREADY_OURS
    on_write(AWAY)
    fail(owned, b"second")
    assert owned.replace(b"third") is WRITTEN
    assert store.read_bytes(uri) == b"third"


def test_any_attempt_since_the_last_answer_may_have_come_through(uri: str, on_write: Callable[..., None]) -> None:
    owned = OwnedObject(uri)
    on_write(AWAY)
    fail(owned, b"came through")
    for content in (b"did not", b"neither"):
        on_write(AWAY, happens=False)
        fail(owned, content)
    on_write(CONFLICT, happens=False)
    assert owned.replace(b"last") is WRITTEN
    assert store.read_bytes(uri) == b"last"


def test_an_attempt_that_arrives_late_is_written_over_and_one_that_comes_too_late_changes_nothing(
    uri: str, on_write: Callable[..., None]
) -> None:
    owned = OwnedObject(uri)
    owned.replace(b"before")
    seen = owned.seen
    assert seen is not None
    on_write(AWAY, happens=False)
    fail(owned, b"slow")
    on_write(before=lambda: store.write_bytes(uri, b"slow", over=seen))
    assert owned.replace(b"next") is WRITTEN
    with pytest.raises(StorageConflict):
        store.write_bytes(uri, b"slow", over=seen)
    assert store.read_bytes(uri) == b"next"


@pytest.mark.parametrize("fails", [None, AWAY, CONFLICT])
def test_another_owner_between_two_attempts_wins(
    uri: str, on_write: Callable[..., None], fails: StorageError | None
) -> None:
    owned = OwnedObject(uri)
    on_write(fails)
    if fails is AWAY:
        fail(owned, b"first")
    else:
        owned.replace(b"first")
    other = OwnedObject.look_up(uri)
    on_write(before=lambda: other.replace(b"the other's"))
    assert owned.replace(b"second") is LOST
    assert store.read_bytes(uri) == b"the other's"


def test_what_is_replaced_before_it_was_looked_at_is_lost(
    uri: str, monkeypatch: pytest.MonkeyPatch, on_write: Callable[..., None]
) -> None:
    owned, find = OwnedObject(uri), store.find

    def overtaken(uri: str) -> store.FileInfo | None:
        monkeypatch.setattr(store, "find", find)
        store.write_bytes(uri, b"the other's")
        return find(uri)

    monkeypatch.setattr(store, "find", overtaken)
    assert owned.replace(b"first") is LOST
    assert owned.replace(b"second") is LOST


def test_where_the_look_after_a_write_fails_the_next_attempt_finds_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned, find = OwnedObject(uri), store.find

    def away(_: str) -> None:
        monkeypatch.setattr(store, "find", find)
        raise AWAY

    monkeypatch.setattr(store, "find", away)
    fail(owned, b"first")
    assert owned.replace(b"first") is ALREADY_OURS


def test_on_gs_an_answer_lost_for_good_on_the_way(
    proxy: FaultyProxy, gcs_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{gcs_bucket}/state.json"
    place = gcs.GcsStore(client_of(proxy), retries=Retries(0.3, 0.01, 0.05))
    monkeypatch.setattr(gcs, "default_store", lambda: place)
    owned, gone = OwnedObject(uri), False

    def plan(seen: Any) -> Fault | None:
        nonlocal gone
        if gone:
            return Fault("status", 503)
        gone = seen.is_upload
        return Fault("no-answer") if gone else None

    proxy.plan = plan
    with pytest.raises(StorageError, match="cannot be reached"):
        owned.replace(b"first")
    proxy.plan = lambda _: None
    assert store.read_bytes(uri) == b"first"
    assert owned.replace(b"second") is WRITTEN
    assert store.read_bytes(uri) == b"second"
