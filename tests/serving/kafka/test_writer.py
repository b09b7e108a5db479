"""The writer: each answer looked at, a producer that failed not used again, transactions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError, ProducerFencedError
from kafka.structs import OffsetAndMetadata, TopicPartition

from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import open_producer
from driftline.serving.kafka.writer import TopicWriter, is_fenced, is_too_large
from driftline.serving.records.record import OutgoingRecord
from tests.support.brokers import committed, create_topics, eventually, fresh, read_topic, settings_of


@pytest.fixture
def topic(bootstrap: str) -> str:
    name = fresh("t")
    create_topics(bootstrap, {name: 1})
    return name


def plain(bootstrap: str, opened: list[Any]) -> TopicWriter:
    def open_one() -> Any:
        opened.append(open_producer(settings_of(bootstrap)))
        return opened[-1]

    return TopicWriter(open_one)


def transactional(bootstrap: str, name: str) -> TopicWriter:
    return TopicWriter(lambda: open_producer(settings_of(bootstrap), transactional_id=name), transactional=True)


def values(bootstrap: str, topic: str) -> list[bytes | None]:
    return [record.value for record in read_topic(bootstrap, topic)]


def test_each_record_has_its_outcome_and_a_producer_that_failed_is_replaced(bootstrap: str, topic: str) -> None:
    opened: list[Any] = []
    with closing(plain(bootstrap, opened)) as writer:
        assert writer.flush() == []
        assert opened == [], "it is opened when it is needed"
        fine = [OutgoingRecord(topic, b"k", b"%d" % number, (("h", b"x"),)) for number in range(3)]
        assert writer.write(fine) == [None] * 3
        [too_large] = writer.write([OutgoingRecord(topic, b"k", b"x" * 17 * 2**20, ())])
        assert is_too_large(too_large)
        writer.send(fine[0])
        assert writer.flush() == [None]
    with pytest.raises(UnavailableError, match="has been closed"):
        writer.write(fine)
    assert len(opened) == 2
    assert values(bootstrap, topic) == [b"0", b"1", b"2", b"0"]
    assert read_topic(bootstrap, topic)[0].headers == (("h", b"x"),)


def test_what_was_sent_before_a_failure_is_not_taken_for_safe() -> None:
    class Pending:
        def failed(self) -> bool:
            return False

        def get(self, timeout: float) -> None:
            raise KafkaTimeoutError("no answer yet")

    class Stuck:
        """Acknowledges nothing, and refuses a second record."""

        sent = 0

        def send(self, topic: str, **record: object) -> Pending:
            self.sent += 1
            if self.sent == 2:
                raise KafkaTimeoutError("no metadata")
            return Pending()

        def close(self, timeout: float) -> None:
            pass

    writer, record = TopicWriter(Stuck), OutgoingRecord("t", b"k", b"v", ())  # type: ignore[arg-type]
    writer.send(record)
    with pytest.raises(KafkaTimeoutError):
        writer.send(record)
    with pytest.raises(KafkaError):
        writer.flush()
    assert writer.flush() == []


def test_a_submitted_records_outcome_is_called_back(bootstrap: str, topic: str) -> None:
    opened: list[Any] = []
    outcomes: list[BaseException | None] = []
    with closing(plain(bootstrap, opened)) as writer:
        writer.submit(OutgoingRecord(topic, None, b"v", ()), outcomes.append)
        eventually(lambda: outcomes == [None])
        opened[0].send = raising(KafkaTimeoutError("no metadata"))
        with pytest.raises(KafkaTimeoutError):
            writer.submit(OutgoingRecord(topic, None, b"lost", ()), outcomes.append)
        writer.submit(OutgoingRecord(topic, None, b"w", ()), outcomes.append)
        eventually(lambda: outcomes == [None, None])
    assert len(opened) == 2
    assert values(bootstrap, topic) == [b"v", b"w"]


def raising(error: Exception) -> Callable[..., None]:
    def send(*arguments: object, **options: object) -> None:
        raise error

    return send


def test_offsets_count_with_the_transactions_records_and_the_next_of_its_name_aborts_it(
    bootstrap: str, topic: str
) -> None:
    group, name, at = fresh("g"), fresh("id"), TopicPartition(topic, 0)
    with closing(transactional(bootstrap, name)) as first:
        first.begin()
        assert first.write([OutgoingRecord(topic, b"k", b"kept", ())]) == [None]
        first.commit({at: OffsetAndMetadata(7, "", -1)}, group)
        first.begin()
        assert first.write([OutgoingRecord(topic, b"k", b"left open", ())]) == [None]
        with closing(transactional(bootstrap, name)) as second:
            second.start()
            with pytest.raises(KafkaError) as refused:
                first.commit({at: OffsetAndMetadata(8, "", -1)}, group)
            assert is_fenced(refused.value)
    assert values(bootstrap, topic) == [b"kept"]
    assert committed(bootstrap, group, topic) == {0: 7}


def test_a_fenced_client_is_known_by_its_error_or_by_its_words() -> None:
    assert is_fenced(ProducerFencedError())
    assert is_fenced(KafkaTimeoutError("aborted by ProducerFencedError"))
    assert not is_fenced(KafkaTimeoutError("no answer"))
