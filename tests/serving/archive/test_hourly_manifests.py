"""Changes of an hourly dataset's manifest: once each, whatever the store answers, and never by a former owner."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from driftline.components.errors import StorageConflict, StorageError
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, Manifest
from driftline.components.storage.dataset.partitions import dataset_folders
from driftline.components.storage.objects.local import LocalStore
from driftline.components.storage.objects.store import ANY, Over
from driftline.serving.archive.hourly_manifests import HourlyManifests
from driftline.serving.archive.layout import Models
from driftline.serving.archive.state import FencedError, HourChange
from tests.serving.archive.archived import TOPIC, Log, archived, driven, settings_of


class Hour:
    """An archive of one hour with three rows."""

    def __init__(self, folder: Path) -> None:
        self.out, log = str(folder / "archive"), Log()
        for number, name in enumerate("abc"):
            log.row(name, number)
        run = driven(log, settings_of(self.out), folder / "index")
        run.turn(2)
        run.archiver.close()
        (self.path,) = dataset_folders(self.out)
        self.manifests = HourlyManifests(self.out, TOPIC, 0, Models(self.out))

    def delete(self, offset: int, commit: int) -> list[str]:
        return self.manifests.apply(HourChange(self.path, deleted=(offset,)), commit, lambda: None)

    @property
    def deletes(self) -> str:
        manifest = self.manifests.read(self.path)
        assert manifest is not None
        assert manifest.deletes is not None
        return manifest.deletes.name

    @property
    def ids(self) -> set[str]:
        return {name for _, name in archived(self.out)}


@pytest.fixture
def hour(tmp_path: Path) -> Hour:
    return Hour(tmp_path)


@contextmanager
def losing_the_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Generator[None]:
    """A store that writes the next manifest, and answers with an error."""
    create = LocalStore.create

    @contextmanager
    def failing(self: LocalStore, uri: str, over: Over = ANY) -> Generator[BinaryIO]:
        with create(self, uri, over) as handle:
            yield handle
        if uri.endswith(MANIFEST_NAME):
            patch.setattr(LocalStore, "create", create)
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", failing)
        yield


def test_a_change_is_applied_once(hour: Hour):
    assert hour.delete(1, 8) == []
    first = hour.deletes
    assert hour.delete(1, 8) == []
    assert hour.deletes == first
    assert hour.delete(2, 9) == [first]
    assert hour.ids == {"a"}


def test_the_files_that_a_manifest_names_are_needed_though_the_answer_was_lost(
    hour: Hour, monkeypatch: pytest.MonkeyPatch
):
    with losing_the_answer(monkeypatch, StorageConflict("something else is there")):
        assert hour.delete(1, 8) == []
    assert hour.ids == {"a", "c"}
    with losing_the_answer(monkeypatch, StorageError("away")), pytest.raises(StorageError, match="away"):
        hour.delete(2, 9)
    assert hour.delete(2, 9) == []
    assert hour.ids == {"a"}


def test_a_former_owner_changes_nothing(hour: Hour):
    before = hour.manifests.read(hour.path)

    def fenced() -> None:
        raise FencedError("another worker has taken the partition over")

    with pytest.raises(FencedError):
        hour.manifests.apply(HourChange(hour.path, deleted=(1,)), 8, fenced)
    assert hour.manifests.read(hour.path) == before


def test_a_change_that_comes_late_is_refused_by_the_version(hour: Hour, monkeypatch: pytest.MonkeyPatch):
    """The next owner applies the change, and another one, between the former owner's check and its write."""
    after: list[Manifest | None] = []
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 1:
            raise FencedError("another worker has taken the partition over")
        hour.delete(1, 8)
        hour.delete(2, 9)
        after.append(hour.manifests.read(hour.path))

    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(FencedError):
        hour.manifests.apply(HourChange(hour.path, deleted=(1,)), 8, check)
    assert [hour.manifests.read(hour.path)] == after
