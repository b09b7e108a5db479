"""The search for items at fault by halves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.batching.halving import HalvedBatches


@given(count=st.integers(1, 40), bad=st.sets(st.integers(0, 39)), gone=st.sets(st.integers(0, 39)))
def test_each_item_at_fault_is_found_and_each_other_one_succeeds_once(count: int, bad: set[int], gone: set[int]):
    batches = HalvedBatches[int](lambda item: item not in gone)
    batch, succeeded, found, tries = [*range(count)], list[int](), list[int](), 0
    while batch:
        tries += 1
        if not bad & {*batch}:
            succeeded += batch
        elif (item := batches.split(batch)) is not None:
            found.append(item)
        batch = batches.take()
    # What is gone leaves a batch when it has failed.
    left = set[int](range(count)) - (gone if bad & {*range(count)} and count > 1 else set())
    assert sorted(found) == sorted(left & bad - gone)
    assert sorted(succeeded) == sorted(left - bad)
    assert tries <= 1 + 2 * len(bad) * count.bit_length()
