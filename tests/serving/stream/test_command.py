"""`driftline stream` as users run it: its vectors are the backfill's, and it ends when it is told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.opening import open_model
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.serving.commands.stream import stream
from driftline.serving.records.embeddings import read_embedding
from tests.components.embedding.tiny_models import save_model
from tests.serving.stream.processes import real_command, worker_processes
from tests.serving.stream.workers import Topics, texts
from tests.support.brokers import eventually, produce, read_topic

PLAIN = ["--input-topic=texts", "--output-topic=out", "--model=none", "--bootstrap-servers=127.0.0.1:1"]


@pytest.mark.slow
def test_its_vectors_and_their_revision_are_the_backfills(bootstrap: str, tmp_path: Path) -> None:
    topics = Topics.create(bootstrap)
    model = save_model(tmp_path / "tiny", normalize=True, prompts={"query": "query: "})
    produce(bootstrap, topics.source, texts(60))
    command = real_command(topics, "w0", model, "--prompt=query", "--max-tokens=16")
    with worker_processes([command], tmp_path) as [worker]:
        eventually(lambda: len(read_topic(bootstrap, topics.output)) == 60, timeout_s=120)
        assert worker.end() == 0
    settings = EncoderSettings(prompt="query", max_tokens=16)
    found = [read_embedding(record.value or b"") for record in read_topic(bootstrap, topics.output)]
    with open_model(str(model)) as folder:
        encoder = Encoder.load(folder.path, "tiny", settings)
        alone = encoder.encode([embedded.text or "" for embedded in found]).vectors
        assert {embedded.revision for embedded in found} == {settings.vector_revision(folder.revision)}
    assert {embedded.model for embedded in found} == {"tiny"}
    assert np.abs(np.stack([embedded.vector for embedded in found]) - alone).max() < 1e-5


def test_a_monitor_needs_a_place_for_its_state() -> None:
    with pytest.raises(UsageError, match="monitor-reference: it needs --monitor-state"):
        CliRunner().invoke(stream, [*PLAIN, "--monitor-reference=there"], catch_exceptions=False)


def test_topics_that_are_the_same_are_refused() -> None:
    with pytest.raises(UsageError, match="must be three different ones"):
        CliRunner().invoke(stream, [*PLAIN, "--output-topic=texts"], catch_exceptions=False)


def test_the_help_names_every_default() -> None:
    result = CliRunner().invoke(stream, ["--help"])
    assert result.exit_code == 0
    for option in ("--delivery", "--instance-id", "--drain-timeout-s", "--vectors", "--prompt", "--tls-ca-file"):
        assert option in result.output
