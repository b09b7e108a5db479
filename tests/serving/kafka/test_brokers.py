"""What the tests' brokers can do, which other tests rest on."""

from __future__ import annotations

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from tests.support.brokers import (
    committed,
    create_topics,
    fresh,
    produce,
    read_topic,
    restartable_broker,
    tansu_broker,
)


def test_a_stopped_broker_comes_back_at_the_same_address_with_everything() -> None:
    with restartable_broker() as broker:
        create_topics(broker.address, {"t": 3})
        produce(broker.address, "t", [(b"k%d" % n, b"v", (("h", b"1"),)) for n in range(100)])
        broker.stop()
        broker.start()
        produce(broker.address, "t", [(b"after", None, ())])
        found = read_topic(broker.address, "t")
    assert sorted(record.key or b"" for record in found) == sorted([*(b"k%d" % n for n in range(100)), b"after"])
    assert {record.headers for record in found} == {(("h", b"1"),), ()}


def test_aborted_records_are_hidden_and_offsets_ride_in_the_transaction(bootstrap: str) -> None:
    topic, group = fresh("t"), fresh("g")
    create_topics(bootstrap, {topic: 2})
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=fresh("id"))
    producer.init_transactions()
    for value, end in ((b"aborted", producer.abort_transaction), (b"kept", producer.commit_transaction)):
        producer.begin_transaction()
        producer.send(topic, key=b"k", value=value, partition=0)
        offsets = {TopicPartition(topic, 1): OffsetAndMetadata(7 if value == b"kept" else 3, "", -1)}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        end()
    producer.close()
    consumer.close()
    assert [record.value for record in read_topic(bootstrap, topic)] == [b"kept"]
    assert committed(bootstrap, group, topic) == {1: 7}


def test_tansu_keeps_keys_headers_and_tombstones() -> None:
    with tansu_broker() as bootstrap:
        topic = fresh("t")
        create_topics(bootstrap, {topic: 1})
        produce(bootstrap, topic, [(b"a", b"1", (("h", b"x"),)), (b"a", None, ())])
        found = read_topic(bootstrap, topic)
    assert [(record.key, record.value, record.headers) for record in found] == [
        (b"a", b"1", (("h", b"x"),)),
        (b"a", None, ()),
    ]
