from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from driftline.components.mmd.online import OnlineSettings
from driftline.serving.monitor.in_process import watching
from driftline.serving.monitor.settings import MonitorSettings, ReferenceSettings
from tests.serving.stream.workers import Topics, running, texts, vector_of
from tests.support.brokers import create_topics, eventually, fresh, produce, read_topic, settings_of
from tests.support.datasets import write_embeddings


def test_a_monitor_in_the_worker_counts_what_was_committed_once_and_goes_on_after_a_restart(
    bootstrap: str, tmp_path: Path
) -> None:
    topics, alerts = Topics.create(bootstrap, partitions=2), fresh("alerts")
    create_topics(bootstrap, {alerts: 1})
    rows = np.stack([vector_of(f"text {number} of another time") for number in range(2000)])
    reference = write_embeddings(str(tmp_path / "reference"), rows, model="tiny", revision="sha256:0")
    online = OnlineSettings(ert=5000, window=100, steps=10, features=32)
    settings = MonitorSettings(
        topics.source, ReferenceSettings(reference, components=4, online=online), str(tmp_path / "state"), alerts
    )
    observe = partial(watching, settings, settings_of(bootstrap))
    for start, count in ((0, 300), (300, 200)):
        produce(bootstrap, topics.source, [*texts(count, start=start), (b"gone", None, ())])
        with running(topics, options={"observe": observe}) as worker:
            eventually(lambda: (worker.registry.get_sample_value("driftline_monitor_records_total") or 0) == count)  # noqa: B023
            assert (worker.registry.get_sample_value("driftline_monitor_sample_size") or 0) > 50
    assert list((tmp_path / "state").iterdir())
    assert len(read_topic(bootstrap, topics.output)) == 502
    assert read_topic(bootstrap, alerts) == []
