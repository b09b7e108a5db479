"""`driftline dead-letters`."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.records.provenance import dead_letters_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from driftline.serving.kafka.settings import KafkaSettings


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at what could not be processed, and send it back."""


def _letters_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--topic", required=True, metavar="TOPIC", help="Topic that the letters' records came from."),
        click.option(
            "--dead-letters-topic",
            default="",
            metavar="TOPIC",
            help="Topic of the letters.  [default: the topic's name and .dead-letters]",
        ),
        click.option(
            "--reason",
            "reasons",
            multiple=True,
            metavar="R",
            help="Take letters of this reason, such as not-json; repeatable.  [default: all]",
        ),
        click.option(
            "--group",
            default="",
            help="Group whose offsets say what was sent back.  [default: the letters' topic and .replay]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dead_letters.command("list")
@_letters_options
@kafka_options()
def list_(
    topic: str, dead_letters_topic: str, reasons: tuple[str, ...], group: str, as_json: bool, kafka: KafkaSettings
) -> None:
    """Count the letters by reason."""
    from driftline.serving.kafka.dead_letter_replay import count_letters

    letters, group = _places(topic, dead_letters_topic, group)
    counts = count_letters(kafka, letters, group, reasons)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(count) for count in counts], indent=2))
        return
    click.echo(f"{letters}: {sum(count.letters for count in counts):,} letters")
    width = max(len("reason"), *(len(count.reason) for count in counts), 0)
    if counts:
        click.echo(f"{'reason':{width}}  letters  sent back  newest (UTC)         example")
    for count in counts:
        newest = datetime.fromtimestamp(count.newest_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(f"{count.reason:{width}}  {count.letters:7,}  {count.replayed:9,}  {newest}  {count.example[:100]}")


@dead_letters.command()
@_letters_options
@click.option("--limit", type=click.IntRange(min=1), default=None, metavar="N", help="Send at most N.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@kafka_options()
def replay(
    topic: str,
    dead_letters_topic: str,
    reasons: tuple[str, ...],
    group: str,
    as_json: bool,
    limit: int | None,
    dry_run: bool,
    kafka: KafkaSettings,
) -> None:
    """Send letters back to their topic, each once, however often this is run.

    Their headers say how often they were tried, and where they lay first.
    """
    from driftline.serving.kafka.dead_letter_replay import replay_letters

    letters, group = _places(topic, dead_letters_topic, group)
    done = replay_letters(kafka, topic, letters, group, reasons=reasons, limit=limit, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"topic": topic, "dry_run": dry_run, **dataclasses.asdict(done)}, indent=2))
        return
    click.echo(f"{letters}: {done.sent:,} letters {'would be sent' if dry_run else 'sent'} back to {topic}")
    others = {"sent back earlier": done.earlier, "not asked for": done.other, "cannot be sent back": done.unfit}
    if any(others.values()):
        click.echo("left alone: " + "; ".join(f"{count:,} {what}" for what, count in others.items() if count))


def _places(topic: str, letters: str, group: str) -> tuple[str, str]:
    from driftline.serving.kafka.dead_letter_replay import REPLAY_GROUP_SUFFIX

    letters = letters or dead_letters_topic(topic)
    return letters, group or letters + REPLAY_GROUP_SUFFIX
