from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, KafkaProducer

from driftline.components.errors import UsageError
from driftline.components.secret import Secret
from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.kafka import client as clients
from driftline.serving.kafka.settings import KafkaSettings

PASSWORD = "correct horse battery staple"
LOGIN: dict[str, Any] = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "driftline",
    "sasl_password": Secret(PASSWORD),
}


def test_a_secret_shows_itself_nowhere_but_when_asked() -> None:
    settings = KafkaSettings(("b:9092",), **LOGIN)
    shown = [
        repr(settings),
        str(settings),
        f"{settings!r:>1}",
        repr(settings.sasl_password),
        f"{settings.sasl_password}",
    ]
    assert not [text for text in shown if PASSWORD in text]
    assert settings.sasl_password is not None
    assert settings.sasl_password.reveal() == PASSWORD
    try:
        raise ValueError(settings)
    except ValueError:
        assert PASSWORD not in traceback.format_exc()


def test_secrets_are_equal_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
def test_the_login_reaches_the_client(protocol: str) -> None:
    options = KafkaSettings(("a:1", "b:2"), **{**LOGIN, "security_protocol": protocol}).options()
    assert options["bootstrap_servers"] == ["a:1", "b:2"]
    assert options["security_protocol"] == protocol
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("driftline", PASSWORD)


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaProducer])
def test_every_option_is_one_that_the_client_knows(client: Any) -> None:
    files = {"tls_ca_file": "ca", "tls_certificate_file": "cert", "tls_key_file": "key"}
    options = KafkaSettings(("b:9092",), **LOGIN, **files).options()
    assert set(options) <= set(client.DEFAULT_CONFIG)
    assert (options["ssl_cafile"], options["ssl_certfile"], options["ssl_keyfile"]) == ("ca", "cert", "key")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bootstrap_servers": ()}, "expected host:port of at least one broker"),
        ({**LOGIN, "sasl_password": None}, "needs a SASL mechanism, a user name and a password"),
        ({**LOGIN, "sasl_mechanism": None}, "needs a SASL mechanism"),
        ({**LOGIN, "sasl_username": ""}, "needs a SASL mechanism"),
        ({"sasl_username": "me"}, "it has no login"),
        ({"security_protocol": "SSL", "sasl_password": Secret("x")}, "it has no login"),
        ({"tls_ca_file": "ca.pem"}, "it is not encrypted"),
        ({"security_protocol": "SSL", "tls_key_file": "key.pem"}, "give both or neither"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        KafkaSettings(**{"bootstrap_servers": ("b:9092",), **changes})
    assert PASSWORD not in str(caught.value)


def test_options_become_settings_and_the_password_comes_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    found: list[KafkaSettings] = []

    @click.command()
    @kafka_options()
    def command(kafka: KafkaSettings) -> None:
        found.append(kafka)

    arguments = [
        "--bootstrap-servers=a:1, b:2", "--security-protocol=SASL_SSL", "--sasl-mechanism=PLAIN",
        "--sasl-username=me", f"--sasl-password-file={secret}", "--tls-ca-file=ca.pem",
    ]  # fmt: skip
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    [kafka] = found
    assert kafka.bootstrap_servers == ("a:1", "b:2")
    assert kafka.sasl_password == Secret(PASSWORD)
    assert kafka.tls_ca_file == "ca.pem"


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    @click.command()
    @kafka_options()
    def command(kafka: KafkaSettings) -> None:
        raise AssertionError(kafka)

    arguments = ["--bootstrap-servers=a:1", f"--sasl-password-file={tmp_path / 'none'}"]
    with pytest.raises(UsageError, match=r"sasl-password-file .*none: No such file or directory"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_clients_are_opened_with_what_the_guarantees_rest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[dict[str, Any]] = []

    def client(**options: Any) -> object:
        opened.append(options)
        return object()

    for name in ("KafkaConsumer", "KafkaProducer"):
        monkeypatch.setattr(clients, name, client)
    settings = KafkaSettings(("b:9092",), **LOGIN)
    clients.open_consumer(settings, group="g", instance_id="w0")
    clients.open_producer(settings, transactional_id="t")
    consumer, producer = opened
    assert consumer["isolation_level"] == "read_committed"
    assert consumer["enable_auto_commit"] is False
    assert (consumer["group_id"], consumer["group_instance_id"]) == ("g", "w0")
    assert (producer["acks"], producer["enable_idempotence"], producer["transactional_id"]) == ("all", True, "t")
    assert consumer["sasl_plain_password"] == producer["sasl_plain_password"] == PASSWORD


def test_settings_survive_a_copy_to_another_process() -> None:
    settings = KafkaSettings(("b:9092",))
    assert pickle.loads(pickle.dumps(settings)) == settings
