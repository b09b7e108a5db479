"""`driftline archive`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from driftline.components.command_line.options import options_of, settings_from
from driftline.serving.archive.settings import ArchiveSettings, FileLimits, MaintenanceRules
from driftline.serving.commands.kafka_options import kafka_options
from driftline.serving.telemetry.health import health_port_option

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings


@click.command()
@options_of(ArchiveSettings, FileLimits, MaintenanceRules)
@health_port_option
@kafka_options()
def archive(health_port: int, kafka: KafkaSettings, **options: Any) -> None:
    """Archive a topic of embeddings into datasets by date and hour, each record once.

    ARCHIVE/date=2026-11-25/hour=13 is an embeddings dataset, and so are ARCHIVE/date=2026-11-25 and the range
    ARCHIVE/date=2026-11-18..2026-11-24: name any of them where a dataset is wanted. Texts that are deleted, or embedded
    anew, go from the hours in which they were. SIGTERM writes what was read, and ends.
    """
    from driftline.serving.archive.run import run_archive
    from driftline.serving.process import set_up_logging

    settings = settings_from(
        ArchiveSettings,
        options,
        files=settings_from(FileLimits, options),
        maintenance=settings_from(MaintenanceRules, options),
    )
    set_up_logging()
    run_archive(settings, kafka, health_port)
