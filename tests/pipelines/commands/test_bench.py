"""`driftline bench encode`, and what `driftline embed` makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.opening import open_model
from driftline.components.embedding.encoding.settings import Tuning
from driftline.components.embedding.encoding.tuning.tunings import (
    EncoderTunings,
    best_device,
    device_name,
    read_tunings,
    write_tunings,
)
from driftline.components.user_paths import user_tunings
from driftline.pipelines import cli
from tests.components.embedding.tiny_models import save_model
from tests.support.command import refused
from tests.support.datasets import write_texts


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, normalize=True, prompts={"query": "query: "})
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_fastest_is_remembered_and_taken_by_embed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    assert run("bench", "encode", "--model", str(tiny), "--texts", "40", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    rates = [one["tokens_per_second"] for one in measured]
    assert len(measured) >= 5
    assert rates == sorted(rates, reverse=True)
    assert all(one["texts_per_second"] > 0 and one["matrix_share"] > 0 and one["memory_mb"] > 1 for one in measured)

    entries = {entry.precision: entry for entry in read_tunings(user_tunings()).entries}
    assert entries.keys() == {"float32", "bfloat16"}
    entry = entries["float32"]
    with open_model(str(tiny)) as folder:
        assert (entry.device, entry.revision) == (device_name(best_device()), folder.revision)
    first = next(one for one in measured if one["precision"] == "float32")
    assert entry.tuning == Tuning(**first["tuning"])

    write_tunings(user_tunings(), EncoderTunings().with_entry(replace(entry, tuning=Tuning(77, 1))))
    taken: list[Tuning] = []
    plain = Encoder.tune
    monkeypatch.setattr(Encoder, "tune", lambda self, tuning: (taken.append(tuning), plain(self, tuning))[1])
    texts = write_texts(tmp_path / "texts.jsonl", ["a film", "a plot"])
    assert run("embed", str(texts), "--model", str(tiny), "--out", str(tmp_path / "out")) == 0
    assert taken == [Tuning(77, 1)]
    # another precision was not measured
    more = ("--precision", "bfloat16", "--prompt", "query")
    assert run("embed", str(texts), "--model", str(tiny), "--out", str(tmp_path / "half"), *more) == 0
    assert taken[1:] == [Tuning()]


def test_with_texts_of_one_s_own_and_a_table(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    texts = write_texts(tmp_path / "texts.jsonl", [f"film number {number}" for number in range(30)])
    tunings = tmp_path / "made" / "tunings.json"
    arguments = ("bench", "encode", str(texts), "--model", str(tiny), "--texts", "20", "--tunings", str(tunings))
    assert run(*arguments, "--precision", "float32") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["precision", "compiled"]
    assert all(line.split()[0] == "float32" for line in lines[1:-1])
    assert lines[-1] == f"the fastest of each precision is remembered in {tunings}"
    assert run(*arguments, "--precision", "bfloat16") == 0
    assert [entry.precision for entry in read_tunings(str(tunings)).entries] == ["float32", "bfloat16"]


def test_what_cannot_be_measured_is_refused(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "other.json").write_text('{"version": "x"}')
    base = ("bench", "encode", "--model", str(tiny), "--texts", "8")
    found = refused(capsys, 1, *base, "--tunings", str(tmp_path / "other.json"))
    assert found.startswith(f"{tmp_path}/other.json: expected EncoderTunings, but version: ")
    found = refused(capsys, 2, *base, "--tunings", str(tmp_path / "tunings.yaml"))
    assert found == f"tunings: expected a file whose name ends in .json, got {tmp_path}/tunings.yaml"
    found = refused(capsys, 2, *base, "--dimension", "99")
    assert found == f"dimension: model {tiny} has vectors of 16 numbers, got 99"
