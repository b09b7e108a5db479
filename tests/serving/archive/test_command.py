"""`driftline archive`: what its options become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from driftline.components.errors import UsageError
from driftline.serving.__main__ import serving
from driftline.serving.archive import run
from driftline.serving.archive.settings import MEBIBYTE, ArchiveSettings, FileLimits, MaintenanceRules
from driftline.serving.commands.archive import archive
from driftline.serving.kafka.settings import KafkaSettings

KAFKA = ["--bootstrap-servers", "a:1,b:2"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command runs with."""
    found: list[Any] = []
    monkeypatch.setattr(run, "run_archive", lambda *args: found.extend(args))
    return found


def test_the_defaults(told: list[Any]):
    result = CliRunner().invoke(archive, ["--topic", "embeddings", "--out", "gs://bucket/archive", *KAFKA])
    assert (result.exit_code, result.output) == (0, "")
    assert told == [ArchiveSettings("embeddings", "gs://bucket/archive"), KafkaSettings(("a:1", "b:2")), 8082]


def test_every_option(told: list[Any]):
    options = {
        "topic": "t",
        "out": "o",
        "group": "g",
        "instance-id": "i",
        "max-delay-s": 1.5,
        "rows-per-file": 7,
        "file-mib": 3,
        "buffer-mib": 4,
        "compact-after-s": 5,
        "vacuum-after-s": 6,
        "purge-after-days": 0.5,
        "index-dir": "d",
        "health-port": -1,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert CliRunner().invoke(archive, [*words, *KAFKA]).exit_code == 0
    files = FileLimits(1.5, 7, 3 * MEBIBYTE, 4 * MEBIBYTE)
    wanted = ArchiveSettings(
        "t", "o", "g", "i", "d", files, MaintenanceRules(5.0, vacuum_after_s=6.0, purge_after_s=43_200.0)
    )
    assert told == [wanted, KafkaSettings(("a:1", "b:2")), -1]


def test_options_come_from_the_environment_too(told: list[Any]):
    environment = {"DRIFTLINE_ARCHIVE_TOPIC": "t", "DRIFTLINE_ARCHIVE_OUT": "o", "DRIFTLINE_ARCHIVE_INSTANCE_ID": "a-0"}
    result = CliRunner().invoke(serving, ["archive", *KAFKA], env=environment)
    assert result.exit_code == 0, result.output
    assert told[0] == ArchiveSettings("t", "o", instance_id="a-0")


@pytest.mark.parametrize(
    ("out", "topic", "said"),
    [
        ("s3://bucket/a", "t", "s3:// is not supported"),
        ("dataset", "t", "is an embeddings dataset itself"),
        ("archive", "x" * 200, "expected a topic's name of 1 to 150"),
    ],
)
def test_what_cannot_be_is_refused_before_a_broker_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, topic: str, said: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/manifest.json").write_text("{}")
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(archive, ["--topic", topic, "--out", out, *KAFKA], catch_exceptions=False)
