from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.random_bits import SHUFFLED_ROWS, choose_rows, row_bits, shuffled_order, threefry2x32

# Known answers published with the Random123 library (kat_vectors, threefry2x32, 20 rounds).
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN)
@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_threefry_gives_the_published_answers(array, key, counter, expected):
    words = [array([word], dtype=np.uint32) for word in (*key, *counter)]
    assert tuple(int(word[0]) for word in threefry2x32(*words)) == expected


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(0, 300))
def test_any_part_of_a_stream_is_the_same_as_in_the_whole(seed, stream, start, length):
    whole = row_bits(seed, stream, 0, 600)
    np.testing.assert_array_equal(row_bits(seed, stream, start, start + length), whole[start : start + length])


@given(st.integers(0, 2**63 - 1), st.integers(1, 400), st.data())
def test_choice_is_without_replacement_and_ascending(seed, rows, data):
    size = data.draw(st.integers(1, rows))
    chosen = choose_rows(seed, 7, rows, size)
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < rows


def test_every_row_is_chosen_equally_often():
    rows, size, draws = 20, 5, 4000
    counts = np.zeros(rows)
    for seed in range(draws):
        counts[choose_rows(seed, 1, rows, size)] += 1
    share = size / rows
    # Five standard deviations of a binomial count: among 20 rows, wrong once in 100,000 seeds' worlds.
    assert np.abs(counts - draws * share).max() < 5 * np.sqrt(draws * share * (1 - share))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(UsageError, match="seed: expected a whole number from 0"):
        row_bits(seed, 1, 0, 4)


@given(st.integers(0, 2**63 - 1), st.integers(0, 5000), st.integers(0, 300_000))
@settings(max_examples=20, deadline=None)
def test_shuffled_order_is_a_shuffle_of_each_window(seed, start, rows):
    order = shuffled_order(seed, start, start + rows)
    for first in range(0, rows, SHUFFLED_ROWS):
        window = order[first : first + SHUFFLED_ROWS]
        np.testing.assert_array_equal(np.sort(window), start + first + np.arange(len(window)))
    if rows > 100:
        assert (order[:-1] + 1 == order[1:]).mean() < 0.2
