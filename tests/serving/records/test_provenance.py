from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline.serving.errors import PoisonError
from driftline.serving.records.provenance import (
    ATTEMPTS,
    attempts_of,
    dead_letter_headers,
    dead_letters_topic,
    own_headers_removed,
    read_dead_letter,
    read_source,
    replay_headers,
    source_headers,
)
from driftline.serving.records.record import Coordinates, Headers, Record, header

places = st.builds(
    Coordinates,
    st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True),
    st.integers(0, 1000),
    st.integers(0, 2**62),
    st.integers(-1, 2**62),
)
own = st.lists(st.tuples(st.sampled_from(["a", "b", "traceparent"]), st.binary(max_size=8)), max_size=3).map(tuple)


@given(places, own)
def test_results_say_where_their_record_lay_and_keep_its_headers(at: Coordinates, headers: Headers) -> None:
    found = source_headers(Record(b"k", b"v", headers, at))
    assert read_source(found) == at
    assert own_headers_removed(found) == headers


@given(places, own, places, st.integers(1, 5))
def test_dead_letters_lead_to_the_first_place_and_count_attempts(
    first: Coordinates, headers: Headers, letters: Coordinates, attempts: int
) -> None:
    record = Record(b"k", b"v", headers, first)
    for attempt in range(1, attempts + 1):
        found = dead_letter_headers(record, PoisonError("not-json", "what is wrong"))
        letter = Record(b"k", b"v", found, letters)
        dead = read_dead_letter(letter)
        assert dead is not None
        assert (dead.source, dead.reason, dead.message, dead.attempts) == (first, "not-json", "what is wrong", attempt)
        assert own_headers_removed(found) == headers
        again = replay_headers(letter)
        assert read_source(again) == first
        assert header(again, "driftline-error-reason") is None
        record = Record(b"k", b"v", again, Coordinates("texts", 0, attempt, 0))
    assert attempts_of(record) == attempts


damaged = st.lists(
    st.tuples(
        st.sampled_from(["driftline-source-topic", "driftline-source-offset", ATTEMPTS, "x"]), st.binary(max_size=6)
    )
).map(tuple)


@given(damaged)
def test_damaged_headers_are_no_provenance(headers: Headers) -> None:
    record = Record(None, None, headers, Coordinates("t", 0, 0, 0))
    assert read_source(headers) is None
    assert read_dead_letter(record) is None
    assert attempts_of(record) >= 0


def test_a_long_message_is_cut() -> None:
    record = Record(b"k", b"v", (), Coordinates("t", 0, 0, 0))
    found = dead_letter_headers(record, PoisonError("model", "x" * 5000))
    assert len(header(found, "driftline-error-message") or b"") == 1000


def test_the_topic_of_dead_letters_is_named_after_the_source() -> None:
    assert dead_letters_topic("texts") == "texts.dead-letters"
