"""The installed command, as a user meets it: its exit status, what it prints, what it leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest

from driftline.components.mmd import two_sample_test
from driftline.components.mmd.result import DriftResult
from driftline.components.projection.pca import PCA, gather
from driftline.components.storage.objects.store import exists, join, list_files, read_bytes, read_json
from driftline.pipelines import cli
from tests.support.command import (
    COMMAND,
    PROGRESS,
    TIMEOUT_S,
    await_line,
    driftline,
    environment,
    listing,
    processes,
    refusal,
    started,
)
from tests.support.datasets import write_embeddings, write_texts
from tests.support.steps import run_steps

N, M = 1400, 1200  # three blocks of 1,024 rows, six tiles
OWN_STEPS = ["sample", "fit", "project", "plan", "kernel", "test", "report"]
KERNEL_BEGUN = '{"driftline": "start", "step": "kernel"'
needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")


@dataclass(frozen=True)
class Data:
    folder: Path
    reference: np.ndarray
    quiet: np.ndarray


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    vectors = np.random.default_rng(7).normal(size=(N + M, 40)).astype(np.float32)
    reference, quiet = vectors[:N], vectors[N:]
    texts = [f"a text of number {number}" for number in range(N)]
    write_embeddings(str(folder / "reference"), reference, rows_per_shard=500, texts=texts)
    write_embeddings(str(folder / "quiet"), quiet, rows_per_shard=700)
    write_embeddings(str(folder / "shifted"), quiet + 0.3, rows_per_shard=700, texts=texts[:M])
    return Data(folder, reference, quiet)


def numbers(record: dict) -> tuple:
    return tuple(record[name] for name in ("statistic", "p_value", "threshold", "kernels", "explained_variance_ratio"))


@pytest.mark.slow
def test_no_drift_is_status_0_with_the_librarys_numbers_and_plain_lines(data, tmp_path):
    pooled = np.concatenate([data.reference, data.quiet])
    z = PCA.fit(gather([pooled]), 32).project(pooled)
    expected = two_sample_test(z[:N], z[N:], permutations=500, seed=0)
    assert expected.p_value > 0.3

    done = driftline(
        *("drift", "--reference", "reference", "--current", "quiet", "--tasks", "17", "--out", str(tmp_path / "out")),
        cwd=data.folder,  # names are relative to where the user stands
        temporary=tmp_path / "tmp",
    )

    assert done.status == 0, done.stderr
    assert done.left == []
    result = DriftResult.from_json(read_json(str(tmp_path / "out" / "result.json")))
    assert result.p_value == expected.p_value
    assert result.statistic == pytest.approx(expected.statistic, rel=1e-3)
    assert result.mmd2 == pytest.approx(expected.mmd2, rel=1e-3, abs=1e-9)
    assert (result.kernel.name, result.method) == (expected.kernel, "exact")
    assert result.kernel.gamma == pytest.approx(expected.gamma, rel=1e-6)
    assert result.reference.uri == str(data.folder / "reference")
    assert [step.tasks for step in result.steps if step.name == "kernel"] == [17]
    first, second, third, fourth, fifth, last = done.stdout.splitlines()
    assert first == f"no drift found: p = {result.p_value:.4g} > level 0.05"
    assert second.startswith(f"MMD² {result.mmd2:.3g}, 95% interval 0 to ")
    assert second.endswith(f"it tells {result.auc:.1%} apart")
    assert third.startswith(f"seen by the kernel {result.kernel.name} of gamma {result.kernel.gamma:.3g}, ")
    assert fourth.startswith("method exact, chosen by size")
    assert fifth == f"{N} against {M} texts"
    assert last == f"report: {tmp_path}/out/report.html"

    assert all(PROGRESS.fullmatch(line) for line in done.stderr.splitlines()), done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert list(dict.fromkeys(re.findall(r"^drift: (\w+)", done.stderr, re.MULTILINE))) == OWN_STEPS
    names = {name.partition("/")[0] for name in listing(tmp_path / "out")}
    assert names == {"report.html", "result.json", "witness.parquet", "run.log", "history"}
    assert '"driftline": "done"' in (tmp_path / "out" / "run.log").read_text()

    # The same run, step by step in this process, as one task, from other shards: the same bits.
    again = str(tmp_path / "again")
    write_embeddings(f"{again}/x", data.reference, rows_per_shard=N)
    write_embeddings(f"{again}/y", data.quiet, rows_per_shard=77)
    run_steps(
        tmp_path / "steps",
        f"{again}/x",
        f"{again}/y",
        f"{again}/out",
        test_permutations=500,
        pca_components=32,
        kernel="search",
    )
    one = read_json(f"{again}/out/result.json")
    many = read_json(str(tmp_path / "out" / "result.json"))
    assert numbers(one) == numbers(many)
    assert [moved["witness"] for moved in one["moved"]] == [moved["witness"] for moved in many["moved"]]


@pytest.mark.slow
def test_drift_is_status_3_with_json_alone_a_bar_in_a_terminal_and_a_longer_history(data, tmp_path):
    out = tmp_path / "out"
    run_steps(tmp_path / "steps", str(data.folder / "reference"), str(data.folder / "quiet"), str(out))
    earlier = listing(out / "history")
    temporary = tmp_path / "tmp"
    arguments = ["drift", "--reference", str(data.folder / "reference"), "--current", str(data.folder / "shifted")]
    arguments += ["--out", str(out), "--tasks", "2", "--json"]

    terminal, end = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while piece := os.read(terminal, 65536):
                shown.extend(piece)
        except OSError:
            return  # the other end is closed: that is how Linux says so

    with subprocess.Popen(
        [COMMAND, *arguments], cwd="/", env=environment(temporary), stdout=subprocess.PIPE, stderr=end, text=True
    ) as process:
        os.close(end)
        reader = threading.Thread(target=read)
        reader.start()
        printed, _ = process.communicate(timeout=TIMEOUT_S)
        reader.join()
    os.close(terminal)

    assert process.returncode == 3
    assert listing(temporary) == []
    result = DriftResult.from_json(json.loads(printed))
    assert result.drift
    own = Path(result.report_uri).parent
    assert own.parent == out, "the folder itself holds an earlier run's report"
    assert result == DriftResult.from_json(read_json(str(own / "result.json")))
    assert {moved.sample for moved in result.moved} == {"reference", "current"}
    assert all(moved.text.startswith("a text of number") for moved in result.moved)

    screen = shown.decode()
    assert "\x1b[" in screen
    assert "━" in screen  # the bar
    assert re.search("drift: kernel [12]/2", screen)
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen[screen.rindex("tasks") :]).splitlines()
    rows = {line.split()[0]: line.split()[1] for line in table[1:] if len(line.split()) == 3}
    assert rows == {step: "2" if step == "kernel" else "1" for step in OWN_STEPS}

    later = listing(out / "history")
    assert set(earlier) < set(later)
    assert len(later) == len(earlier) + 1 == 2
    assert not (out / "work").exists()


def long_run(data: Data, tmp_path: Path) -> list[str]:
    """Return the arguments of a run whose one kernel task takes seconds."""
    arguments = ["drift", "--reference", str(data.folder / "reference"), "--current", str(data.folder / "shifted")]
    return [*arguments, "--out", str(tmp_path / "out"), "--tasks", "1", "--permutations", "30000"]


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "last"),
    [(signal.SIGINT, 130, ["driftline: interrupted"]), (signal.SIGTERM, 143, [])],
)
def test_a_run_that_is_stopped_leaves_nothing_behind(data, tmp_path, number, status, last):
    temporary = tmp_path / "tmp"
    with started(*long_run(data, tmp_path), cwd=Path("/"), temporary=temporary) as process:
        await_line(temporary, KERNEL_BEGUN)
        assert len(processes(str(temporary), "kernel_sums", "executor_main")) >= 1
        assert exists(str(tmp_path / "out" / "work"))
        process.send_signal(number)
        rest = [line for line in process.stderr.read().splitlines() if line and not PROGRESS.fullmatch(line)]
        assert process.wait(TIMEOUT_S) == status
        assert rest == last
        assert process.stdout.read() == ""
        assert processes(str(temporary)) == []
    assert listing(temporary) == []
    assert listing(tmp_path / "out") == ["run.log"]


@needs_proc
@pytest.mark.slow
def test_a_task_that_is_killed_fails_the_run_in_one_line(data, tmp_path):
    temporary = tmp_path / "tmp"
    with started(*long_run(data, tmp_path), cwd=Path("/"), temporary=temporary) as process:
        await_line(temporary, KERNEL_BEGUN)
        for pid in processes(str(temporary), "kernel_sums", "executor_main"):
            os.kill(pid, signal.SIGKILL)
        message = refusal(process.stderr.read())
        assert process.wait(TIMEOUT_S) == 1
        assert process.stdout.read() == ""
    assert message.startswith("kernel: ended without saying why")
    assert "run.log" in message
    assert processes(str(temporary)) == []
    assert listing(temporary) == []
    assert listing(tmp_path / "out") == ["run.log"]


@pytest.mark.slow
def test_drift_from_and_to_a_bucket(tmp_path, gcs_bucket):
    vectors = np.random.default_rng(1).normal(size=(400, 12)).astype(np.float32)
    reference, current = join(gcs_bucket, "reference"), join(gcs_bucket, "current")
    write_embeddings(reference, vectors[:200], rows_per_shard=80)
    write_embeddings(current, vectors[200:] + 2.0, rows_per_shard=300)
    out, history = join(gcs_bucket, "out"), join(gcs_bucket, "past")
    done = driftline(
        *("drift", "--reference", reference, "--current", current, "--out", f"{out}/", "--history", history),
        *("--components", "0", "--permutations", "99", "--max-rows", "150", "--json"),
        cwd=Path("/"),
        temporary=tmp_path / "tmp",
    )
    assert done.status == 3, done.stderr
    assert done.left == []
    result = DriftResult.from_json(json.loads(done.stdout))
    assert (result.reference.rows, result.reference.sampled, result.components) == (200, 150, 0)
    assert [info.uri.removeprefix(out) for info in list_files(out)] == [
        *("/report.html", "/result.json", "/run.log", "/witness.parquet")
    ]
    assert b'"driftline": "done"' in read_bytes(join(out, "run.log"))
    [record] = list_files(history)
    assert read_json(record.uri)["statistic"] == result.statistic
    assert listing(tmp_path) == ["tmp"]


@pytest.mark.slow
def test_embed_then_embed_again(tmp_path, model_folder, capsys):
    texts = write_texts(tmp_path / "texts.jsonl", [f"text {number}" for number in range(30)], topic=["rain"] * 30)
    out = tmp_path / "out"
    arguments = ["embed", str(texts), "--model", str(model_folder), "--out", str(out), "--rows-per-shard", "20"]
    done = driftline(*arguments, "--json", cwd=tmp_path, temporary=tmp_path / "tmp")
    assert done.status == 0, done.stderr
    # PyTorch makes a folder for its own cache as it is loaded, empty and the same for every run.
    assert [name for name in done.left if not name.startswith("torchinductor_")] == []
    assert all(PROGRESS.fullmatch(line) for line in done.stderr.splitlines()), done.stderr
    printed = json.loads(done.stdout)
    assert printed["dataset"] == str(out)
    assert (printed["texts"], printed["texts_encoded"], printed["shards"]) == (30, 30, 2)
    manifest = read_json(str(out / "manifest.json"))
    assert manifest["columns"] == ["text", "topic"]

    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{out}: 30 texts in 384 dimensions, 30 of them kept from an earlier run\n"
    assert read_json(str(out / "manifest.json")) == manifest


@pytest.mark.parametrize("name", [None, *cli.COMMANDS])
def test_help_describes_every_option(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"] if name is None else [name, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    command = cli.cli if name is None else cli.cli.get_command(click.Context(cli.cli), name)
    assert command.help.split(".")[0].split("\n")[0] in shown
    for option in command.params:
        if option.param_type_name == "option":
            assert option.opts[0] in shown
            assert option.help.split()[0] in shown, option.name
    for other in getattr(command, "commands", {}):
        assert other in shown
    if name is None:
        assert "Exit status: 0 no drift, 3 drift, 2 wrong usage, 1 failure." in shown


def test_help_of_the_installed_command(tmp_path):
    done = driftline("--help", cwd=tmp_path, temporary=tmp_path / "tmp")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: driftline ")


def test_version_is_the_packages(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert version("driftline") in capsys.readouterr().out
