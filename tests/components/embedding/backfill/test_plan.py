from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from driftline.components.embedding.backfill.cutting import ShardWork, Slice, cut
from driftline.components.embedding.backfill.plan import BackfillPlan, Previous, merged_pieces
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.storage.dataset.manifest import Manifest, Shard
from driftline.components.storage.objects.store import FileInfo
from driftline.components.storage.objects.values import read_value, write_value
from driftline.components.storage.texts.reading import TextPiece, TextSource
from driftline.components.storage.texts.rules import TextCounts
from driftline.components.storage.texts.selection import TextSelection

ONE = TextSource(
    "/data/one.jsonl", "jsonl", 5, 500, "AAAAAA==", (("time", "string"),), (TextPiece(0, 5, 5, 300, 0),), TextCounts(1)
)
TWO = TextSource(
    "/data/two.csv", "csv", 4, 400, "BBBBBB==", (("film", "string"),), (TextPiece(0, 4, 4, 80, 0),), TextCounts(2, 3)
)
SETTINGS = dataclasses.fields(BackfillSettings)
PREVIOUS = Previous(
    manifest=Manifest(
        "tiny", "r", 3, normalized=True, dtype="float32", columns=("text",), shards=(Shard("a.parquet", 1, 2, "c"),)
    ),
    seen=FileInfo("/data/out/manifest.json", 12, None, "v1"),
    deletes=Shard("deletes-0123456789abcdef.parquet", 1, 2, "c"),
    replaced=1,
    removed=0,
    unknown=2,
)


def plan(**changes: Any) -> BackfillPlan:
    """Return a plan; what changes is of the plan itself, or of its settings."""
    settings = {name: changes.pop(name) for name in [*changes] if name in {one.name for one in SETTINGS}}
    values: dict[str, Any] = {
        "settings": BackfillSettings(**settings),
        "out": "/data/out",
        "model": "/models/tiny",
        "model_name": "tiny",
        "revision": "sha256:0000",
        "selection": TextSelection(),
        "sources": (ONE, TWO),
        "carried": (("time", "string"), ("film", "string")),
        "shards": cut([ONE.pieces, TWO.pieces], 3),
        "tasks": 2,
    }
    return BackfillPlan(**(values | changes))


def keys(planned: BackfillPlan) -> list[str]:
    return [planned.shard_key(shard) for shard in range(len(planned.shards))]


def test_counts_and_names():
    planned = plan()
    assert planned.texts == 9
    assert planned.counts == TextCounts(3, 3)
    assert [work.texts for work in planned.shards] == [3, 3, 3]
    assert [planned.shard_name(shard) for shard in (0, 12)] == ["part-00000.parquet", "part-00012.parquet"]
    assert planned.work_uri("a", "b.bin") == "/data/out/_work/a/b.bin"


def test_added_shards_are_named_after_the_others_and_by_what_they_hold():
    planned = plan(first=7, previous=PREVIOUS)
    assert planned.shard_name(1) == f"part-00008-{planned.shard_key(1)[:12]}.parquet"
    assert keys(planned) == keys(plan())


def test_tasks_get_about_as_many_bytes_each():
    assert plan().shares() == ((0,), (1, 2))
    assert [work.bytes for work in plan().shards] == [180, 140, 60]


def test_each_shard_has_its_own_key_and_always_the_same():
    assert len(set(keys(plan()))) == 3
    assert keys(plan()) == keys(plan())


def test_keys_stay_what_they_are_from_version_to_version():
    """Else whoever installs the next one embeds everything again."""
    assert [key[:16] for key in keys(plan())] == ["a27fe195709e1416", "2b8e8af77a8aab09", "084700aa62f40d96"]
    settings = {
        "text_id_column": "key", "text_column": "body", "model_prompt": "query", "model_precision": "bfloat16",
        "model_dimension": 4, "model_max_tokens": 16, "model_segments": "mean", "model_segment_overlap": 3,
        "output_dtype": "float16",
    }  # fmt: skip
    selection = TextSelection("2024-01-01", "2024-02-01", "day", ("rating >= 7",))
    assert keys(plan(**settings, selection=selection))[0][:16] == "a494c28830bf54b9"


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": "sha256:0001"},
        {"model_prompt": "query"},
        {"model_dimension": 4},
        {"model_segments": "mean"},
        {"model_precision": "bfloat16"},
        {"model_max_tokens": 16},
        {"model_name": "other"},
        {"output_dtype": "float16"},
        {"text_id_column": "key"},
        {"text_column": "body"},
        {"selection": TextSelection(since="2024-01-01")},
        {"selection": TextSelection(where=("rating >= 7",))},
        {"carried": (("time", "int64"), ("film", "string"))},
        {"carried": (("time", "string"),)},
        {"shards": tuple(dataclasses.replace(work, changed="ab") for work in cut([ONE.pieces, TWO.pieces], 3))},
        {"shards": cut([ONE.pieces, TWO.pieces], 2)},
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
        {"embed_tasks": 3, "encoder_tunings": "gs://x/p.json", "hourly_price": 2.5, "model_cache": "/models"},
        {"sources": tuple(dataclasses.replace(s, uri="gs://elsewhere/" + s.uri[1:]) for s in (ONE, TWO))},
        {"sources": tuple(dataclasses.replace(s, pieces=()) for s in (ONE, TWO))},
    ],
    ids=["dataset", "settings", "texts", "pieces"],
)
def test_places_and_tasks_do_not_change_a_key(changes: dict[str, Any]):
    assert keys(plan()) == keys(plan(**changes))


def test_pieces_are_merged_to_those_that_slices_begin_with():
    pieces = tuple(TextPiece(10 * k, 10, k, 100 * k, 1000 * k) for k in range(6))
    source = dataclasses.replace(ONE, rows=60, pieces=pieces)
    merged = merged_pieces(source, [20, 40, 40])
    assert merged.pieces == (
        TextPiece(0, 20, 1, 100, 0),
        TextPiece(20, 20, 5, 500, 2000),
        TextPiece(40, 20, 9, 900, 4000),
    )
    assert merged.texts == source.texts


def test_a_plan_survives_its_file(tmp_path: Path):
    shards = (ShardWork((Slice(0, 0, 5, 1, 4, 0),), 4, 20, "ab"),)
    for planned in (plan(), plan(shards=shards, previous=PREVIOUS, first=3, changed="/data/out/_work/w.npz")):
        write_value(str(tmp_path / "plan.json"), planned)
        assert read_value(str(tmp_path / "plan.json"), BackfillPlan) == planned


def test_the_plan_of_a_hundred_million_rows_is_small(tmp_path: Path):
    pieces = tuple(TextPiece(1024 * k, 1024, 1024, 400_000, 410_000 * k) for k in range(100_000))
    shards = cut([pieces], 50_000)
    source = dataclasses.replace(ONE, rows=102_400_000, pieces=pieces)
    planned = plan(
        sources=(merged_pieces(source, [piece.start for work in shards for piece in work.slices]),), shards=shards
    )
    assert planned.texts == 102_400_000
    write_value(str(tmp_path / "plan.json"), planned)
    assert (tmp_path / "plan.json").stat().st_size < 2 << 20
