"""What a backfill makes of its texts: bad ones, selected ones, repeated ones, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.text import Encoding
from driftline.components.errors import DataError, UsageError
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from tests.components.embedding.backfills import TEXTS, Backfill, one_line, rows
from tests.components.embedding.tiny_models import by_hand
from tests.support.datasets import write_texts


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ['{"id": "a", "text": null}', '{"id": "b", "text": ""}'],
            "none of the 2 rows holds a text to embed (null 1, ",
        ),
        (['{"id": "a", "text": 3}'], "'text'"),
        (['{"id": "a", "text": "x"}', '{"id": "a", "text": "y"}'], "row 2: id 'a' is already that of row 1"),
        (['{"id": "a", "body": "x"}'], "'text'"),
        (['{"text": "x"}'], "'id'"),
        (["{"], "line 1 is not JSON"),
        ([], "there are no rows"),
    ],
    ids=["no-text", "number", "twice", "no-text-column", "no-id-column", "no-json", "no-rows"],
)
def test_bad_texts_are_refused_at_plan_with_nothing_written(
    work: Backfill, tmp_path: Path, full: Path, out: Path, lines: list[str], reason: str
):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=one_line(bad, reason)):
        work.plan([bad], full, out)
    assert not out.exists()
    assert not Path(work.planned).exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("null", "the text is null"), ('" \\t"', "the text is only white space"), ('"\\ud800"', "surrogate")],
    ids=["null", "blank", "surrogate"],
)
def test_a_bad_text_is_refused_where_that_is_asked_for(
    work: Backfill, tmp_path: Path, full: Path, out: Path, text: str, reason: str
):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{{"id": "a", "text": "x"}}\n{{"id": "b", "text": {text}}}\n')
    with pytest.raises(DataError, match=one_line(bad, "column 'text', row 2: ")) as caught:
        work.plan([bad], full, out, text_strict=True)
    assert reason in str(caught.value)
    assert not out.exists()
    assert work.plan([bad], full, out) == [0]


def test_bad_texts_are_left_out_or_mended_and_counted(work: Backfill, tmp_path: Path, full: Path, out: Path):
    long = "long " * 90
    lines = ["null", '""', '" \\u00a0"', '"half \\ud800"', '"bell \\u0007"', '"good"', '"good"', f'"{long}"']
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(f'{{"id": "t{number}", "text": {line}}}\n' for number, line in enumerate(lines)))
    metrics = work.run([bad], full, out)
    counts = ("texts", "null", "empty", "whitespace", "surrogates", "control", "duplicates", "truncated", "outside")
    assert [metrics[name] for name in counts] == [5, 1, 1, 1, 1, 1, 1, 1, 0]
    assert rows(out)[0] == ["t3", "t4", "t5", "t6", "t7"]
    texts = ["half \ufffd", "bell \u0007", "good", "good", long]
    assert EmbeddingsDataset.open(str(out)).take(range(5), ["text"])["text"].to_pylist() == texts
    np.testing.assert_allclose(rows(out)[1], by_hand(full, texts), rtol=0, atol=1e-5)


def test_a_selection_leaves_rows_out(work: Backfill, tmp_path: Path, full: Path, out: Path):
    days = [f"2024-01-{day:02d}" for day in range(1, 12)]
    path = write_texts(tmp_path / "dated.jsonl", TEXTS, time=days, kind=["plot", "fresh"] * 5 + ["plot"])
    selection = {"window_since": "2024-01-03", "window_until": "2024-01-10", "text_where": ("kind = plot",)}
    metrics = work.run([path], full, out, **selection, output_rows_per_shard=2)
    assert rows(out)[0] == ["t2", "t4", "t6", "t8"]
    assert (metrics["texts"], metrics["outside"], metrics["shards"]) == (4, 7, 2)


def test_texts_that_are_there_often_are_encoded_once_a_shard(
    work: Backfill, tmp_path: Path, full: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[str] = []
    encode_chunks = Encoder.encode_chunks

    def counted(self: Encoder, chunks: Iterable[Sequence[str]]) -> Iterator[Encoding]:
        return encode_chunks(self, (encoded.extend(texts) or texts for texts in chunks))

    monkeypatch.setattr(Encoder, "encode_chunks", counted)
    texts = [TEXTS[number % 3] for number in range(20)]
    metrics = work.run([write_texts(tmp_path / "same.jsonl", texts)], full, out, output_rows_per_shard=10)
    assert encoded == [*TEXTS[:3], TEXTS[1], TEXTS[2], TEXTS[0]]
    assert (metrics["texts"], metrics["texts_encoded"], metrics["duplicates"]) == (20, 20, 14)
    np.testing.assert_allclose(rows(out)[1], by_hand(full, texts), rtol=0, atol=1e-5)


def test_the_cost_of_a_million_texts(work: Backfill, texts: Path, full: Path, out: Path):
    tasks = work.plan([texts], full, out, embed_tasks=2, hourly_price=3.6)
    seconds = sum(work.embed(task).seconds for task in tasks)
    metrics = work.finish()
    assert metrics["cost_per_million_texts"] == pytest.approx(seconds * 0.001 / 11 * 1e6)
    assert metrics["rows_per_second"] == pytest.approx(11 / seconds)
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=one_line("hourly_price: expected 0 or more, got ")):
            work.plan([texts], full, out, hourly_price=price)
