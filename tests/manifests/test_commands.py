"""What the manifests tell the commands is what the commands understand."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
import pytest

from driftline.serving.__main__ import serving
from driftline.serving.commands.group import COMMANDS
from tests.manifests.objects import Object, environment, named, pod_of


def command(name: str) -> click.Command:
    """One of the commands, its options' variables named."""
    found = serving.get_command(click.Context(serving), name)
    assert found is not None
    return found


COMPONENTS = ("serve", "stream", "archive", "monitor")


def arguments_of(objects: Sequence[Object], component: str) -> list[str]:
    """The command's own arguments, after its name."""
    container = pod_of(objects, component).container
    assert container["command"] == ["python3", "-m", "driftline.serving"]
    assert container["args"][0] == component
    return container["args"][1:]


def parsed(objects: Sequence[Object], component: str, monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """The command line and the environment as the command reads them in the container; nothing is run."""
    for name in [name for name in os.environ if name.startswith("DRIFTLINE_")]:
        monkeypatch.delenv(name)
    for name, value in environment(pod_of(objects, component), objects).items():
        monkeypatch.setenv(name, value)
    return command(component).make_context(component, arguments_of(objects, component))


def options_of(component: str) -> dict[str, click.Option]:
    """The command's options by environment variable."""
    options = [one for one in command(component).params if isinstance(one, click.Option)]
    return {str(one.envvar): one for one in options}


@pytest.mark.parametrize("component", COMPONENTS)
class TestCommand:
    def test_it_takes_what_the_container_is_told(
        self, base: list[Object], component: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing that must be given is missing, and every value is one of those that its option takes."""
        values = parsed(base, component, monkeypatch).params
        assert values["bootstrap_servers"] == "kafka.example.com:9092"

    def test_every_variable_is_an_option(self, base: list[Object], component: str) -> None:
        given = [name for name in environment(pod_of(base, component), base) if name.startswith("DRIFTLINE_")]
        assert len(given) >= 4
        assert [name for name in given if name not in options_of(component)] == []

    def test_every_flag_is_an_option(self, base: list[Object], component: str) -> None:
        known = {flag for option in options_of(component).values() for flag in option.opts}
        assert {argument.partition("=")[0] for argument in arguments_of(base, component)} <= known

    def test_it_listens_at_the_containers_ports(
        self, base: list[Object], component: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = parsed(base, component, monkeypatch).params
        expected = sorted(port["containerPort"] for port in pod_of(base, component).container["ports"])
        assert sorted(value for name, value in values.items() if name.endswith("_port")) == expected


@pytest.mark.parametrize("component", ["stream", "archive", "monitor"])
def test_a_missing_setting_would_be_seen(base: list[Object], component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named(base, "ConfigMap", "driftline-kafka")["data"].pop("BOOTSTRAP_SERVERS")
    with pytest.raises(click.MissingParameter, match="bootstrap"):
        parsed(base, component, monkeypatch)


def test_every_long_running_command_has_a_pod() -> None:
    assert {*COMPONENTS, "dead-letters"} == set(COMMANDS)


def test_a_variable_that_no_option_has_would_be_seen(base: list[Object]) -> None:
    named(base, "ConfigMap", "driftline-kafka")["data"]["BOOTSTRAP_SERVER"] = "kafka:9092"
    assert "DRIFTLINE_STREAM_BOOTSTRAP_SERVER" in environment(pod_of(base, "stream"), base).keys() - options_of(
        "stream"
    )
