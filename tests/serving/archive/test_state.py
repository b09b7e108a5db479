"""A partition's state: its bytes, and its owners, also on a store that loses answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.dataset.manifest import Shard
from driftline.components.storage.objects.local import LocalStore
from driftline.components.storage.objects.store import ANY, Over, read_bytes, write_bytes
from driftline.serving.archive.state import (
    CompactionCandidate,
    ExpiredFile,
    FencedError,
    HourChange,
    PartitionState,
    StateFile,
)

PATH = "date=2025-11-25/hour=13/model=tiny-0123"
STORED = {
    "topic": "t",
    "partition": 3,
    "owner": "0123456789abcdef",
    "commit": 7,
    "next_offset": 42,
    "changes": [
        {
            "place": PATH,
            "added": [{"name": "b.parquet", "rows": 2, "bytes": 9, "crc32c": "AAAAAA=="}],
            "removed": ["a.parquet"],
            "deleted": [5, 6],
        }
    ],
    "untidy": [{"place": PATH, "touched_ms": 2, "since_ms": 1, "waits": True}],
    "garbage": [{"file": f"{PATH}/old.parquet", "since_ms": 3}],
    "format": "driftline.archive/1",
}
STATE = PartitionState(
    "t",
    3,
    "0123456789abcdef",
    7,
    42,
    (HourChange(PATH, (Shard("b.parquet", 2, 9, "AAAAAA=="),), ("a.parquet",), (5, 6)),),
    (CompactionCandidate(PATH, 2, 1, waits=True),),
    (ExpiredFile(f"{PATH}/old.parquet", 3),),
)


def at(out: str) -> str:
    return StateFile.locate(out, "t", 3)


def opened(out: str) -> StateFile:
    return StateFile.take_over(out, "t", 3)[0]


def after(file: StateFile, offset: int) -> PartitionState:
    return dataclasses.replace(file.state, commit=file.state.commit + 1, next_offset=offset)


@contextmanager
def writing(monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], None] | None, fails: Exception | None):
    """A store to which something happens right before the next write, and that then answers with an error."""
    create = LocalStore.create

    @contextmanager
    def once(self: LocalStore, uri: str, over: Over = ANY) -> Generator[BinaryIO]:
        patch.setattr(LocalStore, "create", create)
        if before is not None:
            before()
        with create(self, uri, over) as handle:
            yield handle
        if fails is not None:
            raise fails

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", once)
        yield


def test_states_are_stored_as_they_always_were(tmp_path: Path):
    out = str(tmp_path)
    write_bytes(at(out), json.dumps(STORED).encode())
    file, before = StateFile.take_over(out, "t", 3)
    assert before == STATE
    file.commit(STATE)
    assert read_bytes(at(out)) == json.dumps(STORED).encode()


def test_who_takes_a_partition_over_fences_its_owner(tmp_path: Path):
    out = str(tmp_path)
    old = opened(out)
    old.commit(after(old, 5))
    new, before = StateFile.take_over(out, "t", 3)
    assert before == old.state
    assert (new.state.commit, new.state.next_offset) == (3, 5)
    assert new.state.owner != old.state.owner
    assert (old.is_current(), new.is_current()) == (False, True)
    with pytest.raises(FencedError, match="another worker has taken the partition over"):
        old.check_owned()
    with pytest.raises(FencedError, match="another worker has taken the partition over"):
        old.commit(after(old, 9))
    new.commit(after(new, 7))
    assert StateFile.take_over(out, "t", 3)[1] == new.state


def test_a_commit_whose_answer_was_lost_and_that_the_client_tried_again_is_known_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = opened(str(tmp_path))
    for offset in (5, 6):
        with writing(monkeypatch, before=None, fails=StorageConflict("something else is there")):
            file.commit(after(file, offset))
        assert file.state.next_offset == offset
        file.check_owned()
    assert StateFile.take_over(str(tmp_path), "t", 3)[1] == file.state


def test_a_commit_whose_answer_was_lost_may_have_happened_and_who_opens_next_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = opened(str(tmp_path))
    state = after(file, 5)
    with writing(monkeypatch, before=None, fails=StorageError("away")), pytest.raises(StorageError, match="away"):
        file.commit(state)
    assert StateFile.take_over(str(tmp_path), "t", 3)[1] == state


@pytest.mark.parametrize("fails", [None, StorageConflict("something else is there")])
def test_a_commit_after_a_takeover_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Exception | None
):
    out = str(tmp_path)
    file = opened(out)
    won: list[StateFile] = []
    with (
        writing(monkeypatch, before=lambda: won.append(opened(out)), fails=fails),
        pytest.raises(FencedError, match="another worker has taken the partition over"),
    ):
        file.commit(after(file, 5))
    assert StateFile.take_over(out, "t", 3)[1] == won[0].state


def test_who_comes_second_takes_over_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = str(tmp_path)
    won: list[StateFile] = []
    for commits in (2, 4):
        with writing(monkeypatch, before=lambda: won.append(opened(out)), fails=None):
            file, before = StateFile.take_over(out, "t", 3)
        assert before == won[-1].state
        assert file.state.commit == commits
        assert not won[-1].is_current()


def test_a_takeover_whose_answer_was_lost_is_known_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with writing(monkeypatch, before=None, fails=StorageConflict("something else is there")):
        file = opened(str(tmp_path))
    assert file.state.commit == 1
    file.commit(after(file, 5))
