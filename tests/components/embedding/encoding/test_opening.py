from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from driftline.components.embedding.encoding import opening
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model import content_revision
from driftline.components.embedding.encoding.opening import ModelFolder, open_model
from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.objects.store import join, write_bytes
from tests.components.embedding.tiny_models import SCRIPTS


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def upload(folder: Path, uri: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            write_bytes(join(uri, path.relative_to(folder).as_posix()), path.read_bytes())
    return uri


@pytest.mark.parametrize("spelt", ["{0}", "{0}/", "file://{0}"])
def test_a_folder_is_opened_where_it_is(full: Path, spelt: str):
    with open_model(spelt.format(full)) as model:
        assert model.path == full
        assert model.name == "full"
        assert model.revision == content_revision(full)


@pytest.mark.parametrize("spelt", [".", "./", "../full"])
def test_a_relative_folder_is_named_as_itself(full: Path, monkeypatch: pytest.MonkeyPatch, spelt: str):
    monkeypatch.chdir(full)
    with open_model(spelt) as model:
        assert (model.name, model.revision) == ("full", content_revision(full))


def test_a_gs_prefix_gives_the_same_model(full: Path, gcs_bucket: str):
    uri = upload(full, join(gcs_bucket, "models", "full"))
    with open_model(uri + "/") as model:
        assert (model.name, model.revision) == ("full", content_revision(full))
        vectors = Encoder.load(model.path, uri, device="cpu").encode(SCRIPTS).vectors
        kept = model.path
    assert not kept.exists()
    np.testing.assert_array_equal(vectors, Encoder.load(full, "full", device="cpu").encode(SCRIPTS).vectors)


def test_a_cached_model_is_neither_downloaded_nor_digested_again(
    full: Path, gcs_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uri, cache = upload(full, join(gcs_bucket, "models", "full")), tmp_path / "cache"
    expected = content_revision(full)
    with open_model(uri, cache) as model:
        assert (model.name, model.revision) == ("full", expected)
        assert model.path.is_relative_to(cache)
        kept = model.path
    monkeypatch.setattr(opening, "content_revision", lambda folder: pytest.fail("digested again"))
    with open_model(uri + "/", cache) as model:
        assert (model.path, model.name, model.revision) == (kept, "full", expected)
    monkeypatch.undo()
    # A note that is damaged is not believed.
    (note,) = (kept.parent / "notes").iterdir()
    note.write_text("sha256:0123")
    with open_model(uri, cache) as model:
        assert model.revision == expected
    # Another model at the same place has its own revision.
    write_bytes(join(uri, "vocab.txt"), b"other")
    with open_model(uri, cache) as model:
        assert model.path != kept
        assert model.revision == content_revision(model.path) != expected


def test_a_local_model_is_digested_each_time_cache_or_not(full: Path, tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(full, copy)
    with open_model(str(copy), tmp_path / "cache") as model:
        assert model == ModelFolder(copy, str(copy), "model", content_revision(full))
    (copy / "vocab.txt").write_text("other")
    with open_model(str(copy), tmp_path / "cache") as model:
        assert model.revision == content_revision(copy) != content_revision(full)
    assert not (tmp_path / "cache").exists()


def test_a_gs_prefix_without_a_model_is_refused(gcs_bucket: str):
    uri = join(gcs_bucket, "empty")
    with pytest.raises(StorageError, match=rf"^{uri}[^\n]+$"), open_model(uri):
        pass


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with (
        pytest.raises(DataError, match=rf"^model {tmp_path}: neither modules.json nor config.json"),
        open_model(str(tmp_path)),
    ):
        pass


def test_a_file_is_refused(full: Path):
    file = full / "model.safetensors"
    with pytest.raises(StorageError, match=rf"^{file}: is a file where a folder is expected"), open_model(str(file)):
        pass


@pytest.mark.parametrize("model", ["", "s3://bucket/model"])
def test_a_place_of_no_known_kind_is_refused(model: str):
    with pytest.raises(UsageError, match=r"^[^\n]+give a local path or gs://bucket/path"), open_model(model):
        pass


def test_a_hub_name_that_cannot_be_fetched_is_refused(hub_cache: Path):
    with (
        pytest.raises(
            StorageError,
            match=r"^model nobody/nothing: there is no such folder, and it could not be fetched by that name "
            r"\([^\n]+\); give a folder or gs:// prefix that holds it$",
        ),
        open_model("nobody/nothing"),
    ):
        pass


def test_what_is_no_name_on_the_hub_either_is_refused(hub_cache: Path):
    with (
        pytest.raises(DataError, match=r"^model no/such/folder: there is no such folder, and it is no model's name"),
        open_model("no/such/folder"),
    ):
        pass


def test_a_model_in_the_hub_s_cache_is_used_by_name(full: Path, hub_cache: Path):
    entry = hub_cache / "models--some--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(full, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    with open_model("some/tiny") as model:
        assert (model.name, model.revision) == ("tiny", content_revision(full))
