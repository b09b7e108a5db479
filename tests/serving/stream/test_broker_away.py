"""The broker goes away and comes back; DRIFTLINE_BROKER_AWAY_S says for how long."""

from __future__ import annotations

import os
import time

import pytest

from driftline.serving.stream.settings import BatchLimits
from tests.serving.stream.workers import FakeEncoder, Topics, by_source, check_vectors, running, texts
from tests.support.brokers import committed, ends, eventually, produce, read_topic, restartable_broker

AWAY_S = float(os.environ.get("DRIFTLINE_BROKER_AWAY_S", "5"))


@pytest.mark.slow
def test_a_worker_waits_for_the_broker_and_goes_on() -> None:
    with restartable_broker() as broker:
        topics = Topics.create(broker.address)

        def is_done() -> bool:
            sent = {partition: end for partition, end in ends(topics.bootstrap, topics.source).items() if end}
            return committed(topics.bootstrap, topics.group, topics.source) == sent

        with running(topics, FakeEncoder(), batch=BatchLimits(records=32)) as worker:
            produce(broker.address, topics.source, texts(200, keys=20))
            eventually(is_done)
            time.sleep(0.5)  # noida-db forgets transactions that are open when it stops
            broker.stop()
            time.sleep(AWAY_S)
            assert worker.thread.is_alive()
            broker.start()
            produce(broker.address, topics.source, texts(200, keys=20, start=200))
            eventually(is_done, timeout_s=90)
        found = read_topic(broker.address, topics.output)
    check_vectors(found)
    assert len(found) == 400
    assert {len(records) for records in by_source(found).values()} == {1}


@pytest.mark.slow
def test_nothing_is_lost_when_the_broker_goes_away_in_the_midst_of_work() -> None:
    """At least once, since noida-db reports transactions as committed that it forgot when it stopped."""
    with restartable_broker() as broker:
        topics = Topics.create(broker.address)
        produce(broker.address, topics.source, texts(400, keys=20))
        encoder = FakeEncoder(seconds=0.05)
        with running(topics, encoder, delivery="at-least-once", batch=BatchLimits(records=16)) as worker:
            eventually(lambda: worker.metric("commits_total") >= 5)
            broker.stop()
            time.sleep(1.0)
            broker.start()
            eventually(lambda: len(by_source(read_topic(broker.address, topics.output))) == 400, timeout_s=90)
        found = read_topic(broker.address, topics.output)
    check_vectors(found)
    assert len(by_source(found)) == 400
