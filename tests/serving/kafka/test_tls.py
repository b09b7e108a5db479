"""TLS and logins, each for real (:mod:`tests.support.tls_proxy`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.components.secret import Secret
from driftline.serving.errors import UnavailableError
from driftline.serving.kafka.client import open_consumer, open_producer, record_of
from driftline.serving.kafka.settings import KafkaSettings, SaslMechanism
from tests.support.brokers import create_topics, eventually
from tests.support.tls_proxy import LoginProxy, TlsProxy, authority, behind


def round_trip(settings: KafkaSettings, topic: str) -> bytes | None:
    producer = open_producer(settings)
    producer.send(topic, b"over TLS", b"k").get(timeout=30)
    producer.close()
    consumer = open_consumer(settings, group=None)
    consumer.subscribe([topic])
    found: list[bytes | None] = []
    eventually(
        lambda: bool(found.extend(record_of(r).value for rs in consumer.poll(200).values() for r in rs) or found)
    )
    consumer.close()
    return found[0]


@pytest.mark.parametrize("mutual", [False, True])
def test_records_pass_over_tls(tmp_path: Path, mutual: bool) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    own_certificate, own_key = authority(tmp_path / "client", "client")
    with behind(TlsProxy(certificate, key, own_certificate if mutual else None)) as address:
        settings = KafkaSettings(
            (address,),
            security_protocol="SSL",
            tls_ca_file=str(certificate),
            tls_certificate_file=str(own_certificate) if mutual else "",
            tls_key_file=str(own_key) if mutual else "",
        )
        producer = open_producer(settings)
        producer.close()
        create_topics(address, {"t": 1}, **client_options(settings))
        assert round_trip(settings, "t") == b"over TLS"


def test_a_broker_whose_authority_is_not_trusted_is_refused(tmp_path: Path) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    stranger, _ = authority(tmp_path / "stranger", "stranger")
    with behind(TlsProxy(certificate, key)) as address:
        settings = KafkaSettings((address,), security_protocol="SSL", tls_ca_file=str(stranger))
        with pytest.raises(UnavailableError, match=f"Kafka at {address}: .*check the address, the security settings"):
            open_producer(settings, bootstrap_timeout_ms=1000)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_records_pass_behind_a_login(tmp_path: Path, mechanism: SaslMechanism) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    proxy = LoginProxy(certificate, key, mechanism, "driftline", "a secret")
    with behind(proxy) as address:
        settings = login(address, certificate, mechanism, "a secret")
        create_topics(address, {"t": 1}, **client_options(settings))
        assert round_trip(settings, "t") == b"over TLS"
    assert len(proxy.names) >= 3
    assert (set(proxy.names), proxy.refused) == ({"driftline"}, 0)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_refused_and_not_shown(tmp_path: Path, mechanism: SaslMechanism) -> None:
    certificate, key = authority(tmp_path / "broker", "broker")
    proxy = LoginProxy(certificate, key, mechanism, "driftline", "a secret")
    with (
        behind(proxy) as address,
        pytest.raises(UnavailableError, match="check the address, the security settings") as refused,
    ):
        open_producer(login(address, certificate, mechanism, "wrong-one"), bootstrap_timeout_ms=1000)
    assert "wrong-one" not in str(refused.value)
    assert proxy.names == []
    assert proxy.refused >= 1


def login(address: str, certificate: Path, mechanism: SaslMechanism, password: str) -> KafkaSettings:
    return KafkaSettings(
        (address,),
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,
        sasl_username="driftline",
        sasl_password=Secret(password),
        tls_ca_file=str(certificate),
    )


def client_options(settings: KafkaSettings) -> dict[str, object]:
    return {name: value for name, value in settings.options().items() if name != "bootstrap_servers"}
