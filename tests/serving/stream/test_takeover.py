"""What only a broker that evicts silent members shows: Tansu, which has no transactions worth the name.

It evicts dynamic members only.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from driftline.serving.stream.settings import BatchLimits
from tests.serving.stream.processes import light_command, worker_processes
from tests.serving.stream.workers import FakeEncoder, Topics, by_source, check_vectors, running, texts
from tests.support.brokers import eventually, produce, read_topic, tansu_broker


@pytest.fixture(scope="module")
def tansu() -> Generator[str]:
    with tansu_broker() as bootstrap:
        yield bootstrap


def results(topics: Topics) -> dict[tuple[str, str], int]:
    found = by_source(read_topic(topics.bootstrap, topics.output))
    return {place: len(records) for place, records in found.items()}


@pytest.mark.slow
def test_the_partitions_of_a_killed_worker_are_taken_over(tansu: str, tmp_path: Path) -> None:
    topics = Topics.create(tansu)
    options = {"delivery": "at-least-once", "static": False, "session_timeout_s": 6.0}
    commands = [light_command(topics, name, **options) for name in ("w0", "w1")]
    with worker_processes(commands, tmp_path) as (first, _):
        produce(tansu, topics.source, texts(200, keys=40))
        eventually(lambda: len(results(topics)) == 200)
        first.kill()
        produce(tansu, topics.source, texts(200, keys=40, start=200))
        eventually(lambda: len(results(topics)) == 400, timeout_s=90)
    check_vectors(read_topic(tansu, topics.output))


@pytest.mark.slow
def test_partitions_move_one_by_one_where_the_assignment_is_cooperative(tansu: str) -> None:
    topics = Topics.create(tansu)
    options = {
        "delivery": "at-least-once",
        "assignment": "cooperative-sticky",
        "static": False,
        "session_timeout_s": 6.0,  # each of the three joins takes half of it: Tansu waits so long for members
        "batch": BatchLimits(20, 4096, 5.0),
    }
    slow = FakeEncoder(seconds=0.02)
    with running(topics, slow, **options) as first:
        produce(tansu, topics.source, texts(200, keys=40))
        eventually(lambda: first.metric("partitions") == 4)
        with running(topics, slow, instance_id="w1", **options) as second:
            eventually(lambda: first.metric("partitions") == second.metric("partitions") == 2, timeout_s=240)
            produce(tansu, topics.source, texts(200, keys=40, start=200))
            eventually(lambda: len(results(topics)) == 400, timeout_s=90)
            assert second.metric("commits_total") > 0
    check_vectors(read_topic(tansu, topics.output))
