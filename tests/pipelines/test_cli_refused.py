"""What `driftline drift` does with input that it cannot use: the right status, one line that helps, nothing left."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.pipelines import cli, runs
from tests.support.command import driftline, listing, refusal, refused
from tests.support.datasets import write_embeddings
from tests.support.steps import pipeline_in_process

ROWS, DIMENSION = 60, 6
NO_FOLDER = "a part of the path is a file where a folder is expected; check the path"


def vectors(seed: int, rows: int = ROWS, dimension: int = DIMENSION) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)


@dataclass(frozen=True)
class Place:
    """Two good datasets and some room."""

    root: Path
    reference: Path
    current: Path
    out: Path

    def rewrite(self, values: np.ndarray, **changes) -> None:
        shutil.rmtree(self.current)
        write_embeddings(str(self.current), values, **changes)

    @property
    def shard(self) -> Path:
        return sorted(self.current.glob("*.parquet"))[-1]

    def restate(self) -> None:
        """Let the manifest say of every shard what the file is now."""
        path = self.current / "manifest.json"
        manifest = json.loads(path.read_text())
        for shard in manifest["shards"]:
            content = (self.current / shard["name"]).read_bytes()
            shard["bytes"] = len(content)
            shard["crc32c"] = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        path.write_text(json.dumps(manifest))


@pytest.fixture
def place(tmp_path) -> Place:
    reference, current = tmp_path / "reference", tmp_path / "current"
    write_embeddings(str(reference), vectors(1), rows_per_shard=50)
    write_embeddings(str(current), vectors(2), rows_per_shard=50)
    return Place(tmp_path, reference, current, tmp_path / "out")


@pytest.fixture
def steps_here(tmp_path, monkeypatch) -> None:
    """The steps run in this process: what KFP's runner adds is tested with the few runs that are real."""
    monkeypatch.setattr(runs, "run_pipeline", pipeline_in_process(tmp_path / "artifacts"))


def drift_arguments(place: Place, *more: str) -> list[str]:
    return [
        *("drift", "--reference", str(place.reference), "--current", str(place.current), "--out", str(place.out)),
        *("--components", "3", "--permutations", "99", *more),
    ]


def nothing_but_the_log(place: Place) -> bool:
    return not place.out.exists() or listing(place.out) == ["run.log"]


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["--kernel", "cosine"], r"Invalid value for '--kernel': 'cosine' is not one of 'search', 'rbf', .*"),
        (["--method", "fast"], r"Invalid value for '--method': 'fast' is not one of 'auto', 'exact', .*"),
        (["--combination", "min"], r"Invalid value for '--combination': 'min' is not one of 'studentised', .*"),
        (["--gamma", "0.5"], r"gamma: 0\.5 was given with the kernel search.*"),
        (["--gamma", "wide"], r"gamma: expected 'median' or a number above 0, got 'wide'"),
        (["--gamma", "0"], r"gamma: expected 'median' or a finite number above 0, got '0'"),
        (["--gamma", "-1"], r"gamma: expected 'median' or a finite number above 0, got '-1'"),
        (["--gamma", "nan"], r"gamma: expected 'median' or a finite number above 0, got 'nan'"),
        (["--level", "0"], r"Invalid value for '--level': 0.0 is not in the range 0<x<1; see .*"),
        (["--level", "1"], r"Invalid value for '--level': 1.0 is not in the range 0<x<1; see driftline drift --help"),
        (["--level", "nan"], r"level: expected a number between 0 and 1, both excluded, got nan"),
        (
            ["--level", "low"],
            r"Invalid value for '--level': 'low' is not a valid float range; see driftline drift --help",
        ),
        (["--permutations", "0"], r"Invalid value for '--permutations': 0 is not in the range x>=1; see .*"),
        (["--permutations", "99", "--level", "0.001"], r"permutations: 99 are too few .* take at least 999"),
        (["--permutations", "2000000"], r"permutations: expected at most 1000000, got 2000000"),
        (["--components", "-1"], r"components: expected 1 or more, or 0 for whole vectors, got -1"),
        (["--max-rows", "1"], r"max_rows: expected at least 2 rows, or 0 for all, got 1"),
        (["--max-rows", "-5"], r"max_rows: expected at least 2 rows, or 0 for all, got -5"),
        (["--seed", "-1"], r"seed: expected a whole number from 0 to \d+, got -1"),
        (["--tasks", "0"], r"Invalid value for '--tasks': 0 is not in the range 1<=x<=200; see driftline drift --help"),
        (["--tasks", "201"], r"Invalid value for '--tasks': 201 is not in the range .*; see driftline drift --help"),
        (["--window", "3"], r"No such option '--window'.*; see driftline drift --help"),
        (["--out", ""], r"'' does not name a file or folder: give a local path or gs://bucket/path .*"),
        (["--reference", "s3://bucket/x"], r"s3://bucket/x: s3:// is not supported; give a local path or gs://.*"),
    ],
)
def test_settings_of_drift(place, capsys, setting, message):
    assert re.fullmatch(message, refused(capsys, 2, *drift_arguments(place, *setting)))
    assert not place.out.exists()


# Datasets ---------------------------------------------------------------------------------------------------------


def missing(place: Place) -> None:
    shutil.rmtree(place.current)


def unfinished(place: Place) -> None:
    (place.current / "manifest.json").unlink()


def other_manifest(place: Place) -> None:
    (place.current / "manifest.json").write_text('{"format": "something.else"}')


def torn_manifest(place: Place) -> None:
    path = place.current / "manifest.json"
    path.write_bytes(path.read_bytes()[:50])


def one_row(place: Place) -> None:
    place.rewrite(vectors(2, rows=1))


def other_dimension(place: Place) -> None:
    place.rewrite(vectors(2, dimension=5))


def other_model(place: Place) -> None:
    place.rewrite(vectors(2), model="large")


def other_revision(place: Place) -> None:
    place.rewrite(vectors(2), revision="r2")


def other_normalisation(place: Place) -> None:
    place.rewrite(vectors(2), normalized=True)


def missing_shard(place: Place) -> None:
    place.shard.unlink()


def truncated_shard(place: Place) -> None:
    place.shard.write_bytes(place.shard.read_bytes()[:-10])


def truncated_shard_as_stated(place: Place) -> None:
    truncated_shard(place)
    place.restate()


def flipped_byte(place: Place) -> None:
    content = bytearray(place.shard.read_bytes())
    content[len(content) // 2] ^= 1
    place.shard.write_bytes(content)


def with_value(place: Place, value: float) -> None:
    """Write a shard that the library's own writer refuses, and a manifest that it agrees with."""
    table = pq.read_table(place.shard)
    values = vectors(3, rows=len(table))
    values[4, 2] = value
    kind = table.schema.field("embedding").type
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind)
    pq.write_table(table.set_column(1, table.schema.field("embedding"), column), place.shard)
    place.restate()


def with_nan(place: Place) -> None:
    with_value(place, np.nan)


def with_infinity(place: Place) -> None:
    with_value(place, -np.inf)


def all_identical(place: Place) -> None:
    for folder in (place.reference, place.current):
        shutil.rmtree(folder)
        write_embeddings(str(folder), np.full((ROWS, DIMENSION), 0.25, np.float32))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"{current}: there is no manifest.json: .*run the backfill to its end, or check the path"),
        (unfinished, r"{current}: there is no manifest.json: .*run the backfill to its end, or check the path"),
        (other_manifest, r"{current}/manifest.json: .*'something.else'.*name an embeddings dataset"),
        (torn_manifest, r"{current}/manifest.json: is not JSON .*; restore the file or write it again"),
        (one_row, r"{current}: expected at least 2 rows to compare, got 1; embed more texts or widen the window"),
        (other_dimension, r"{current}: dimension is 5, but 6 in the reference {reference}; embed both .*"),
        (other_model, r"{current}: model is large, but tiny in the reference {reference}; embed both .*"),
        (other_revision, r"{current}: revision is r2, but r1 in the reference {reference}; embed both .*"),
        (
            other_normalisation,
            r"{current}: normalized is True, but False in the reference .*; embed both .*",
        ),
        (missing_shard, r"{shard}: the shard is missing; restore it or run the backfill again"),
        (truncated_shard, r"{shard}: the shard has \d+ bytes, its manifest says \d+; restore it or run the .*"),
        (truncated_shard_as_stated, r"{shard}: is not a whole Parquet file \(.*\); restore it or run the .*"),
        (flipped_byte, r"{shard}: the shard's crc32c is \S+, its manifest says \S+; restore it or run the .*"),
        (with_nan, r"{shard}: column 'embedding', row 5 \(id 'id-54'\): the vector has a NaN or an infinity; check .*"),
        (with_infinity, r"{shard}: column 'embedding', row 5 \(id 'id-54'\): the vector has a NaN or an infinity; .*"),
        (
            all_identical,
            r"bandwidth: all 120 vectors looked at are identical.*check that .*, or name one kernel and give its gamma",
        ),
    ],
)
def test_datasets_of_drift(place, steps_here, capsys, spoil: Callable[[Place], None], message):
    names = {"current": re.escape(str(place.current)), "reference": re.escape(str(place.reference))}
    names["shard"] = re.escape(str(place.shard))
    spoil(place)
    message = re.sub(r"\{(current|reference|shard)\}", lambda match: names[match[1]], message)
    assert re.fullmatch(message, refused(capsys, 1, *drift_arguments(place)))
    assert nothing_but_the_log(place)


@pytest.mark.parametrize(
    ("sizes", "components", "message"),
    [
        (
            (ROWS, ROWS),
            7,
            r"components: expected at most 6 for 120 vectors of dimension 6, or 0 for whole vectors, got 7",
        ),
        ((2, 3), 5, r"components: expected at most 4 for 5 vectors of dimension 6, or 0 for whole vectors, got 5"),
    ],
)
def test_more_components_than_dimensions_or_rows(place, steps_here, capsys, sizes, components, message):
    for folder, rows in zip((place.reference, place.current), sizes, strict=True):
        shutil.rmtree(folder)
        write_embeddings(str(folder), vectors(rows, rows=rows))
    assert re.fullmatch(message, refused(capsys, 2, *drift_arguments(place, "--components", str(components))))
    assert nothing_but_the_log(place)


def test_a_column_of_texts_that_is_not_there_is_refused_with_those_that_are(place, steps_here, capsys):
    message = refused(capsys, 2, *drift_arguments(place, "--text-column", "txet"))
    assert message == (
        f"text_column: no column 'txet' is there; columns: none beside ids and vectors; in {place.reference}"
    )
    assert nothing_but_the_log(place)
    for side, rows in ((place.reference, 40), (place.current, 30)):
        shutil.rmtree(side)
        write_embeddings(str(side), vectors(rows, rows=rows), texts=["a"] * rows)
    message = refused(capsys, 2, *drift_arguments(place, "--text-column", "txet"))
    assert message == f"text_column: no column 'txet' is there; columns: text; in {place.reference}"
    assert nothing_but_the_log(place)


def test_identical_vectors_with_a_gamma_do_not_drift(place, steps_here, capsys):
    all_identical(place)
    with pytest.raises(SystemExit) as ended:
        cli.main(drift_arguments(place, "--kernel", "rbf", "--gamma", "1"))
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("no drift found: p = 1 > level 0.05\n")


def test_damaged_history_is_named_and_leaves_no_result(place, steps_here, capsys):
    history = place.root / "history"
    history.mkdir()
    (history / "20250301T060000.000000Z-old.json").write_text("{torn")
    message = refused(capsys, 1, *drift_arguments(place, "--history", str(history)))
    assert re.fullmatch(r"history record .*/20250301T060000.000000Z-old.json: is not JSON .*", message)
    assert nothing_but_the_log(place)
    assert len(listing(history)) == 1


def test_a_foreign_record_in_the_history_is_named(place, steps_here, capsys):
    history = place.root / "history"
    history.mkdir()
    (history / "a.json").write_text('{"created": "2025-03-01T06:00:00Z", "p_value": 0.5}')
    message = refused(capsys, 1, *drift_arguments(place, "--history", str(history)))
    assert message.startswith(f"{history}: the record created 2025-03-01T06:00:00Z is none of a drift run")
    assert nothing_but_the_log(place)


# Outputs ----------------------------------------------------------------------------------------------------------


def test_output_that_cannot_be_written(place, steps_here, capsys):
    # A regular file where a folder is wanted stops everybody, the superuser included.
    place.out.write_text("mine")
    message = refused(capsys, 1, *drift_arguments(place))
    assert re.fullmatch(rf"{re.escape(str(place.out))}/run-[0-9a-f]+\.log: cannot write: {NO_FOLDER}", message)
    assert place.out.read_text() == "mine"


def test_history_that_cannot_be_written_leaves_no_result(place, steps_here, capsys):
    history = place.root / "history"
    history.write_text("mine")
    message = refused(capsys, 1, *drift_arguments(place, "--history", str(history)))
    assert re.match(rf"{re.escape(str(history))}/.*: cannot write: a part of the path is a file", message)
    assert nothing_but_the_log(place)


@pytest.mark.parametrize(
    ("option", "value", "status", "message"),
    [
        ("--out", "gs:///folder", 2, r"gs:///folder: '' is not a bucket's name .*; give gs://bucket/path"),
        ("--reference", "gs://", 2, r"gs://: '' is not a bucket's name .*; give gs://bucket/path"),
        ("--current", "gs://Big Bucket/x", 2, r"gs://Big Bucket/x: 'Big Bucket' is not a bucket's name .*"),
        ("--current", "gs://driftline-nowhere/x", 1, r"gs://driftline-nowhere/x.*: .*"),
    ],
)
def test_buckets(place, steps_here, capsys, gcs_endpoint, option, value, status, message):
    assert re.fullmatch(message, refused(capsys, status, *drift_arguments(place, option, value)))
    assert nothing_but_the_log(place)


# The installed command, with KFP's runner --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "more", "status", "message"),
    [
        (unfinished, [], 1, r"{current}: there is no manifest.json: .*"),
        (with_nan, [], 1, r"{shard}: column 'embedding', row 5 \(id 'id-54'\): the vector has a NaN .*"),
        (
            None,
            ["--components", "7"],
            2,
            r"components: expected at most 6 for 120 vectors of dimension 6, or 0 for whole vectors, got 7",
        ),
        (all_identical, [], 1, r"bandwidth: all 120 vectors looked at are identical.*"),
    ],
)
def test_installed_command(place, tmp_path, spoil, more, status, message):
    names = {"current": re.escape(str(place.current)), "shard": re.escape(str(place.shard))}
    if spoil is not None:
        spoil(place)
    done = driftline(*drift_arguments(place, *more), cwd=Path("/"), temporary=tmp_path / "tmp")
    assert done.status == status, done.stderr
    assert done.stdout == ""
    expected = re.sub(r"\{(current|shard)\}", lambda match: names[match[1]], message)
    assert re.fullmatch(expected, refusal(done.stderr))
    assert "Traceback" not in done.stderr
    assert done.left == []
    assert nothing_but_the_log(place)
