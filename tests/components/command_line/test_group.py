"""Groups of commands: what they list, and their environment variables, named after the options that a user types."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from driftline.components.command_line.group import LazyGroup
from driftline.pipelines.cli import cli
from driftline.serving.__main__ import serving
from driftline.serving.commands.group import COMMANDS


def options(found: click.Command) -> dict[str, click.Option]:
    return {name: one for one in found.params if isinstance(one, click.Option) for name in one.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_has_a_variable_named_after_it(name):
    with click.Context(serving) as context:
        found = serving.get_command(context, name)
    assert found is not None
    for flag, option in options(found).items():
        if flag.startswith("--"):
            assert option.envvar == f"DRIFTLINE_{name}_{flag.removeprefix('--')}".replace("-", "_").upper()


def test_the_variable_is_named_after_the_flag_where_the_parameter_has_another_name():
    with click.Context(serving) as context:
        found = serving.get_command(context, "monitor")
    assert found is not None
    option = options(found)["--run-parameter"]
    assert (option.name, option.envvar) == ("run_parameters", "DRIFTLINE_MONITOR_RUN_PARAMETER")


def test_a_variable_is_read_and_an_option_wins():
    arguments = ["--input-topic", "t", "--output-topic", "t", "--model", "m", "--bootstrap-servers", "h:1"]
    environment = {"DRIFTLINE_STREAM_FORMAT": "neither"}
    refused = CliRunner().invoke(serving, ["stream", *arguments], env=environment)
    assert "neither" in refused.output
    taken = CliRunner().invoke(serving, ["stream", *arguments, "--format", "text"], env=environment)
    assert "must be three different ones" in str(taken.exception)


def test_commands_of_the_pipelines_and_below_other_commands_have_theirs_too():
    with click.Context(cli) as context:
        embed, letters = cli.get_command(context, "embed"), cli.get_command(context, "dead-letters")
    assert embed is not None
    assert options(embed)["--model"].envvar == "DRIFTLINE_EMBED_MODEL"
    assert isinstance(letters, click.Group)
    assert options(letters.commands["replay"])["--limit"].envvar == "DRIFTLINE_DEAD_LETTERS_REPLAY_LIMIT"


@pytest.mark.parametrize("group", [cli, serving], ids=["driftline", "serving"])
def test_each_command_is_listed_with_its_help_and_none_is_loaded(group: LazyGroup):
    context = click.Context(group)
    for name, (_, told) in group.lazy.items():
        found = group.get_command(context, name)
        assert found is not None
        assert found.get_short_help_str(1000).rstrip(".") == told.rstrip("."), name
    listed = " ".join(CliRunner().invoke(group, ["--help"]).output.split())
    assert all(f"{name} {told}" in listed for name, (_, told) in group.lazy.items())
