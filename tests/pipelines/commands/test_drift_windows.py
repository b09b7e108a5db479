"""`driftline drift` and `driftline embed` over windows of time: what they print, their exit status, what they leave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driftline.components.mmd.result import DriftResult, SkippedResult
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.store import read_json
from driftline.pipelines import cli, runs
from tests.components.embedding.tiny_models import save_model
from tests.support.archives import write_days
from tests.support.command import PROGRESS, driftline, listing, refused
from tests.support.datasets import write_texts
from tests.support.steps import pipeline_in_process

DAYS = {f"2026-11-{day}": 20 for day in (22, 23, 24, 26, 27, 28, 29)}
AS_OF = "2026-11-30T06:00:00Z"
FILES = ["report.html", "result.json", "run.log", "witness.parquet"]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Seven days of eight, the last of which is another."""
    return write_days(str(tmp_path / "reviews"), DAYS, shift={"2026-11-29": 3.0})


@pytest.fixture
def steps_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps run in this process: what KFP's runner adds is tested with the few runs that are real."""
    monkeypatch.setattr(runs, "run_pipeline", pipeline_in_process(tmp_path / "artifacts"))


def arguments(archive: str, current: str, out: str, *more: str) -> list[str]:
    windows = ["--reference", f"{archive}/date=-8d..-2d", "--current", f"{archive}/{current}"]
    return ["drift", *windows, "--out", out, "--as-of", AS_OF, "--components", "2", "--permutations", "99", *more]


def ended(capsys: pytest.CaptureFixture[str], status: int, *given: str) -> list[str]:
    """Run the command in this process and return the lines that it prints."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(given))
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    assert all(PROGRESS.fullmatch(line) for line in printed.err.splitlines()), printed.err
    return printed.out.splitlines()


def test_the_windows_are_printed_as_what_they_became(steps_here, capsys, archive: str, tmp_path: Path):
    lines = ended(capsys, 3, *arguments(archive, "date=yesterday", str(tmp_path / "out")))
    assert lines[0].startswith("drift found: p = ")
    assert lines[4:] == [
        "120 against 20 texts",
        f"reference: {archive}/date=2026-11-22..2026-11-28",
        "reference: nothing of date=2026-11-25",
        f"current: {archive}/date=2026-11-29",
        f"report: {tmp_path}/out/report.html",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, "history"])


def test_relative_paths_may_hold_windows(
    steps_here, capsys, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    lines = ended(capsys, 3, *arguments("reviews", "date=yesterday", "out/{date}"))
    assert lines[-1] == f"report: {tmp_path}/out/2026-11-30/report.html"


def test_an_out_by_day_holds_each_day_s_report_and_one_history(steps_here, capsys, archive: str, tmp_path: Path):
    out = f"{tmp_path}/out/{{date}}"
    for number, as_of in enumerate(("2026-11-29", "2026-11-30")):
        ended(capsys, 3 if number else 0, *arguments(archive, "date=yesterday", out, "--as-of", as_of))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2026-11-29", "2026-11-30", "history"]
    for day in ("2026-11-29", "2026-11-30"):
        assert listing(tmp_path / "out" / day) == FILES
    assert len(listing(tmp_path / "out" / "history")) == 2
    again = ended(capsys, 3, *arguments(archive, "date=yesterday", out))
    assert re.fullmatch(rf"report: {re.escape(str(tmp_path))}/out/2026-11-30/\d+T\d+Z-[0-9a-f]+/report.html", again[-1])


def test_a_skipped_run_is_one_line_a_report_and_status_0(steps_here, capsys, archive: str, tmp_path: Path):
    lines = ended(capsys, 0, *arguments(archive, "date=-5d", str(tmp_path / "out")))
    assert lines == [
        f"skipped: current {archive}/date=2026-11-25: the window is empty",
        f"report: {tmp_path}/out/report.html",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("history", "report.html", "result.json", "run.log")
    ]


@pytest.mark.parametrize(
    ("current", "more", "reason"),
    [
        ("date=yesterday", ["--min-rows", "21"], "current {0}/date=2026-11-29: 20 rows, of the 21 that [^\n]+"),
        (
            "date=yesterday",
            ["--when-partial", "skip"],
            "reference {0}/[^\n]+: 1 of 7 parts are missing: date=2026-11-25",
        ),
    ],
)
def test_what_else_skips_a_run_and_its_json(steps_here, capsys, archive, tmp_path: Path, current, more, reason):
    printed = "\n".join(ended(capsys, 0, *arguments(archive, current, str(tmp_path / "out"), *more, "--json")))
    result = SkippedResult.from_json(json.loads(printed))
    assert json.loads(printed) == read_json(str(tmp_path / "out" / "result.json"))
    assert re.fullmatch(reason.format(re.escape(archive)), result.reason)
    assert (result.status, result.report_uri) == ("skipped", f"{tmp_path}/out/report.html")


@pytest.mark.parametrize(
    ("current", "more", "message"),
    [
        ("date=-5d", ["--when-small", "refuse"], "current {0}/date=2026-11-25: the window is empty"),
        (
            "date=-1d",
            ["--min-rows", "21", "--when-small", "refuse"],
            "current {0}/date=2026-11-29: 20 rows, of the 21 .*",
        ),
        ("date=-1d", ["--when-partial", "refuse"], "reference {0}/date=.*: 1 of 7 parts are missing: date=2026-11-25"),
        ("dates=-1d", [], "{0}/dates=-1d: there is no manifest.json: .*"),
    ],
)
def test_what_is_refused_is_one_line_and_status_1(steps_here, capsys, archive, tmp_path: Path, current, more, message):
    line = refused(capsys, 1, *arguments(archive, current, str(tmp_path / "out"), *more))
    assert re.fullmatch(message.format(re.escape(archive)), line)
    assert listing(tmp_path / "out") == ["run.log"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--as-of", "last week"], r"as_of 'last week'.*"),
        (["--min-rows", "-1"], "min_rows: expected 1 or more, or 0 for the least that a test takes, got -1"),
        (["--min-rows", "2.5"], r"Invalid value for '--min-rows': .*; see driftline drift --help"),
        (["--when-small", "compare"], r"Invalid value for '--when-small': .*; see driftline drift --help"),
        (["--when-partial", "ignore"], r"Invalid value for '--when-partial': .*; see driftline drift --help"),
        (["--tasks", "8.5"], r"Invalid value for '--tasks': .*; see driftline drift --help"),
        (["--max-rows", "1.5"], r"Invalid value for '--max-rows': .*; see driftline drift --help"),
        (["--permutations", "99.5"], r"Invalid value for '--permutations': .*; see driftline drift --help"),
        (["--components", "2.5"], r"Invalid value for '--components': .*; see driftline drift --help"),
        (["--seed", "0.5"], r"Invalid value for '--seed': .*; see driftline drift --help"),
        (["--out", "{day}"], r"out '.*\{day\}': \{day\} is no placeholder; .*"),
        (["--current", "reviews/date=tomorrow"], r".*reviews/date=tomorrow: .*"),
        (["--current", "reviews/date=-1d..-3d"], r".*reviews/date=-1d..-3d: .* after its end .*"),
    ],
)
def test_settings_of_windows(steps_here, capsys, archive, tmp_path: Path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, refused(capsys, 2, *arguments("reviews", "date=-1d", "out", *more)))


@pytest.mark.slow
def test_the_installed_command_skips_through_kfp_s_runner(archive: str, tmp_path: Path):
    """The mark of a skipped run goes from task to task of the real pipeline, its fan-out included."""
    skipped = driftline(*arguments(archive, "date=-5d", "out/{date}/{run}"), cwd=tmp_path, temporary=tmp_path / "tmp")
    assert (skipped.status, skipped.left) == (0, []), skipped.stderr
    reason, place = skipped.stdout.splitlines()
    assert reason == f"skipped: current {archive}/date=2026-11-25: the window is empty"
    folder = Path(place.removeprefix("report: ")).parent
    assert folder.parent == tmp_path / "out" / "2026-11-30"
    assert listing(folder) == ["report.html", "result.json", "run.log"]
    steps = ["sample", "fit", "project", "plan", "kernel", "test", "report"]
    assert list(dict.fromkeys(re.findall(r"^drift: (\w+)", skipped.stderr, re.MULTILINE))) == steps
    compared = driftline(
        *arguments(archive, "date=yesterday", "out/{date}/{run}"), cwd=tmp_path, temporary=tmp_path / "tmp2"
    )
    assert (compared.status, compared.left) == (3, []), compared.stderr
    folder = Path(compared.stdout.splitlines()[-1].removeprefix("report: ")).parent
    assert listing(folder) == FILES
    result = DriftResult.from_json(read_json(str(folder / "result.json")))
    assert (result.current.asked, result.job) == (f"{archive}/date=yesterday", folder.name)
    records = read_history(str(tmp_path / "out" / "history"))
    assert [record["status"] for record in records] == ["skipped", "compared"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2026-11-30", "history"]


# Backfills --------------------------------------------------------------------------------------------------------

TIMES = [f"2026-11-{day}T12:00:00Z" for day in (28, 28, 29, 29, 29, 30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny", pooling="mean"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_texts(tmp_path / "texts.jsonl", [f"text {number}" for number in range(6)], time=TIMES))


def embedding(texts: str, model: str, out: str, *more: str) -> list[str]:
    return ["embed", texts, "--model", model, "--out", out, "--as-of", AS_OF, *more]


def test_texts_of_yesterday_are_embedded(capsys, texts: str, model: str, tmp_path: Path):
    out = f"{tmp_path}/embeddings/{{date}}"
    lines = ended(capsys, 0, *embedding(texts, model, out, "--since", "-1d", "--until", "today"))
    place = f"{tmp_path}/embeddings/2026-11-30"
    assert lines[0].startswith(f"{place}: 3 texts in ")
    [ids] = [batch.ids for batch in EmbeddingsDataset.open(place).batches()]
    assert list(ids) == ["t2", "t3", "t4"]


def test_a_dataset_of_yesterday(capsys, texts: str, model: str, tmp_path: Path):
    out = f"{tmp_path}/embeddings/date=yesterday"
    printed = ended(capsys, 0, *embedding(texts, model, out, "--since=-1d", "--until=today", "--json"))
    found = json.loads("\n".join(printed))
    assert (found["dataset"], found["status"], found["texts"]) == (
        f"{tmp_path}/embeddings/date=2026-11-29",
        "embedded",
        3,
    )


def test_an_empty_window_is_one_line_and_status_0(capsys, texts: str, model: str, tmp_path: Path):
    out = f"{tmp_path}/embeddings"
    ended(capsys, 0, *embedding(texts, model, out))
    before = {path: path.read_bytes() for path in Path(out).iterdir()}
    empty = ["--since", "-1d", "--until", "today", "--as-of", "2026-12-25"]
    assert ended(capsys, 0, *embedding(texts, model, out, *empty)) == [
        f"skipped: the window holds no text; {out} is as it was"
    ]
    found = json.loads("\n".join(ended(capsys, 0, *embedding(texts, model, out, *empty, "--json"))))
    assert found == {"dataset": out, "status": "skipped", "texts": 0.0}
    line = refused(capsys, 1, *embedding(texts, model, out, *empty, "--when-empty", "refuse"))
    assert line.startswith(f"{texts}: none of the 6 rows holds a text to embed")
    assert {path: path.read_bytes() for path in Path(out).iterdir()} == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--since", "soon"], r"since 'soon'.*"),
        (["--until", "tomorrow"], r"until 'tomorrow'.*"),
        (["--as-of", "soon"], r"as_of 'soon'.*"),
        (["--when-empty", "ignore"], r"Invalid value for '--when-empty': .*; see driftline embed --help"),
        (["--out", "x/{day}"], r"out '.*x/\{day\}': \{day\} is no placeholder; .*"),
        (["--out", "x/date=-3d..-1d"], r"out '.*x/date=-3d..-1d': expected one day here, .*"),
    ],
)
def test_settings_of_a_backfill_s_window(capsys, texts: str, model: str, tmp_path: Path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, refused(capsys, 2, *embedding(texts, model, "out", *more)))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()
