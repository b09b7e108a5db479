from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from driftline.components.embedding.encoding.batches import cut_batches

LENGTHS = st.lists(st.integers(1, 300), max_size=200).map(lambda values: np.array(values, np.int64))


@given(lengths=LENGTHS, bound=st.integers(1, 2000), padded=st.booleans(), streams=st.integers(1, 8))
def test_every_row_once_within_the_bound_and_the_longest_first(
    lengths: np.ndarray, bound: int, padded: bool, streams: int
):
    batches = cut_batches(lengths, bound, padded=padded, streams=streams)
    assert sorted(np.concatenate(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        computed = int(lengths[batch].max()) * len(batch) if padded else int(lengths[batch].sum())
        assert computed <= bound or len(batch) == 1
    ordered = [int(lengths[row]) for batch in batches for row in batch]
    assert ordered == sorted(ordered, reverse=True)


@given(lengths=LENGTHS.filter(len), bound=st.integers(1, 2000), padded=st.booleans())
def test_no_two_neighbouring_batches_would_have_fitted_in_one(lengths: np.ndarray, bound: int, padded: bool):
    batches = cut_batches(lengths, bound, padded=padded)
    for batch, after in pairwise(batches):
        together = lengths[np.append(batch, after[0])]
        assert (int(together.max()) * len(together) if padded else int(together.sum())) > bound


def test_enough_batches_for_every_stream():
    assert len(cut_batches(np.full(8, 10), 512, padded=False, streams=4)) == 4
    assert len(cut_batches(np.full(2, 10), 512, padded=False, streams=4)) == 2


@given(
    lengths=st.lists(st.integers(1, 20), min_size=100, max_size=300).map(np.array),
    bound=st.integers(300, 2000),
    streams=st.integers(2, 4),
)
def test_streams_have_as_many_batches_of_as_many_tokens(lengths: np.ndarray, bound: int, streams: int):
    wanted = -(-int(lengths.sum()) // (bound * streams)) * streams
    share = lengths.sum() / wanted
    assume(lengths.max() <= bound - share)
    batches = cut_batches(lengths, bound, padded=False, streams=streams)
    assert len(batches) == wanted
    for batch in batches:
        assert abs(lengths[batch].sum() - share) <= lengths.max()


def test_equal_lengths_stay_in_order():
    assert np.concatenate(cut_batches(np.array([5, 9, 5, 9, 5]), 100, padded=False)).tolist() == [1, 3, 0, 2, 4]
