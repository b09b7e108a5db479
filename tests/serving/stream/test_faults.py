"""Nothing lost, nothing doubled: workers killed at random moments, the broker stopped, and then the books are checked.

``DRIFTLINE_FAULTS`` sets the size as records, kills and restarts of the broker, such as ``20000,30,3``;
``DRIFTLINE_FAULTS_COMMAND=real`` runs the very command with a small model, whose start takes several times as long. A
real cluster is not restarted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from driftline.pipelines.demo.broker import LocalBroker
from driftline.serving.stream.settings import BatchLimits, BufferLimits
from tests.components.embedding.tiny_models import save_model
from tests.serving.stream.ledger import Ledger, Traffic
from tests.serving.stream.processes import WorkerProcess, light_command, real_command, worker_processes
from tests.serving.stream.workers import Topics
from tests.support.brokers import (
    REAL_CLUSTER,
    committed,
    ends,
    eventually_in_group,
    group_state,
    produce,
    read_topic,
    restartable_broker,
)

RECORDS, KILLS, RESTARTS = map(int, os.environ.get("DRIFTLINE_FAULTS", "2000,6,2").split(","))
REAL = os.environ.get("DRIFTLINE_FAULTS_COMMAND") == "real"
WORKERS = 2

_CHUNKS = 40

KILL = "worker killed -9"
RESTART_KILLED = "broker restarted, workers killed -9 before"
RESTART_IDLE = "broker restarted under its workers"


@pytest.fixture
def broker() -> Generator[LocalBroker | None]:
    if REAL_CLUSTER:
        yield None
        return
    with restartable_broker() as own:
        yield own


class Faults:
    """Kills workers and restarts the broker.

    noida-db forgets transactions that are open when it stops, and reports them as committed later. So when it is
    stopped, either the workers are killed first, with transactions open, or they live and have none open, as there is
    nothing to do.
    """

    def __init__(self, workers: list[WorkerProcess], broker: LocalBroker | None, topics: Topics) -> None:
        self.workers = workers
        self.broker = broker
        self.topics = topics
        self.chance = random.Random(5)
        self._former: dict[str, str] = {}
        self.struck: dict[str, list[int]] = {KILL: [], RESTART_KILLED: [], RESTART_IDLE: []}

    def kill_one(self, chunk: int) -> None:
        """Kill a worker at work on a chunk of the records: once offsets are committed, after a moment of any length."""
        self.settle(self.is_settled)
        before = self._committed()
        self.settle(lambda: self.is_done() or self._committed() != before)
        time.sleep(self.chance.uniform(0.0, 0.2))
        _, self._former = group_state(self.topics.bootstrap, self.topics.group)
        number = self.chance.randrange(len(self.workers))
        self._former = {name: found for name, found in self._former.items() if name == f"w{number}"}
        self.workers[number].kill()
        self.workers[number].start()
        self.struck[KILL].append(chunk)

    def settle(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait until a condition holds; where it does not, say how the group is."""
        try:
            eventually_in_group(condition, self.broker, self.topics.group, len(self.workers), timeout_s)
        except TimeoutError as error:
            state = group_state(self.topics.bootstrap, self.topics.group)
            raise TimeoutError(f"the workers do not go on: {state}, committed {self._committed()}") from error

    def restart_broker(self, chunk: int) -> None:
        """Restart the broker before a chunk of the records is sent."""
        if self.broker is None:
            return
        with_workers = len(self.struck[RESTART_KILLED]) == len(self.struck[RESTART_IDLE])
        if with_workers:
            for worker in self.workers:
                worker.kill()
        else:
            self.settle(self.is_done)
            time.sleep(0.5)  # the transaction of the last offsets is over
        self.broker.stop()
        time.sleep(1.0 if with_workers else 3.0)
        self.broker.start()
        if with_workers:
            for worker in self.workers:
                worker.start()
        self.struck[RESTART_KILLED if with_workers else RESTART_IDLE].append(chunk)

    def is_done(self) -> bool:
        """Whether everything that was sent is committed."""
        sent = {partition: end for partition, end in ends(self.topics.bootstrap, self.topics.source).items() if end}
        return self._committed() == sent

    def is_settled(self) -> bool:
        """Whether every worker has its partitions, the one that was killed last in its new life."""
        state, members = group_state(self.topics.bootstrap, self.topics.group)
        back = not self._former.items() & members.items()
        return state == "Stable" and len(members) == len(self.workers) and back

    def _committed(self) -> dict[int, int]:
        return committed(self.topics.bootstrap, self.topics.group, self.topics.source)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_nothing_is_lost_and_nothing_is_doubled(
    broker: LocalBroker | None, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    bootstrap = REAL_CLUSTER or broker.address  # type: ignore[union-attr]
    topics = Topics.create(bootstrap)
    traffic = Traffic.of(RECORDS, seed=1)
    names = [f"w{number}" for number in range(WORKERS)]
    if REAL:
        model = save_model(tmp_path / "model", normalize=True)
        options = ("--batch-records=16", "--buffer-records=64")
        commands = [real_command(topics, name, model, *options) for name in names]
    else:
        batch, buffer = BatchLimits(16, 4096, 5.0), BufferLimits(64, 65_536)
        commands = [light_command(topics, name, batch=batch, buffer=buffer) for name in names]
    with worker_processes(commands, tmp_path) as workers:
        faults = Faults(workers, broker, topics)
        size = -(-RECORDS // _CHUNKS)
        plan = random.Random(6)
        kills = [plan.randrange(_CHUNKS) for _ in range(KILLS)]
        restarts = [(number + 1) * _CHUNKS // (RESTARTS + 1) for number in range(RESTARTS)]
        for chunk in range(_CHUNKS):
            for _ in range(restarts.count(chunk)):
                faults.restart_broker(chunk)
            produce(bootstrap, topics.source, traffic.sent[chunk * size : (chunk + 1) * size])
            for _ in range(kills.count(chunk)):
                faults.kill_one(chunk)
        faults.settle(faults.is_done)
        faults.settle(faults.is_settled)  # so that all are there to be told to end
        statuses = [worker.end() for worker in workers]
    topics_read = [read_topic(bootstrap, topic) for topic in (topics.source, topics.output, topics.dead_letters)]
    ledger = Ledger.of(traffic, *topics_read)
    lines = [str(ledger), ""]
    for kind, chunks in faults.struck.items():
        # What was in hand at such a fault is of the chunk just sent, or of the one before.
        near = {number for chunk in chunks for number in range((chunk - 1) * size, (chunk + 1) * size)}
        own = Ledger.of(traffic, *topics_read, only=near)
        lines.append(
            f"{kind}: {len(chunks)} times, {own.sent} records near, missing {own.missing}, doubled {own.doubled}, "
            f"misplaced {own.misplaced}, disordered {own.disordered}"
        )
    record_property("ledger", "\n".join(lines))
    print("", *lines, sep="\n")  # noqa: T201 - shown by -s, and where the test fails
    assert (ledger.missing, ledger.doubled, ledger.misplaced, ledger.disordered) == (0, 0, 0, 0)
    assert ledger.sent == ledger.received == RECORDS
    assert ledger.tombstones == len(traffic.tombstones)
    assert sum(ledger.dead_letters.values()) == len(traffic.reasons)
    assert len(faults.struck[KILL]) == KILLS
    assert statuses == [0] * WORKERS
