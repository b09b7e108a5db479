"""Whether a folder can be written to, found out without leaving anything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.components.errors import StorageError
from driftline.components.storage.dataset.outputs import check_writable
from driftline.components.storage.objects.store import join, list_files, write_bytes
from tests.support.command import listing
from tests.support.unprivileged import closed_folder


@pytest.mark.parametrize("spelt", ["{0}/a/b/c", "{0}/a/b/c/", "file://{0}/a/b/c", "{0}/a/../a/b/c", "a/b/c"])
def test_folders_that_are_made_for_it_go_again(tmp_path: Path, spelt: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    check_writable(spelt.format(tmp_path))
    assert listing(tmp_path) == ["a"]


def test_a_folder_that_is_there_stays_with_what_it_holds(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    check_writable(str(tmp_path / "empty"))
    check_writable(str(tmp_path / "full"))
    assert listing(tmp_path) == ["empty", "full", "full/file"]


def test_on_gs(gcs_bucket: str):
    write_bytes(join(gcs_bucket, "a", "other"), b"")
    check_writable(join(gcs_bucket, "a", "b"))
    assert [info.uri for info in list_files(gcs_bucket)] == [join(gcs_bucket, "a", "other")]


def test_a_bucket_that_is_not_there(gcs_endpoint: str):
    with pytest.raises(StorageError, match=r"\Ags://driftline-nowhere/a/writable: [^\n]+\Z"):
        check_writable("gs://driftline-nowhere/a")


def test_a_file_in_the_way(tmp_path: Path):
    (tmp_path / "a").write_text("mine")
    for place in ("a", "a/b", "a/b/c"):
        with pytest.raises(StorageError, match=r"/writable: cannot write: a part of the path is a file"):
            check_writable(str(tmp_path / place))
    assert (tmp_path / "a").read_text() == "mine"


def test_a_folder_without_permission():
    with closed_folder() as closed, pytest.raises(StorageError, match="/writable: cannot write: no permission"):
        check_writable(str(closed / "a" / "b"))
