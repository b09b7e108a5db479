"""`driftline embed` calls settings what its options call them, and a profile that is asked for must be there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.embedding.encoding.tuning.tunings import EncoderTunings, write_tunings
from driftline.pipelines import cli, runs
from tests.components.embedding.tiny_models import save_model
from tests.support.command import listing, refused
from tests.support.datasets import write_texts

AS_OF = "2026-11-30T06:00:00Z"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that may be read only; made once, since that shows its progress."""
    folder = tmp_path_factory.mktemp("models") / "model"
    save_model(folder, prompts={"query": "query: "})
    return str(folder)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_texts(tmp_path / "texts.jsonl", ["one", "two"], time=["2026-11-29", "2026-11-30"]))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command looks for what it remembers, empty here."""
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--since", "soon"], r"since 'soon' is not understood; .*"),
        (["--as-of", "soon"], r"as_of 'soon': expected a date .*"),
        (["--since", "today", "--until", "yesterday"], r"since: expected a time before until, 2026-11-29T.*"),
        (["--where", "rating"], r"where 'rating': expected a column, .*"),
        (["--where", "time = 7"], r"where 'time = 7': column 'time' holds .*"),
        (["--id-column", "text"], r"text_column and id_column: expected two columns, got 'text' for both"),
        (["--overlap", "3"], r"overlap: expected segments to be mean or max as well; only segments overlap"),
        (["--prompt", "passage"], r"prompt: model .* has no prompt 'passage'; it has: .*query"),
        (["--strict", "--incremental"], r"strict and incremental: one refuses .*"),
        (["--hourly-price", "nan"], r"hourly_price: expected 0 or more, got nan"),
        (["--tunings", "window_since.json"], r"tunings: there is no file .*/window_since.json; give .*"),
        (
            ["--out", "model_prompt/{output_dtype}"],
            r"out '.*/model_prompt/\{output_dtype\}': \{output_dtype\} is no .*",
        ),
        (
            ["--out", "out/date=-3d..-1d"],
            r"out '.*': expected one day here, .*; give a span of time by since and until",
        ),
    ],
)
def test_settings_are_called_as_the_options_are(
    capsys: pytest.CaptureFixture[str], texts: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: list[str], message: str,
):  # fmt: skip
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if "time = 7" in more:
        Path(texts).write_text('{"id": "a", "text": "one", "time": [1]}\n')
    line = refused(capsys, 2, "embed", texts, "--model", model, "--out", "out", "--as-of", AS_OF, *more)
    assert re.fullmatch(message, line)
    assert listing(tmp_path / "here") == []


def settings_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> BackfillSettings:
    """Return what the command asks for."""
    asked: list[BackfillSettings] = []

    class Stopped(Exception):  # noqa: N818
        """The command has come so far."""

    def run_embed(inputs: list[str], model: str, out: str, settings: BackfillSettings) -> None:
        asked.append(settings)
        raise Stopped

    monkeypatch.setattr(runs, "run_embed", run_embed)
    with pytest.raises(Stopped):
        cli.cli.main(["embed", "a.csv", "--model", "m", "--out", "o", *arguments], standalone_mode=False)
    return BackfillSettings.of(**{name: getattr(asked[0], name) for name in BackfillSettings.__dataclass_fields__})


def test_the_options_have_the_settings_defaults(monkeypatch: pytest.MonkeyPatch, cache: Path):
    assert settings_of(monkeypatch) == BackfillSettings(model_cache=str(cache / "models"))


def test_every_option_is_a_setting(monkeypatch: pytest.MonkeyPatch):
    arguments = (
        "--text-column body --id-column key --where a=b --where c=d --since -1d --until today --time-column day "
        "--as-of 2026-11-30 --when-empty refuse --strict --prompt query --precision bfloat16 --dimension 4 "
        "--max-tokens 9 --segments mean --overlap 3 --dtype float16 --rows-per-shard 7 --model-cache /m "
        "--hourly-price 2.5"
    )
    assert settings_of(monkeypatch, *arguments.split()) == BackfillSettings(
        text_column="body", text_id_column="key", text_where=("a=b", "c=d"), window_since="-1d", window_until="today",
        window_time_column="day", window_as_of="2026-11-30", window_when_empty="refuse", text_strict=True,
        model_prompt="query", model_precision="bfloat16", model_dimension=4, model_max_tokens=9, model_segments="mean",
        model_segment_overlap=3, output_dtype="float16", output_rows_per_shard=7, model_cache="/m", hourly_price=2.5,
    )  # fmt: skip
    assert settings_of(monkeypatch, "--incremental").output_incremental


def test_the_user_s_own_tunings_are_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, cache: Path):
    tunings = str(cache / "encoder-tunings.json")
    assert settings_of(monkeypatch).encoder_tunings == ""
    write_tunings(tunings, EncoderTunings())
    assert settings_of(monkeypatch).encoder_tunings == tunings
    assert settings_of(monkeypatch, "--tunings", "/x.json").encoder_tunings == "/x.json"


def test_all_counts_are_printed_as_json(capsys: pytest.CaptureFixture[str], texts: str, model: str, tmp_path: Path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["embed", texts, "--model", model, "--out", str(tmp_path / "out"), "--hourly-price", "1", "--json"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == {
        "dataset", "status", "texts", "texts_encoded", "duplicates", "tokens", "truncated", "null", "empty",
        "whitespace", "surrogates", "control", "outside", "deleted", "unknown_tombstones", "shards", "dimension",
        "task_seconds", "rows_per_second", "cost_per_million_texts",
    }  # fmt: skip
