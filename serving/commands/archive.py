"""`driftline archive`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from driftline.serving.commands.kafka_options import kafka_options

if TYPE_CHECKING:
    from driftline.serving.kafka.settings import KafkaSettings


@click.command()
@click.option("--topic", required=True, metavar="TOPIC", help="Topic of embeddings, as the stream worker writes it.")
@click.option(
    "--out", required=True, metavar="ARCHIVE", help="Folder of the embeddings datasets to write, gs:// or local."
)
@click.option(
    "--group",
    default="driftline-archive",
    show_default=True,
    help="Consumer group whose members share the partitions.",
)
@click.option(
    "--instance-id", default="", metavar="ID", help="This worker's name, which outlives a restart.  [default: none]"
)
@click.option(
    "--max-delay",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Age in seconds at which rows are written, however few they are.",
)
@click.option(
    "--rows-per-file", type=click.IntRange(min=1), default=50_000, show_default=True, help="Rows in a file at most."
)
@click.option(
    "--file-mb",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    metavar="MIB",
    help="Memory at which a partition's rows are written.",
)
@click.option(
    "--buffer-mb",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="MIB",
    help="Memory of all rows that wait to be written.",
)
@click.option(
    "--settle",
    type=click.FloatRange(min=0.0),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds without a change after which the files of an hour that is over are merged.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0.0),
    default=3600.0,
    show_default=True,
    metavar="S",
    help="Seconds that replaced files stay for those who are reading them.",
)
@click.option(
    "--purge-days",
    type=click.FloatRange(min=0.0),
    default=7.0,
    show_default=True,
    metavar="D",
    help="Days after which deleted rows are gone from the files too, where merging has not done so before.",
)
@click.option(
    "--index-dir",
    default="",
    metavar="DIR",
    help="Local folder that remembers where each id is, 60 bytes a row.  [default: made anew at each start]",
)
@click.option(
    "--health-port",
    type=click.IntRange(min=-1, max=65_535),
    default=8082,
    show_default=True,
    help="Port of /livez, /readyz and /metrics; 0 for any free one, -1 for none.",
)
@kafka_options()
def archive(
    topic: str,
    out: str,
    group: str,
    instance_id: str,
    max_delay: float,
    rows_per_file: int,
    file_mb: int,
    buffer_mb: int,
    settle: float,
    grace: float,
    purge_days: float,
    index_dir: str,
    health_port: int,
    kafka: KafkaSettings,
) -> None:
    """Archive a topic of embeddings into datasets by date and hour, each record once.

    ARCHIVE/date=2026-11-25/hour=13 is an embeddings dataset, and so are ARCHIVE/date=2026-11-25 and the range
    ARCHIVE/date=2026-11-18..2026-11-24: name any of them where a dataset is wanted. Texts that are deleted, or embedded
    anew, go from the hours in which they were. SIGTERM writes what was read, and ends.
    """
    from driftline.serving.archive.run import run_archive
    from driftline.serving.archive.settings import MEBIBYTE, ArchiveSettings, FileLimits, TidyRules

    settings = ArchiveSettings(
        topic,
        out,
        group,
        instance_id,
        index_dir,
        FileLimits(max_delay, rows_per_file, file_mb * MEBIBYTE, buffer_mb * MEBIBYTE),
        TidyRules(settle, grace_s=grace, purge_s=purge_days * 86_400),
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)
    run_archive(settings, kafka, health_port)
