from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.components.embedding.backfill import BackfillPlan, Slice, cut
from driftline.components.errors import UsageError
from driftline.components.storage.texts import TextColumns, TextSource
from driftline.components.storage.values import read_value, write_value

ONE = TextSource("/data/one.jsonl", "jsonl", 5, 500, "AAAAAA==", (("time", "string"),))
TWO = TextSource("/data/two.csv", "csv", 4, 400, "BBBBBB==", (("film", "string"),))


def plan(**changes: Any) -> BackfillPlan:
    settings: dict[str, Any] = {
        "out": "/data/out",
        "model": "/models/tiny",
        "model_name": "tiny",
        "revision": "sha256:0000",
        "prompt": "",
        "dtype": "float32",
        "columns": TextColumns(),
        "sources": (ONE, TWO),
        "shards": cut([5, 4], 3),
        "tasks": 2,
        "seconds": 0.0,
    }
    return BackfillPlan(**(settings | changes))


def keys(planned: BackfillPlan) -> list[str]:
    return [planned.shard_key(shard) for shard in range(len(planned.shards))]


@settings(deadline=None)  # a slow disk or a busy machine is no failure
@given(st.lists(st.integers(0, 60), max_size=8), st.integers(1, 40))
def test_every_row_is_in_one_shard_once_and_in_order(rows: list[int], rows_per_shard: int):
    shards = cut(rows, rows_per_shard)
    pieces = [piece for shard in shards for piece in shard]
    placed = [(piece.source, row) for piece in pieces for row in range(piece.start, piece.start + piece.rows)]
    assert placed == [(source, row) for source, count in enumerate(rows) for row in range(count)]
    sizes = [sum(piece.rows for piece in shard) for shard in shards]
    assert sizes == [rows_per_shard] * (sum(rows) // rows_per_shard) + [
        left for left in [sum(rows) % rows_per_shard] if left
    ]
    assert all(piece.rows > 0 for piece in pieces)


def test_a_shard_may_span_files():
    assert cut([5, 4], 3) == (
        (Slice(0, 0, 3),),
        (Slice(0, 3, 2), Slice(1, 0, 1)),
        (Slice(1, 1, 3),),
    )


@pytest.mark.parametrize("rows_per_shard", [0, -1])
def test_less_than_a_row_a_shard_is_refused(rows_per_shard: int):
    with pytest.raises(UsageError, match=f"^rows per shard: expected at least 1, got {rows_per_shard}$"):
        cut([3], rows_per_shard)


@settings(deadline=None)  # a slow disk or a busy machine is no failure
@given(st.integers(1, 30), st.integers(1, 30))
def test_every_shard_is_one_task_s(shards: int, tasks: int):
    planned = plan(shards=cut([shards], 1), tasks=tasks)
    shares = [set(planned.share(task)) for task in range(tasks)]
    assert sorted(number for share in shares for number in share) == list(range(shards))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_counts_and_names():
    planned = plan()
    assert planned.rows == 9
    assert [planned.shard_rows(shard) for shard in range(3)] == [3, 3, 3]
    assert [planned.shard_name(shard) for shard in (0, 12)] == ["part-00000.parquet", "part-00012.parquet"]


def test_each_shard_has_its_own_key_and_always_the_same():
    assert len(set(keys(plan()))) == 3
    assert keys(plan()) == keys(plan())


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": "sha256:0001"},
        {"revision": "sha256:0000;prompt=query", "prompt": "query"},
        {"model_name": "other"},
        {"dtype": "float16"},
        {"columns": TextColumns("key", "text")},
        {"columns": TextColumns("id", "body")},
        {"sources": (dataclasses.replace(ONE, carried=(("time", "int64"),)), TWO)},
        {"sources": (dataclasses.replace(ONE, carried=()), TWO)},
        {"shards": ((Slice(0, 0, 2),), (Slice(0, 2, 3),), (Slice(1, 0, 4),))},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_what_decides_every_shard_changes_every_key(changes: dict[str, Any]):
    assert not set(keys(plan())) & set(keys(plan(**changes)))


@pytest.mark.parametrize("change", [{"crc32c": "CCCCCC=="}, {"bytes": 401}, {"format": "jsonl"}])
def test_a_changed_file_changes_the_keys_of_its_shards_alone(change: dict[str, Any]):
    before, after = keys(plan()), keys(plan(sources=(ONE, dataclasses.replace(TWO, **change))))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"out": "gs://elsewhere/out", "model": "gs://models/tiny", "tasks": 7, "seconds": 3.0},
        {"sources": tuple(dataclasses.replace(s, uri="gs://elsewhere/" + s.uri[1:]) for s in (ONE, TWO))},
    ],
    ids=["dataset", "texts"],
)
def test_places_and_tasks_do_not_change_a_key(changes: dict[str, Any]):
    assert keys(plan()) == keys(plan(**changes))


def test_a_plan_survives_its_file(tmp_path: Path):
    write_value(str(tmp_path / "plan.json"), plan())
    assert read_value(str(tmp_path / "plan.json"), BackfillPlan) == plan()
