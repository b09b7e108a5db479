"""What the other commands do with input that they cannot use: the right status, one line that helps, nothing made."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from driftline.pipelines import cli
from tests.support.command import listing, refused
from tests.support.datasets import write_texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drift"], r"Missing option '--reference'; see driftline drift --help"),
        (["embed", "--model", "m", "--out", "o"], r"Missing argument 'INPUT\.\.\.'; see driftline embed --help"),
        (
            ["embed", "t.csv", "--model", "m", "--out", "o", "--dtype", "int8"],
            r"Invalid value for '--dtype': .*float32.*",
        ),
        (
            ["embed", "t.csv", "--model", "m", "--out", "o", "--rows-per-shard", "0"],
            r"Invalid value for .* 0 is not .*",
        ),
        (["compile", "rift", "--out", "o.yaml"], r"pipeline: unknown 'rift'; choose one of: backfill, drift; .*"),
        (
            ["compile", "--out", "o.yaml", "--image", "kernels"],
            r".*'--image': expected NAME=REFERENCE .* got 'kernels'.*",
        ),
        (["compile", "--out", "o.yaml", "--image", "gpu=x"], r".*'--image': expected NAME=REFERENCE .* got 'gpu=x'.*"),
        (
            ["compile", "--out", "o.yaml", "--image", "embed="],
            r".*'--image': expected NAME=REFERENCE .* got 'embed='.*",
        ),
        (["compile", "--out", "o.yaml", "--gpu", "all"], r"Invalid value for '--gpu': .*'embed', 'kernels', 'none'.*"),
        (["demo", "--seed", "-1", "--folder", "o"], r"seed: expected a whole number from 0 to \d+, got -1"),
        (["demo", "--folder", "gs://bucket/demo"], r"folder: expected a local folder, got gs://bucket/demo; .*"),
        (["embark"], r"No such command 'embark'.*; see driftline --help"),
    ],
)
def test_settings_of_the_other_commands(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, refused(capsys, 2, *arguments))
    assert listing(tmp_path) == []


def test_no_command_shows_the_help(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: driftline")


@pytest.mark.slow
def test_outputs_that_cannot_be_written(capsys, model_stub, tmp_path):
    # A regular file where a folder is wanted stops everybody, the superuser included.
    out = tmp_path / "out"
    out.write_text("mine")
    texts = str(write_texts(tmp_path / "texts.jsonl", ["one", "two"]))
    for arguments in (
        ["compile", "--out", f"{out}/pipeline.yaml"],
        ["embed", texts, "--model", str(model_stub), "--out", str(out)],
        ["demo", "--folder", f"{out}/demo"],
    ):
        message = refused(capsys, 1, *arguments)
        assert re.match(
            rf"{re.escape(str(out))}\b.*: .*(file where a folder is expected|Not a directory).*; check the path",
            message,
        )
    assert out.read_text() == "mine"


@pytest.fixture
def model_stub(tmp_path) -> Path:
    """A folder that passes for a model until its weights are read, which is after the texts are checked."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def jsonl(*lines: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "texts.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder / "texts.jsonl"

    return write


def parquet(**columns: list) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "texts.parquet")
        return folder / "texts.parquet"

    return write


def truncated_parquet(folder: Path) -> Path:
    path = parquet(id=["a", "b"], text=["one", "two"])(folder)
    path.write_bytes(path.read_bytes()[:-7])
    return path


def csv_without_text(folder: Path) -> Path:
    (folder / "texts.csv").write_text("id,body\n1,one\n")
    return folder / "texts.csv"


GOOD = '{"id": "a", "text": "one"}'


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "none.csv", r"{path}: there is no such file, and no file in such a folder; check .*"),
        (lambda folder: folder / "*.csv", r"{path}: no file matches the pattern; check the path"),
        (csv_without_text, r"{path}: .*'text'.*body.*"),
        (jsonl('{"id": "a", "body": "one"}'), r"{path}: .*'text'.*"),
        (parquet(id=["a"], body=["one"]), r"{path}: .*'text'.*body.*"),
        (jsonl(), r"{path}: there are no rows; give at least one text"),
        (jsonl(GOOD, '{"id": "b", "text": ""}'), r"{path}: column 'text', row 2: the text is empty; remove the row.*"),
        (jsonl(GOOD, '{"id": "b", "text": null}'), r"{path}: column 'text', row 2: the text is null; remove the row.*"),
        (jsonl(GOOD, '{"id": "b", "text": " "}'), r"{path}: column 'text', row 2: the text is only white space; .*"),
        (jsonl(GOOD, '{"id": "b", "text": 5}'), r"{path}: column 'text', row 2: .*(string|text).*"),
        (jsonl(GOOD, "{torn"), r"{path}: line 2 is not JSON .*"),
        (
            parquet(id=["a"], text=[5]),
            r"{path}: column 'text' holds int64, not strings; convert it, or name another .*",
        ),
        (jsonl(GOOD, '{"id": "", "text": "x"}'), r"{path}: column 'id', row 2: the id is empty; remove the row, .*"),
        (jsonl(GOOD, GOOD), r"{path}: row 2: id 'a' is already that of row 1 of {path}; give each text its own id, .*"),
        (truncated_parquet, r"{path}: is not a whole Parquet file .*; write it again"),
    ],
)
def test_texts(tmp_path, model_stub, capsys, write: Callable[[Path], Path], message):
    path = write(tmp_path)
    out = tmp_path / "out"
    found = refused(capsys, 1, "embed", str(path), "--model", str(model_stub), "--out", str(out), "--strict")
    assert re.fullmatch(message.replace("{path}", re.escape(str(path))), found)
    assert not out.exists()


def no_model(folder: Path) -> None:
    shutil.rmtree(folder)


def empty_model(folder: Path) -> None:
    no_model(folder)
    folder.mkdir()


def file_model(folder: Path) -> None:
    no_model(folder)
    folder.write_text("weights")


def pickled_model(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "mine.py"}}')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_model, r"model {model}: there is no such folder, and .*"),
        (empty_model, r"model {model}: neither modules.json nor config.json is there; give the folder that .*"),
        (file_model, r"{model}: is a file where a folder is expected; name the folder that holds it"),
        (pickled_model, r"model {model}: expected weights in safetensors, found only pytorch_model.bin.*"),
        (own_code, r"model {model}: it wants code of its own .*"),
    ],
)
def test_models(tmp_path, model_stub, capsys, spoil: Callable[[Path], None], message):
    texts = write_texts(tmp_path / "texts.jsonl", ["one", "two"])
    spoil(model_stub)
    out = tmp_path / "out"
    found = refused(capsys, 1, "embed", str(texts), "--model", str(model_stub), "--out", str(out))
    assert re.fullmatch(message.replace("{model}", re.escape(str(model_stub))), found)
    assert not out.exists()
