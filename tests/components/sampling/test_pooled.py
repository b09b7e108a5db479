from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.drift_settings import DriftSettings
from driftline.components.errors import DataError
from driftline.components.random_bits import SAMPLE_CURRENT, SAMPLE_REFERENCE, choose_rows
from driftline.components.sampling.identity import Run, SampleIdentity
from driftline.components.sampling.pooled import BATCH_ROWS, PooledSample, pair
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from tests.support.datasets import write_embeddings

N, M, D = 37, 23, 3
NOON = "2026-01-01T12:00:00+00:00"
RUN = Run("0" * 32, "job", NOON, NOON, "/out", "/out", "/out/history")


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, D)).astype(np.float32)


def texts(rows: int, what: str) -> list[str]:
    return [f"{what} text {row}" for row in range(rows)]


@pytest.fixture
def reference(tmp_path: Path) -> str:
    uri = str(tmp_path / "reference")
    return write_embeddings(uri, vectors(N, 1), texts=texts(N, "old"), prefix="r", rows_per_shard=10)


@pytest.fixture
def current(tmp_path: Path) -> str:
    uri = str(tmp_path / "current")
    return write_embeddings(uri, vectors(M, 2), texts=texts(M, "new"), prefix="c", rows_per_shard=7)


def pooled(reference: str, current: str, size: int = 0, seed: int = 5) -> PooledSample:
    opened = EmbeddingsDataset.open(reference), EmbeddingsDataset.open(current)
    return pair(RUN, DriftSettings.of(window_max_rows=size, seed=seed, pca_components=2), *opened)


def read(sample: PooledSample) -> tuple[list[str], np.ndarray]:
    batches = list(sample.batches())
    return [name for ids, _ in batches for name in ids], np.concatenate([part for _, part in batches])


def test_all_rows_are_read_reference_first(reference: str, current: str):
    sample = pooled(reference, current)
    assert (sample.n, sample.rows, sample.dimension) == (N, N + M, D)
    ids, found = read(sample)
    assert ids == [f"r-{row}" for row in range(N)] + [f"c-{row}" for row in range(M)]
    np.testing.assert_array_equal(found, np.concatenate([vectors(N, 1), vectors(M, 2)]))
    assert found.dtype == np.float32


def test_a_sample_takes_the_rows_that_the_seed_chooses_in_their_order(reference: str, current: str):
    sample = pooled(reference, current, size=9)
    old, new = choose_rows(5, SAMPLE_REFERENCE, N, 9), choose_rows(5, SAMPLE_CURRENT, M, 9)
    assert (sample.n, sample.rows) == (9, 18)
    ids, found = read(sample)
    assert ids == [f"r-{row}" for row in old] + [f"c-{row}" for row in new]
    np.testing.assert_array_equal(found, np.concatenate([vectors(N, 1)[old], vectors(M, 2)[new]]))


def test_a_side_smaller_than_the_size_takes_part_whole(reference: str, current: str):
    sample = pooled(reference, current, size=30)
    assert (sample.reference.sampled, sample.current.sampled) == (30, M)
    ids, _ = read(sample)
    assert ids[30:] == [f"c-{row}" for row in range(M)]


def test_the_choice_is_the_seed_s(reference: str, current: str):
    first, again, other = (read(pooled(reference, current, 9, seed))[0] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_both_sides_of_one_dataset_are_chosen_apart(reference: str):
    ids, _ = read(pooled(reference, reference, size=9))
    assert ids[:9] != ids[9:]


@pytest.mark.parametrize("rows_per_shard", [1, 5, 36, 1000])
@pytest.mark.parametrize("size", [0, 12])
def test_the_sample_does_not_depend_on_how_the_datasets_are_cut(
    tmp_path: Path, reference: str, current: str, rows_per_shard: int, size: int
):
    other = write_embeddings(str(tmp_path / "cut"), vectors(N, 1), prefix="r", rows_per_shard=rows_per_shard)
    recut = read(pooled(other, current, size))
    as_it_was = read(pooled(reference, current, size))
    assert recut[0] == as_it_was[0]
    np.testing.assert_array_equal(recut[1], as_it_was[1])


def test_batches_are_the_same_for_any_cut_and_never_span_both_sides(tmp_path: Path):
    many = 2 * BATCH_ROWS + 10
    sizes = []
    for number, rows_per_shard in enumerate((1000, many)):
        old = write_embeddings(str(tmp_path / f"old{number}"), vectors(many), rows_per_shard=rows_per_shard)
        new = write_embeddings(str(tmp_path / f"new{number}"), vectors(20), rows_per_shard=rows_per_shard)
        sizes.append([len(part) for _, part in pooled(old, new).batches()])
    assert sizes == [[BATCH_ROWS, BATCH_ROWS, 10, 20]] * 2


@settings(deadline=None)  # a slow disk or a busy machine is no failure
@given(st.integers(0, 2**63 - 1), st.integers(2, 60), st.integers(2, 60))
def test_chosen_rows_are_ascending_distinct_and_the_same_again(seed: int, rows: int, sampled: int):
    side = SampleIdentity("/data", "sha256:0", "m", "r", D, rows, min(rows, sampled))
    sample = PooledSample(RUN, DriftSettings(seed=seed), side, side, "", (), 0.0)
    (_, chosen), (_, other) = sample.sides()
    taken = np.arange(rows) if chosen is None else chosen
    assert (chosen is None) == (sampled >= rows)
    assert len(taken) == min(rows, sampled)
    assert (np.diff(taken) > 0).all()
    assert 0 <= taken[0] <= taken[-1] < rows
    assert (other is None) == (chosen is None)
    (_, again), _ = sample.sides()
    np.testing.assert_array_equal(taken, np.arange(rows) if again is None else again)


@pytest.mark.parametrize("size", [0, 9])
def test_describe_gives_ids_and_texts_in_the_order_asked(reference: str, current: str, size: int):
    sample = pooled(reference, current, size)
    ids, _ = read(sample)
    asked = [sample.n, 3, sample.rows - 1, 0, sample.n - 1, 3]
    found = sample.describe(asked)
    assert [name for name, _ in found] == [ids[row] for row in asked]
    kinds = {"r": "old", "c": "new"}
    assert [text for _, text in found] == [f"{kinds[name[0]]} text {name[2:]}" for name in (ids[row] for row in asked)]
    assert sample.describe([]) == []


def test_describe_gives_none_where_there_is_no_text(tmp_path: Path, reference: str):
    bare = write_embeddings(str(tmp_path / "bare"), vectors(M, 2), prefix="c")
    sample = pooled(reference, bare)
    assert sample.describe([N + 4, 2]) == [("c-4", None), ("r-2", "old text 2")]


def test_a_dataset_replaced_since_is_refused(reference: str, current: str):
    sample = pooled(reference, current, size=9)
    write_embeddings(current, vectors(M, 3), texts=texts(M, "new"), prefix="c", rows_per_shard=7)
    replaced = rf"^{re.escape(current)}: the dataset was replaced while the run was reading it; start the run again$"
    with pytest.raises(DataError, match=replaced):
        read(sample)
    with pytest.raises(DataError, match=replaced):
        sample.describe([sample.n])
    assert sample.describe([0])[0][0].startswith("r-")


def test_the_same_dataset_written_again_is_still_the_same(reference: str, current: str):
    sample = pooled(reference, current)
    before = read(sample)
    write_embeddings(current, vectors(M, 2), texts=texts(M, "new"), prefix="c", rows_per_shard=7)
    assert read(sample)[0] == before[0]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"model": "other"}, "model is other, but tiny in the reference {0}"),
        ({"revision": "r2"}, "revision is r2, but r1 in the reference {0}"),
        ({"normalized": True}, "normalized is True, but False in the reference {0}"),
    ],
    ids=["model", "revision", "normalized"],
)
def test_datasets_of_different_models_are_refused(
    tmp_path: Path, reference: str, changes: dict[str, Any], difference: str
):
    other = write_embeddings(str(tmp_path / "other"), vectors(M), **changes)
    start = re.escape(f"{other}: {difference.format(reference)}; embed both with the same model, ")
    expected = rf"^{start}[^\n]+$"
    with pytest.raises(DataError, match=expected):
        pooled(reference, other)


def test_datasets_of_different_dimensions_are_refused(tmp_path: Path, reference: str):
    other = write_embeddings(str(tmp_path / "other"), np.ones((5, 4), np.float32))
    expected = rf"^{re.escape(other)}: dimension is 4, but 3 in the reference {re.escape(reference)}; "
    with pytest.raises(DataError, match=expected):
        pooled(reference, other)


@pytest.mark.parametrize("side", ["reference", "current"])
def test_fewer_than_two_rows_are_refused(tmp_path: Path, reference: str, side: str):
    short = write_embeddings(str(tmp_path / "short"), vectors(1))
    both = (short, reference) if side == "reference" else (reference, short)
    with pytest.raises(DataError, match=rf"^{re.escape(short)}: expected at least 2 rows to compare, got 1; [^\n]+$"):
        pooled(*both)


def test_two_rows_are_enough(tmp_path: Path):
    old = write_embeddings(str(tmp_path / "old"), vectors(2))
    new = write_embeddings(str(tmp_path / "new"), vectors(2))
    assert pooled(old, new, size=2).rows == 4


def test_the_sample_says_what_was_sampled(reference: str, current: str):
    manifest = EmbeddingsDataset.open(current).manifest
    side = pooled(reference, current, size=9).current
    assert side == SampleIdentity(current, manifest.digest, "tiny", "r1", D, M, 9)
