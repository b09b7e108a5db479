"""Whatever comes, goes and fails, and whenever: every request gets exactly its own vectors, in order."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from driftline.serving.batching.batcher import Batcher
from driftline.serving.batching.limits import BatcherLimits
from driftline.serving.batching.metrics import BatchingMetrics
from driftline.serving.batching.request import Embedded
from driftline.serving.errors import PoisonError
from tests.serving.batching.fake_encoder import FakeEncoder, vector


@dataclass(frozen=True)
class Call:
    """A request: its texts, and how the caller behaves."""

    texts: list[str]
    prompt: str | None
    before: int
    cancelled_after: int | None


words = st.sampled_from(["a", "film", "plot", "the", "poison", "unspeakable", "ü", "文"])
plain = st.sampled_from(["a", "film", "plot", "the", "ü", "文"])
texts = st.lists(plain, min_size=1, max_size=12).map(" ".join) | st.lists(words, max_size=3).map(" ".join)
calls = st.lists(
    st.builds(
        Call,
        texts=st.lists(texts, min_size=1, max_size=8),
        prompt=st.sampled_from([None, "query", "document"]),
        before=st.integers(0, 3),
        cancelled_after=st.none() | st.none() | st.integers(0, 6),
    ),
    min_size=1,
    max_size=12,
)


def bad(call: Call) -> bool:
    return any("poison" in text or "unspeakable" in text for text in call.texts)


@settings(max_examples=60)
@given(calls, st.integers(1, 30), st.booleans())
def test_every_request_gets_its_own_vectors_in_order(calls: list[Call], batch_tokens: int, told: bool):
    async def one(batcher: Batcher, call: Call) -> Embedded:
        for _ in range(call.before):
            await asyncio.sleep(0)
        return await batcher.encode(call.texts, prompt=call.prompt)

    async def main() -> None:
        encoder = FakeEncoder(batch_tokens, told=told)
        batcher = Batcher(encoder, BatcherLimits(), BatchingMetrics(CollectorRegistry()).of("m"))
        batcher.start()
        tasks = [asyncio.get_running_loop().create_task(one(batcher, call)) for call in calls]
        for turn in range(7):
            for task, call in zip(tasks, calls, strict=True):
                if call.cancelled_after == turn:
                    task.cancel()
            await asyncio.sleep(0)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for call, outcome in zip(calls, found, strict=True):
            if isinstance(outcome, asyncio.CancelledError):
                assert call.cancelled_after is not None
            elif isinstance(outcome, Embedded):
                expected = np.stack([vector(text, call.prompt) for text in call.texts])
                np.testing.assert_array_equal(outcome.vectors, expected)
                assert outcome.tokens == sum(len(text.split()) for text in call.texts)
                assert not bad(call)
            else:
                assert isinstance(outcome, PoisonError)
                assert bad(call)
        assert batcher.queue_texts == batcher.queue_characters == 0
        assert batcher.stuck() is None
        for batch in encoder.batches:
            assert len(batch) == 1 or sum(len(text.split()) for text in batch) <= batch_tokens
        assert await batcher.drain(10)

    asyncio.run(main())


def test_batchers_on_one_device_take_turns():
    running = 0
    most = 0

    class Watched(FakeEncoder):
        def finish(self, prepared):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return super().finish(prepared)
            finally:
                running -= 1

    async def main() -> None:
        metrics = BatchingMetrics(CollectorRegistry())
        with ThreadPoolExecutor(1) as device:
            batchers = [Batcher(Watched(6), BatcherLimits(), metrics.of(name), executor=device) for name in ("a", "b")]
            for batcher in batchers:
                batcher.start()
            given = [[f"{number} of {side}" for number in range(9)] for side in range(2)]
            found = await asyncio.gather(*(b.encode(texts) for b, texts in zip(batchers, given, strict=True)))
            for one, texts in zip(found, given, strict=True):
                np.testing.assert_array_equal(one.vectors, np.stack([vector(text) for text in texts]))
            assert [await batcher.drain(10) for batcher in batchers] == [True, True]

    asyncio.run(main())
    assert most == 1
