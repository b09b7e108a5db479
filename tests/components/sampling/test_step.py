from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.components.errors import DataError
from driftline.components.sampling import step
from driftline.components.sampling.pooled import PooledSample
from driftline.components.storage.objects.store import join
from driftline.components.storage.objects.values import read_value
from tests.support.datasets import write_embeddings


def two(folder: str) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    return (
        write_embeddings(join(folder, "reference"), rng.normal(size=(30, 3)), prefix="r", rows_per_shard=8),
        write_embeddings(join(folder, "current"), rng.normal(size=(20, 3)), prefix="c", rows_per_shard=8),
    )


def take(reference: str, current: str, sample_out: str, **settings: Any) -> None:
    settings = {"pca_components": 2} | settings
    step.run(reference=reference, current=current, out=f"{sample_out}.run", sample_out=sample_out, **settings)


def ids(sample: PooledSample) -> list[str]:
    return [name for names, _ in sample.batches() for name in names]


def test_the_sample_is_written_so_that_another_step_can_read_it(tmp_path: Path):
    reference, current = two(str(tmp_path))
    out = str(tmp_path / "sample.json")
    take(reference, current, out, window_max_rows=10, seed=3)
    sample = read_value(out, PooledSample)
    assert (sample.reference.uri, sample.current.uri) == (reference, current)
    assert (sample.n, sample.rows, sample.seed) == (10, 20, 3)
    assert 0 < sample.seconds < 60
    assert sample.run.as_of == sample.run.created
    began = datetime.fromisoformat(sample.run.created)
    assert began.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - began) < timedelta(minutes=5)
    assert len(ids(sample)) == 20


def test_two_runs_choose_the_same_rows_under_names_of_their_own(tmp_path: Path):
    reference, current = two(str(tmp_path))
    samples = []
    for number in range(2):
        out = str(tmp_path / f"sample{number}.json")
        take(reference, current, out, window_max_rows=10, seed=3)
        samples.append(read_value(out, PooledSample))
    assert ids(samples[0]) == ids(samples[1])
    assert samples[0].run.id != samples[1].run.id
    assert all(re.fullmatch("[0-9a-f]{32}", sample.run.id) for sample in samples)


def test_datasets_and_sample_may_lie_on_gs(tmp_path: Path, gcs_bucket: str):
    local, remote = two(str(tmp_path)), two(gcs_bucket)
    take(local[0], local[1], str(tmp_path / "sample.json"), window_max_rows=7, seed=3)
    take(remote[0], remote[1], join(gcs_bucket, "sample.json"), window_max_rows=7, seed=3)
    here, there = (
        read_value(place, PooledSample) for place in (str(tmp_path / "sample.json"), join(gcs_bucket, "sample.json"))
    )
    assert ids(here) == ids(there)
    # The folder is in each test shard's key, hence in its bytes: the digests tell the two places apart.
    assert here.reference.digest != there.reference.digest


def test_a_missing_dataset_is_refused(tmp_path: Path):
    reference, _ = two(str(tmp_path))
    missing = str(tmp_path / "missing")
    with pytest.raises(DataError, match=rf"^{re.escape(missing)}: there is no manifest.json[^\n]+$"):
        take(reference, missing, str(tmp_path / "sample.json"))
