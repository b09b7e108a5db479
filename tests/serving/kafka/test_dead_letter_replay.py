from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.serving.commands.dead_letters import dead_letters
from driftline.serving.kafka.dead_letter_replay import (
    _note,  # pyright: ignore[reportPrivateUsage]
    _noted,  # pyright: ignore[reportPrivateUsage]
    count_letters,
    replay_letters,
)
from driftline.serving.records.provenance import ATTEMPTS, attempts_of
from driftline.serving.records.record import header
from tests.serving.stream.workers import FakeEncoder, Topics, running, texts
from tests.support.brokers import eventually, fresh, produce, read_topic, settings_of


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(dead_letters, arguments, catch_exceptions=False)


@pytest.fixture
def topics(bootstrap: str) -> Topics:
    """Four texts that the model fails on, three that are not JSON and a tombstone without a key, as dead letters."""
    topics = Topics.create(bootstrap, partitions=2)
    produce(bootstrap, topics.source, [*texts(4), (b"a", b"{", ()), (b"b", b"[", (("own", b"1"),)), (None, b"x", ())])
    failing = FakeEncoder(fails=frozenset(f"text {number}" for number in range(4)))
    with running(topics, failing):
        eventually(lambda: len(read_topic(bootstrap, topics.dead_letters)) == 7)
    return topics


def replayed(topics: Topics, **options: object) -> tuple[int, int]:
    done = replay_letters(
        settings_of(topics.bootstrap), topics.source, topics.dead_letters, topics.group + ".replay", **options
    )
    return done.sent, done.other


def test_letters_are_counted_by_reason(topics: Topics) -> None:
    result = invoke("list", "--topic", topics.source, "--bootstrap-servers", topics.bootstrap, "--json")
    found = json.loads(result.stdout)
    assert [(count["reason"], count["letters"], count["replayed"]) for count in found] == [
        ("model", 4, 0),
        ("not-json", 3, 0),
    ]
    assert "the model fails on it (this text is too much)" in found[0]["example"]


def test_the_table_shows_a_line_for_each_reason(topics: Topics) -> None:
    result = invoke("list", "--topic", topics.source, "--bootstrap-servers", topics.bootstrap, "--reason", "model")
    first, heading, line = result.stdout.splitlines()
    assert first == f"{topics.dead_letters}: 4 letters"
    assert heading.split()[:2] == ["reason", "letters"]
    assert line.split()[:3] == ["model", "4", "0"]


def test_letters_go_back_once_however_often_they_are_asked_for(topics: Topics) -> None:
    assert replayed(topics, dry_run=True) == (7, 0)
    assert replayed(topics, reasons=["model"], limit=3) == (3, 4)
    assert replayed(topics, reasons=["model"]) == (1, 3)
    assert replayed(topics, reasons=["model"]) == (0, 3)
    counts = count_letters(settings_of(topics.bootstrap), topics.dead_letters, topics.group + ".replay")
    assert {count.reason: count.replayed for count in counts} == {"model": 4, "not-json": 0}
    assert replayed(topics) == (3, 0)
    assert replayed(topics) == (0, 0)
    sent = Counter(record.value for record in read_topic(topics.bootstrap, topics.source))
    assert set(sent.values()) == {2}, "each record is there as it came, and once more"


def test_a_replayed_record_keeps_its_place_and_is_counted_anew_when_it_fails(topics: Topics) -> None:
    before = {
        (header(letter.headers, "driftline-source-partition"), header(letter.headers, "driftline-source-offset"))
        for letter in read_topic(topics.bootstrap, topics.dead_letters)
    }
    replayed(topics)
    with running(topics):  # a model that is well again
        eventually(lambda: len(read_topic(topics.bootstrap, topics.output)) == 4)
        eventually(lambda: len(read_topic(topics.bootstrap, topics.dead_letters)) == 10)
    again = [letter for letter in read_topic(topics.bootstrap, topics.dead_letters) if attempts_of(letter) == 2]
    assert sorted(letter.value or b"" for letter in again) == [b"[", b"x", b"{"]
    assert before >= {
        (header(letter.headers, "driftline-source-partition"), header(letter.headers, "driftline-source-offset"))
        for letter in again
    }
    own = [letter for letter in again if letter.value == b"["]
    assert own[0].headers[0] == ("own", b"1")
    assert header(own[0].headers, ATTEMPTS) == b"2"


def test_a_record_with_neither_key_nor_value_cannot_go_back(bootstrap: str) -> None:
    topics = Topics.create(bootstrap, partitions=1)
    group = fresh("replay")
    produce(bootstrap, topics.dead_letters, [(b"k", b"somebody else's", ())])
    done = replay_letters(settings_of(bootstrap), topics.source, topics.dead_letters, group)
    assert (done.sent, done.unfit) == (0, 1)
    [count] = count_letters(settings_of(bootstrap), topics.dead_letters, group)
    assert count.reason == "unknown"


def test_a_topic_that_is_not_there_is_named(bootstrap: str) -> None:
    name = fresh("nothing")
    with pytest.raises(UsageError, match=f"topic {name}: is not at"):
        count_letters(settings_of(bootstrap), name, "g")


@given(st.integers(0, 10**9), st.sets(st.integers(1, 5000)))
def test_notes_of_what_was_sent_back_are_read_as_written(base: int, behind: set[int]) -> None:
    done = {base + offset for offset in behind}
    assert _noted(base, _note(base, done)) == done


def test_a_note_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(UsageError, match="the note beside committed offset 7 is damaged"):
        _noted(7, "someone else's")
