from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.embedding.backfill.cutting import ShardWork, Slice, balance, cut
from driftline.components.errors import UsageError
from driftline.components.storage.texts.reading import TextPiece


@dataclass(frozen=True)
class Corpus:
    """Pieces of sources, and which of their rows are kept."""

    pieces: list[list[TextPiece]]
    kept: list[list[int]]  # rows of each source


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    pieces: list[list[TextPiece]] = []
    kept: list[list[int]] = []
    for _ in range(draw(st.integers(0, 4))):
        own: list[TextPiece] = []
        rows_kept: list[int] = []
        start = 0
        for _ in range(draw(st.integers(0, 6))):
            rows = draw(st.integers(1, 8) | st.just(70_000))
            places = sorted(draw(st.sets(st.integers(0, min(rows, 8) - 1))))
            size = len(places) * draw(st.integers(1, 50))
            own.append(TextPiece(start, rows, len(places), size))
            rows_kept += [start + place for place in places]
            start += rows
        pieces.append(own)
        kept.append(rows_kept)
    return Corpus(pieces, kept)


def texts_of(piece: Slice, kept: list[int]) -> list[tuple[int, int]]:
    """Return the (source, row) of each text of a slice, as a reader finds them."""
    within = [row for row in kept if piece.start <= row < piece.start + piece.rows]
    return [(piece.source, row) for row in within[piece.skip : piece.skip + piece.texts]]


@given(corpora(), st.integers(1, 12), st.integers(1, 400))
def test_every_kept_text_is_in_one_shard_once_in_order_and_within_the_bounds(
    corpus: Corpus, rows_per_shard: int, bytes_per_shard: int
):
    shards = cut(corpus.pieces, rows_per_shard, bytes_per_shard)
    placed = [text for work in shards for piece in work.slices for text in texts_of(piece, corpus.kept[piece.source])]
    assert placed == [(source, row) for source, rows in enumerate(corpus.kept) for row in rows]
    largest = max((piece.bytes for own in corpus.pieces for piece in own), default=0)
    for work in shards:
        assert 1 <= work.texts <= rows_per_shard
        assert work.texts == sum(piece.texts for piece in work.slices)
        assert work.bytes <= max(bytes_per_shard, largest)
        for piece in work.slices:
            assert piece.before == sum(row < piece.start for row in corpus.kept[piece.source])


@given(corpora(), st.integers(1, 12))
def test_where_bytes_do_not_matter_all_shards_but_the_last_are_full(corpus: Corpus, rows_per_shard: int):
    total = sum(map(len, corpus.kept))
    sizes = [work.texts for work in cut(corpus.pieces, rows_per_shard)]
    assert sizes == [rows_per_shard] * (total // rows_per_shard) + [left for left in [total % rows_per_shard] if left]


@given(corpora(), st.data())
def test_of_wanted_texts_as_many_are_cut_as_there_are(corpus: Corpus, data: st.DataObject):
    wanted = [[data.draw(st.integers(0, piece.texts)) for piece in own] for own in corpus.pieces]
    shards = cut(corpus.pieces, 5, 1 << 30, wanted)
    assert sum(work.texts for work in shards) == sum(map(sum, wanted))
    for work in shards:
        for piece in work.slices:
            own, counts = corpus.pieces[piece.source], wanted[piece.source]
            within = sum(
                count
                for entry, count in zip(own, counts, strict=True)
                if piece.start <= entry.start < piece.start + piece.rows
            )
            assert piece.skip + piece.texts <= within


def test_a_shard_may_span_files_and_part_a_piece():
    one = [TextPiece(0, 3, 3, 30), TextPiece(3, 4, 2, 10)]
    two = [TextPiece(0, 5, 4, 40)]
    assert cut([one, two], 4) == (
        ShardWork((Slice(0, 0, 7, 0, 4, 0),), 4, 35),
        ShardWork((Slice(0, 3, 4, 1, 1, 3), Slice(1, 0, 5, 0, 3, 0)), 4, 35),
        ShardWork((Slice(1, 0, 5, 3, 1, 0),), 1, 10),
    )


def test_long_runs_without_a_text_are_not_read():
    pieces = [TextPiece(0, 10, 5, 50), *(TextPiece(10 + 1000 * k, 1000, 0, 0) for k in range(80))]
    pieces.append(TextPiece(80_010, 10, 5, 50))
    assert [(piece.start, piece.rows) for piece in cut([pieces], 100)[0].slices] == [(0, 10), (80_010, 10)]
    short = [*pieces[:9], TextPiece(8010, 10, 5, 50)]
    assert [(piece.start, piece.rows) for piece in cut([short], 100)[0].slices] == [(0, 8020)]


def test_a_shard_is_closed_at_its_bytes():
    pieces = [TextPiece(number, 1, 1, size) for number, size in enumerate([60, 60, 300, 10, 10])]
    assert [work.bytes for work in cut([pieces], 100, 128)] == [120, 300, 20]


@pytest.mark.parametrize(
    ("rows", "size", "message"),
    [
        (0, 1, "rows per shard: expected at least 1, got 0"),
        (-1, 1, "rows per shard: expected at least 1, got -1"),
        (1, 0, "bytes per shard: expected at least 1, got 0"),
    ],
)
def test_shards_of_nothing_are_refused(rows: int, size: int, message: str):
    with pytest.raises(UsageError, match=f"^{message}$"):
        cut([], rows, size)


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 9))
def test_every_shard_is_one_task_s_and_none_has_much_more_than_its_part(sizes: list[int], tasks: int):
    shares = balance(sizes, tasks)
    assert len(shares) == tasks
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    assert all(list(share) == sorted(share) for share in shares)
    weights = [max(size, 1) for size in sizes]
    loads = [sum(weights[number] for number in share) for share in shares]
    # A list schedule ends within the mean load and the largest piece (Graham 1969).
    assert max(loads) <= Fraction(sum(weights), tasks) + max(weights, default=0)


def test_the_largest_goes_first():
    assert balance([10, 20, 30, 40, 50], 2) == ((0, 1, 4), (2, 3))
