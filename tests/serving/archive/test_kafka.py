"""The archive on a broker: the command itself, stopped, killed, and beside another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from driftline.serving.archive.rows import Row
from driftline.serving.records.embeddings import read_embedding
from driftline.serving.records.provenance import dead_letters_topic, read_dead_letter
from tests.serving.archive.archived import archived, busy_log, embedding, expected_of, files_of, named_files, offsets_of
from tests.support.brokers import (
    committed,
    create_topics,
    eventually,
    eventually_in_group,
    fresh,
    group_state,
    noida_broker,
    produce,
    read_topic,
    restartable_broker,
)

POISON = b"no embedding"


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with noida_broker() as bootstrap:
        yield bootstrap


class Worker:
    """The command in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """Ask it to end once it runs, and return its status: a signal ends Python itself while it starts."""
        self.url("/")
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill it once it runs."""
        self.url("/")
        self.process.kill()
        self.process.wait()

    def metrics(self) -> str:
        return urllib.request.urlopen(self.url("/metrics")).read().decode()

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        return float(self.metrics().partition(f"\ndriftline_archive_{name} ")[2].split()[0])

    def url(self, path: str) -> str:
        """Where its health is, once it says so."""
        eventually(lambda: "health and metrics on port" in self.log)
        port = self.log.partition("health and metrics on port ")[2].split()[0]
        return f"http://127.0.0.1:{port}{path}"


@contextmanager
def worker(folder: Path, bootstrap: str, topic: str, out: str, *options: str) -> Iterator[Worker]:
    """Run `driftline archive`, which writes at once and compacts after a second, unless options say otherwise."""
    folder.mkdir(exist_ok=True)
    log = folder / f"log-{fresh('w')}.txt"
    common = ["--max-delay-s=0.2", "--compact-after-s=0", "--vacuum-after-s=0", "--health-port=0", f"--group=g-{topic}"]
    command = [sys.executable, "-m", "driftline.serving", "archive", "--bootstrap-servers", bootstrap]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--topic", topic, "--out", out, *common, *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONSAFEPATH": "1", "TMPDIR": str(folder)},
        )
    try:
        yield Worker(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def sent(seed: int, events: int) -> list[tuple[bytes | None, bytes | None, Any]]:
    """Records as `busy_log` has them, without its times."""
    log = busy_log(seed, events)
    return [(record.key, record.value, record.headers) for record in log.records[0]]


def equal(bootstrap: str, topic: str, out: str) -> bool:
    """Whether the archive holds what the topic says."""
    wanted = expected_of(read_topic(bootstrap, topic))
    return offsets_of(out) == {found[:2] for found in wanted.values()} and archived(out, topic) == wanted


@pytest.mark.slow
def test_it_archives_what_is_committed_and_nothing_else(broker: str, tmp_path: Path):
    out, topic = str(tmp_path / "archive"), fresh("embeddings")
    create_topics(broker, {topic: 2})
    producer = KafkaProducer(bootstrap_servers=broker, transactional_id=fresh("t"))
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        for row in range(5):
            name = f"{number}-{row}"
            producer.send(topic, key=name.encode(), value=embedding(name, number * 5 + row))
        producer.send(topic, key=b"bad", value=POISON)
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    with worker(tmp_path, broker, topic, out, "--instance-id", "a") as one:
        eventually(lambda: len(offsets_of(out)) == 15)
        eventually(lambda: urllib.request.urlopen(one.url("/readyz")).read() == b"ok\n")
        assert one.metric("rows_total") == 15
        eventually(lambda: 'driftline_archive_dead_letters_total{reason="not-json"} 3.0' in one.metrics())
        assert one.stop() == 0, one.log
    assert equal(broker, topic, out)
    letters = read_topic(broker, dead_letters_topic(topic))
    assert [letter.value for letter in letters] == [POISON] * 3
    found = [read_dead_letter(letter) for letter in letters]
    assert all(letter is not None and letter.reason == "not-json" for letter in found)
    rows = read_topic(broker, topic)
    assert {str(letter.source) for letter in found if letter} == {str(r.at) for r in rows if r.value == POISON}
    ends = {at: max(r.at.offset for r in rows if r.at.partition == at) for at in (0, 1)}
    assert all(committed(broker, f"g-{topic}", topic)[at] > end for at, end in ends.items())


@pytest.mark.slow
def test_workers_that_are_killed_and_a_broker_that_restarts_lose_and_double_nothing(tmp_path: Path):
    out = str(tmp_path / "archive")
    with restartable_broker() as broker, ExitStack() as stack:
        topic = fresh("embeddings")
        create_topics(broker.address, {topic: 4})

        def start(name: str) -> Worker:
            options = ("--instance-id", name, "--index-dir", str(tmp_path / f"index-{name}"), "--rows-per-file", "40")
            return stack.enter_context(worker(tmp_path, broker.address, topic, out, *options))

        def is_settled() -> bool:
            """Whether both have their partitions: the broker waits for good for one that is killed while it joins."""
            state, members = group_state(broker.address, f"g-{topic}")
            return state == "Stable" and len(members) == 2 and not former.items() & members.items()

        workers, former = {name: start(name) for name in ("a", "b")}, dict[str, str]()
        for turn in range(6):
            before = set(files_of(out))
            produce(broker.address, topic, sent(turn, 150))
            eventually_in_group(is_settled, broker, f"g-{topic}", len(workers))
            if turn % 3 == 2:
                broker.stop()
                broker.start()
            else:
                eventually(lambda before=before: set(files_of(out)) != before)
                name = "ab"[turn % 2]
                former = {name: group_state(broker.address, f"g-{topic}")[1][name]}
                workers[name].kill()
                workers[name] = start(name)
        eventually_in_group(lambda: equal(broker.address, topic, out), broker, f"g-{topic}", len(workers))
        for one in workers.values():
            assert one.stop() == 0, one.log
        assert equal(broker.address, topic, out)
        assert set(named_files(out)) <= set(files_of(out))
        assert len({partition for partition, _ in offsets_of(out)}) == 4


@pytest.mark.slow
def test_two_archives_in_one_folder_are_right_or_refused(broker: str, tmp_path: Path):
    out, topic = str(tmp_path / "archive"), fresh("embeddings")
    create_topics(broker, {topic: 1})
    # By mistake of two groups, so that both have the partition.
    first = worker(tmp_path, broker, topic, out, "--group", fresh("one"))
    second = worker(tmp_path, broker, topic, out, "--group", fresh("two"))
    with first as one, second as two:
        one.url("/")
        two.url("/")
        for turn in range(5):
            before = set(files_of(out))
            produce(broker, topic, sent(turn, 60))
            eventually(lambda before=before: set(files_of(out)) != before)
        eventually(lambda: equal(broker, topic, out), timeout_s=180, interval_s=0.5)
        eventually(lambda: "has taken the partition over" in one.log + two.log)
        assert (one.stop(), two.stop()) == (0, 0)
    assert equal(broker, topic, out)


def test_a_topic_that_is_not_there_is_said(broker: str, tmp_path: Path):
    with worker(tmp_path, broker, fresh("none"), str(tmp_path / "a")) as one:
        assert one.process.wait(60) == 2
        # The client may log that the machine is slow; our own part of the log is one line.
        (line,) = [line for line in one.log.splitlines() if "kafka." not in line and "health and metrics" not in line]
        assert "create it, or name the topic" in line


@pytest.mark.slow
def test_what_was_read_is_written_at_the_end_and_a_topic_that_was_made_anew_is_refused(broker: str, tmp_path: Path):
    out, topic = str(tmp_path / "archive"), fresh("embeddings")
    rows = [(name.encode(), embedding(name, number), ()) for number, name in enumerate("abcde")]
    create_topics(broker, {topic: 1})
    produce(broker, topic, rows)
    with worker(tmp_path, broker, topic, out, "--max-delay-s", "1000") as one:
        read = sum(Row(0, 0, read_embedding(value)).bytes for _, value, _ in rows)
        eventually(lambda: one.metric("buffered_bytes") == read)
        assert offsets_of(out) == set()
        assert one.stop() == 0, one.log
    assert len(offsets_of(out)) == 5
    with noida_broker() as other:
        create_topics(other, {topic: 1})
        produce(other, topic, rows[:2])
        with worker(tmp_path, other, topic, out) as one:
            assert one.process.wait(60) == 1
            assert "the topic was made anew or lost records" in one.log
