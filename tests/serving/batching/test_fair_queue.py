"""The rule by which batches are taken from the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.embedding.encoding.text import Prepared, Prompt, Tokens
from driftline.serving.batching.fair_queue import DEPTH, PATIENCE, FairQueue
from driftline.serving.batching.request import QueuedText, Request


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def queued(
    loop: asyncio.AbstractEventLoop, lengths: list[int], clock: int = 0, prompt: Prompt | None = None
) -> list[QueuedText]:
    texts = [str(number) for number in range(len(lengths))]
    request = Request(texts, None, 0, 0.0, clock, loop.create_future())
    tokens = Tokens(texts, np.arange(len(texts)), np.asarray(lengths, np.int64))
    prepared = Prepared(texts, tokens, prompt)
    found: list[QueuedText] = []
    rank = clock
    for row, length in enumerate(lengths):
        found.append(QueuedText(request, row, prepared, row, length, rank))
        rank += DEPTH * length
    return found


def ended(request: Request) -> None:
    request.answer.cancel()


requests = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=8)
prompts = st.sampled_from([None, None, Prompt("query: ", 2), Prompt("title: ", 2)])
steps = st.lists(st.tuples(st.lists(st.integers(1, 30), min_size=1, max_size=12), prompts, st.booleans()), max_size=20)


@given(steps, st.integers(1, 40))
def test_every_text_leaves_once_in_a_batch_that_the_rule_allows(
    loop: asyncio.AbstractEventLoop, steps: list[tuple[list[int], Prompt | None, bool]], batch_tokens: int
):
    queue = FairQueue(batch_tokens)
    waiting: list[QueuedText] = []
    abandoned: list[QueuedText] = []

    def take() -> None:
        expected = sorted(waiting, key=lambda text: text.rank)
        batch = queue.take()
        assert bool(batch) == bool(expected)
        assert set(batch) <= set(expected)
        assert len(set(batch)) == len(batch)
        assert batch[:1] == expected[:1]  # the first of all always leaves
        assert len(batch) <= 1 or sum(text.tokens for text in batch) <= batch_tokens
        assert len({text.prepared.prompt for text in batch}) <= 1
        for text in batch:
            text.request.waiting -= 1
            waiting.remove(text)
        assert all(text.passed <= PATIENCE for text in waiting)
        assert queue.tokens == sum(text.tokens for text in waiting)

    for lengths, prompt, leaves in steps:
        texts = queued(loop, lengths, queue.clock, prompt)
        queue.add(texts)
        waiting.extend(texts)
        take()
        if leaves and waiting:
            gone = waiting[len(waiting) // 2].request
            ended(gone)
            queue.abandon(gone)
            abandoned.extend(text for text in waiting if text.request is gone)
            waiting[:] = [text for text in waiting if text.request is not gone]
    for _ in range(len(waiting)):
        if waiting:
            take()
    assert not waiting
    assert queue.take() == []
    assert queue.tokens == 0


def test_texts_of_like_length_leave_together(loop: asyncio.AbstractEventLoop):
    queue = FairQueue(40)
    queue.add(queued(loop, [10, 20, 9, 20, 11, 20, 10]))
    assert sorted(text.tokens for text in queue.take()) == [9, 10, 10, 11]
    assert [text.tokens for text in queue.take()] == [20, 20]


def test_a_short_request_goes_before_the_end_of_a_long_one_that_was_there_first(loop: asyncio.AbstractEventLoop):
    queue = FairQueue(10)
    queue.add(queued(loop, [5] * 100))
    assert len(queue.take()) == 2
    short = queued(loop, [5, 5], queue.clock)
    queue.add(short)
    assert set(queue.take() + queue.take()) >= set(short)


def test_a_long_request_ends_however_many_others_keep_coming(loop: asyncio.AbstractEventLoop):
    queue = FairQueue(100)
    long = queued(loop, [10] * 50)
    queue.add(long)
    left = set(long)
    rounds = 0
    while left:
        # Each round brings as much as a batch takes, so that the queue never gets shorter.
        queue.add([text for _ in range(10) for text in queued(loop, [10], queue.clock)])
        left -= set(queue.take())
        rounds += 1
        assert rounds <= DEPTH * 5 + 10, "its 5 batches take a DEPTH-th of the encoder, what waited at first aside"


def test_what_waits_for_a_request_that_has_ended_does_not_pile_up(loop: asyncio.AbstractEventLoop):
    queue = FairQueue(10)
    for _ in range(1000):
        texts = queued(loop, [5])
        queue.add(texts)
        ended(texts[0].request)
        queue.abandon(texts[0].request)
    assert len(queue._texts) < 200
    assert queue.tokens == 0
