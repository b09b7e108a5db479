"""Names of folders and files: where rows go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline.components.storage.dataset.manifest import check_shard_name
from driftline.serving.archive.layout import FileName, hour_end_ms, hour_path, is_datable, model_folder, model_of


@given(st.integers(0, 253_402_300_799_999))
def test_every_time_that_has_a_date_has_a_place(time_ms: int):
    assert is_datable(time_ms)
    place = hour_path(time_ms, "m-0")
    assert model_of(place) == "m-0"
    assert hour_end_ms(place) - 3_600_000 <= time_ms < hour_end_ms(place)


@given(
    st.text("abcXYZ019._-", min_size=1, max_size=150),
    st.integers(0, 10**6),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)
def test_a_files_name_says_what_is_in_it(topic: str, partition: int, first: int, last: int, commit: int):
    name = FileName(topic, partition, first, last, commit)
    assert FileName.parse(str(name)) == name
    assert len(str(name)) <= 255
    check_shard_name(str(name))
    assert FileName.parse(f"{name}.gz") is None


@given(st.text(max_size=200), st.text(max_size=20))
def test_a_models_folder_is_a_plain_name(model: str, revision: str):
    folder = model_folder(model, revision)
    check_shard_name(folder)
    assert folder != model_folder(model, revision + "x")
    assert folder.isascii()


def test_a_models_folder_can_be_read():
    assert model_folder("/models/all-MiniLM-L6-v2/", "sha256:1").startswith("all-MiniLM-L6-v2-")
    assert model_folder("…", "sha256:1").startswith("model-")
