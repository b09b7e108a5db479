"""The batcher, with an encoder that is let go batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from driftline.components.errors import UsageError
from driftline.serving.batching.batcher import Batcher
from driftline.serving.batching.limits import BatcherLimits
from driftline.serving.batching.metrics import BatchingMetrics
from driftline.serving.batching.request import Embedded
from driftline.serving.errors import DeadlineError, OverloadError, PoisonError, UnavailableError
from tests.serving.batching.fake_encoder import FakeEncoder, vector


class Counted:
    """A registry's figures by their short names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def __call__(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(f"driftline_{name}", {"model": "m", **labels})
        assert found is not None, f"there is no {name}"
        return found


@pytest.fixture
def counted() -> Counted:
    return Counted()


@asynccontextmanager
async def batching(encoder: FakeEncoder, counted: Counted | None = None, **limits: Any) -> AsyncGenerator[Batcher]:
    registry = CollectorRegistry() if counted is None else counted.registry
    batcher = Batcher(encoder, BatcherLimits(**limits), BatchingMetrics(registry).of("m"))
    batcher.start()
    try:
        yield batcher
        assert batcher.queue_texts == batcher.queue_characters == 0
    finally:
        encoder.let_go()
        await batcher.drain(10)


def asked(call: Coroutine[Any, Any, Embedded]) -> asyncio.Task[Embedded]:
    return asyncio.get_running_loop().create_task(call)


async def settled() -> None:
    """Let everything happen that waits for no batch: the tokenizer's thread is through after two turns with it."""
    for _ in range(4):
        await asyncio.sleep(0.01)


async def waiting(batcher: Batcher, texts: int) -> None:
    while batcher.queue_texts != texts:
        await asyncio.sleep(0.001)
    await settled()


def assert_vectors(found: Embedded, texts: list[str], prompt: str | None = None) -> None:
    np.testing.assert_array_equal(found.vectors, np.stack([vector(text, prompt) for text in texts]))
    assert found.vectors.dtype == np.float32


def test_a_lone_request_is_encoded_at_once(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder()
        async with batching(encoder, counted) as batcher:
            found = await batcher.encode(["one", "two words", "w " * 50])
        assert_vectors(found, ["one", "two words", "w " * 50])
        assert (found.tokens, found.truncated) == (53, 1)
        assert encoder.batches == [["one", "two words"], ["w " * 50]]

    asyncio.run(main())
    assert counted("encoded_texts_total") == 3
    assert counted("encoded_tokens_total") == 53
    assert counted("truncated_texts_total") == 1
    assert counted("batch_texts_count") == counted("encode_seconds_count") == 2
    assert counted("batch_tokens_sum") == 53
    assert counted("batch_fill_sum") == 53 / 20
    assert counted("queue_seconds_count") == 1
    assert counted("queue_texts") == 0


def test_no_texts_have_no_vectors():
    async def main() -> None:
        async with batching(FakeEncoder()) as batcher:
            assert (await batcher.encode([])).vectors.shape == (0, 4)

    asyncio.run(main())


def test_requests_share_batches_and_a_request_is_spread_over_several():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=6, held=True)
        async with batching(encoder) as batcher:
            first = asked(batcher.encode(["first"]))
            await encoder.has_begun()
            groups = [["a b", "c d"], ["e f", "g h", "i j", "k l"], ["m n"]]
            others = [asked(batcher.encode(group)) for group in groups]
            await waiting(batcher, 4)  # a full batch stands ready
            late = asked(batcher.encode(["o p"]))
            await waiting(batcher, 5)
            encoder.let_go()
            assert_vectors(await first, ["first"])
            for task, group in zip([*others, late], [*groups, ["o p"]], strict=True):
                assert_vectors(await task, group)
        assert [len(batch) for batch in encoder.batches] == [1, 3, 3, 2]
        assert sorted(encoder.batches[1]) == ["a b", "e f", "m n"]  # the first text of each

    asyncio.run(main())


def test_a_full_batch_follows_without_waiting_for_the_event_loop():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=4, held=True)
        async with batching(encoder) as batcher:
            tasks = [asked(batcher.encode(["a b"]))]
            await encoder.has_begun()
            tasks += [asked(batcher.encode([f"{number} b"])) for number in range(3)]
            await waiting(batcher, 1)
            encoder.let_one_go()
            encoder.entered()  # the event loop stands still meanwhile
            assert encoder.batches[1] == ["0 b", "1 b"]
            encoder.let_go()
            await asyncio.gather(*tasks)

    asyncio.run(main())


def test_texts_that_came_meanwhile_are_tokenised_together():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=1000)
        async with batching(encoder) as batcher:
            await asyncio.gather(*(batcher.encode([f"text {number}"]) for number in range(50)))
        assert len(encoder.calls) == 2  # the first alone, since nothing was to be waited for
        assert len(encoder.batches) <= 3

    asyncio.run(main())


def test_a_cancelled_request_leaves_with_its_waiting_texts(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=4, held=True)
        async with batching(encoder, counted) as batcher:
            running = asked(batcher.encode(["run ning"]))
            await encoder.has_begun()
            ahead = asked(batcher.encode(["next batch", "next too"]))
            gone = asked(batcher.encode(["never x", "never y", "never z"]))
            kept = asked(batcher.encode(["kept x"]))
            await waiting(batcher, 4)
            ahead.cancel()  # its batch is handed over, but has not begun
            gone.cancel()
            await settled()
            assert batcher.queue_texts == 1
            encoder.let_go()
            assert_vectors(await running, ["run ning"])
            assert_vectors(await kept, ["kept x"])
        assert encoder.batches == [["run ning"], ["kept x"]]

    asyncio.run(main())
    assert counted("cancelled_requests_total") == 2


def test_one_that_is_cancelled_while_its_batch_runs_takes_nothing_from_the_others():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=20, held=True)
        async with batching(encoder) as batcher:
            first = asked(batcher.encode(["first"]))
            await encoder.has_begun()
            kept, gone = asked(batcher.encode(["kept"])), asked(batcher.encode(["gone", "w " * 19]))
            await waiting(batcher, 1)
            encoder.let_one_go()
            await encoder.has_begun()
            gone.cancel()
            await settled()
            encoder.let_go()
            assert_vectors(await first, ["first"])
            assert_vectors(await kept, ["kept"])
        assert not any("w " * 19 in batch for batch in encoder.batches)

    asyncio.run(main())


def test_a_request_whose_time_has_passed_is_not_encoded(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=4, held=True)
        async with batching(encoder, counted) as batcher:
            running = asked(batcher.encode(["running"], deadline_s=60))
            await encoder.has_begun()
            with pytest.raises(DeadlineError, match=r"could not be encoded within 0\.02 s"):
                await batcher.encode(["too late"], deadline_s=0.02)
            with pytest.raises(DeadlineError, match="had passed when they came"):
                await batcher.encode(["far too late"], deadline_s=-1)
            encoder.let_go()
            assert_vectors(await running, ["running"])
        assert encoder.batches == [["running"]]

    asyncio.run(main())
    assert counted("rejected_requests_total", reason="deadline") == 2
    assert counted("cancelled_requests_total") == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"queue_texts": 3}, r"^the queue holds 2 texts of \d+ characters, and has no room for 2 more; try again in "),
        ({"queue_characters": 20}, "has no room for 2 more"),
    ],
)
def test_a_full_queue_refuses_and_says_when_to_come_again(counted: Counted, limits: dict[str, int], message: str):
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=4, held=True)
        async with batching(encoder, counted, **limits) as batcher:
            first = asked(batcher.encode(["a b"]))
            await encoder.has_begun()
            second = asked(batcher.encode(["waits x", "waits y z"][: limits.get("queue_texts", 3) - 1]))
            while not batcher.queue_texts:
                await asyncio.sleep(0)
            if "queue_characters" in limits:
                assert batcher.queue_characters == 19
            with pytest.raises(OverloadError, match=message) as refused:
                await batcher.encode(["one", "two"])
            assert 0 < refused.value.retry_after_s < 60
            encoder.let_go()
            await asyncio.gather(first, second)
            # There is room again; and what is larger than the whole queue is taken when nothing else is there.
            assert_vectors(await batcher.encode(["one", "two"]), ["one", "two"])
            many = [f"text {number}" for number in range(40)]
            assert_vectors(await batcher.encode(many), many)

    asyncio.run(main())
    assert counted("rejected_requests_total", reason="overload") == 1


def test_one_text_at_which_the_model_throws_fails_its_own_request_alone(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=100, held=True)
        async with batching(encoder, counted) as batcher:
            first = asked(batcher.encode(["first"]))
            await encoder.has_begun()
            groups = [[f"fine {number}", "twice"] for number in range(9)]
            tasks = [asked(batcher.encode(group)) for group in groups]
            bad = asked(batcher.encode(["good", "some poison", "good too"]))
            await waiting(batcher, 21)
            encoder.let_go()
            for task, group in zip([first, *tasks], [["first"], *groups], strict=True):
                assert_vectors(await task, group)
            with pytest.raises(PoisonError, match=r"one of the texts: index out of range in self$") as poisoned:
                await bad
            assert poisoned.value.reason == "model"
            assert batcher.stuck() is None

    asyncio.run(main())
    assert counted("failed_texts_total") == 1
    assert counted("failed_batches_total") > 1


def test_a_text_whose_neighbour_fails_and_goes_away_is_not_taken_for_poison():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=100, held=True)
        async with batching(encoder) as batcher:
            first = asked(batcher.encode(["first"]))
            await encoder.has_begun()
            bad, good = asked(batcher.encode(["some poison"])), asked(batcher.encode(["good"]))
            await waiting(batcher, 2)
            encoder.let_one_go()
            await encoder.has_begun()
            bad.cancel()
            await settled()
            encoder.let_go()
            assert_vectors(await first, ["first"])
            assert_vectors(await good, ["good"])

    asyncio.run(main())


def test_a_model_that_throws_at_any_text_makes_no_poison_of_them(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder()
        async with batching(encoder, counted) as batcher:
            encoder.broken = True
            found = await asyncio.gather(*(batcher.encode([f"t {n}"]) for n in range(3)), return_exceptions=True)
            assert [type(error) for error in found] == [UnavailableError] * 3
            assert batcher.stuck() == "the model throws at any text: index out of range in self"
            encoder.broken = False
            assert_vectors(await batcher.encode(["well again"]), ["well again"])
            assert batcher.stuck() is None

    asyncio.run(main())
    assert counted("failed_texts_total") == 0


def test_one_text_at_which_the_tokenizer_throws_fails_its_own_request_alone(counted: Counted):
    async def main() -> None:
        async with batching(FakeEncoder(batch_tokens=100), counted) as batcher:
            texts = [["a"], ["b"], ["so unspeakable"], ["c"], ["d"]]
            found = await asyncio.gather(*map(batcher.encode, texts), return_exceptions=True)
            assert isinstance(found[2], PoisonError)
            assert str(found[2]) == "the tokenizer cannot make a vector of one of the texts: no token for this"
            for one, group in zip(found, texts, strict=True):
                if one is not found[2]:
                    assert_vectors(one, group)

    asyncio.run(main())
    assert counted("failed_texts_total") == 1


def test_prompts_that_the_forward_pass_must_know_of_do_not_share_batches():
    async def main(told: bool) -> list[list[str]]:
        encoder = FakeEncoder(batch_tokens=100, held=True, told=told)
        async with batching(encoder) as batcher:
            first = asked(batcher.encode(["first"]))
            await encoder.has_begun()
            prompts = [None, "query", "document", "query", None]
            tasks = [asked(batcher.encode([f"{n}"], prompt=prompt)) for n, prompt in enumerate(prompts)]
            await waiting(batcher, 5)
            encoder.let_go()
            await first
            for number, (task, prompt) in enumerate(zip(tasks, prompts, strict=True)):
                assert_vectors(await task, [str(number)], prompt)
            with pytest.raises(UsageError, match="no such prompt"):
                await batcher.encode(["x"], prompt="unknown")
        return [sorted(batch) for batch in encoder.batches[1:]]

    assert asyncio.run(main(told=False)) == [["0", "1", "2", "3", "4"]]
    assert asyncio.run(main(told=True)) == [["0", "4"], ["1", "3"], ["2"]]


def test_draining_finishes_what_is_queued_and_takes_no_more(counted: Counted):
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=2, held=True)
        batcher = Batcher(encoder, BatcherLimits(), BatchingMetrics(counted.registry).of("m"))
        with pytest.raises(UnavailableError, match="not started"):
            await batcher.encode(["too early"])
        batcher.start()
        tasks = [asked(batcher.encode([f"a {number}"])) for number in range(5)]
        await encoder.has_begun()
        drained = asyncio.get_running_loop().create_task(batcher.drain(30))
        await settled()
        with pytest.raises(UnavailableError, match="shutting down; send it to another one"):
            await batcher.encode(["too late"])
        encoder.let_go()
        assert await drained
        for number, task in enumerate(tasks):
            assert_vectors(await task, [f"a {number}"])
        assert await batcher.drain(0)

    asyncio.run(main())
    assert counted("rejected_requests_total", reason="unavailable") == 2


def test_what_cannot_be_finished_while_draining_is_told_so():
    async def main() -> None:
        encoder = FakeEncoder(batch_tokens=2, held=True)
        batcher = Batcher(encoder, BatcherLimits(), BatchingMetrics(CollectorRegistry()).of("m"))
        batcher.start()
        tasks = [asked(batcher.encode([f"a {number}"])) for number in range(5)]
        await encoder.has_begun()
        assert not await batcher.drain(0.01)
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, UnavailableError)
        encoder.let_go()
        await settled()
        assert batcher.queue_texts == 0

    asyncio.run(main())


def test_a_batch_that_never_ends_is_seen():
    async def main() -> None:
        encoder = FakeEncoder(held=True)
        async with batching(encoder, stuck_s=0.01) as batcher:
            assert batcher.stuck() is None
            task = asked(batcher.encode(["a"]))
            await encoder.has_begun()
            await asyncio.sleep(0.02)
            assert str(batcher.stuck()).startswith("a batch has been running for ")
            encoder.let_go()
            await task
            assert batcher.stuck() is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "least"), [("queue_texts", "1 or more"), ("queue_characters", "1 or more"), ("stuck_s", "more than 0")]
)
def test_limits_must_let_something_through(name: str, least: str):
    with pytest.raises(UsageError, match=rf"^{name.replace('_', '-')}: expected {least}.*, got 0"):
        BatcherLimits(**{name: 0})
    with pytest.raises(UsageError, match=r"^batch-tokens: "):
        BatcherLimits(batch_tokens=-1)
