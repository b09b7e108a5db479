from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components import unique_ids
from driftline.components.unique_ids import Twice, UniqueIds

BATCHES = st.lists(st.lists(st.text("abc", max_size=3), max_size=8), max_size=6)


@pytest.mark.parametrize("hashing", [hash, len, lambda _: 0], ids=["hash", "length", "all-equal"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_an_id_that_is_there_twice_is_found_with_both_places(
    batches: list[list[str]], hashing: object, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(unique_ids, "hash", hashing, raising=False)
    monkeypatch.setattr(unique_ids, "_CANDIDATES_AT_ONCE", 1)
    places = [[(number, row) for row in range(len(ids))] for number, ids in enumerate(batches)]
    index = UniqueIds()
    for ids in batches:
        index.add(ids)
    found = index.find_twice(lambda: zip(batches, places, strict=True))
    rows = [(id, place) for ids, own in zip(batches, places, strict=True) for id, place in zip(ids, own, strict=True)]
    if len({id for id, _ in rows}) == len(rows):
        assert found is None
    else:
        assert found is not None
        mine = [place for id, place in rows if id == found.id]
        assert found == Twice(found.id, mine[0], mine[1])


def test_rows_are_read_again_only_where_two_hashes_agree():
    index = UniqueIds()
    index.add(["a", "b"])
    index.add([])
    assert index.find_twice(lambda: pytest.fail("read again")) is None
