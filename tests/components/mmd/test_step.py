from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from driftline.components.errors import DataError
from driftline.components.kernel.tasks import KernelPlan, read_task_sums, write_task_sums
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.sums import PartialSums
from driftline.components.mmd import component, step, two_sample_test
from driftline.components.mmd.result import DriftResult
from driftline.components.mmd.run_metrics import run_metrics
from driftline.components.mmd.step import MOVED_TEXTS, Judged, extremes
from driftline.components.projection.pca import PCA, gather
from driftline.components.random_bits import shuffled_order
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.store import read_json
from driftline.components.storage.objects.values import read_value
from tests.support import oracle
from tests.support.command import listing
from tests.support.datasets import write_embeddings
from tests.support.steps import report, run_steps, run_to_report, with_run

N, M = 120, 80


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    return rng.normal(size=(N, 5)).astype(np.float32), rng.normal(0.4, 1.0, size=(M, 5)).astype(np.float32)


def datasets(folder: Path, x: np.ndarray, y: np.ndarray, rows_per_shard: int = 50) -> tuple[str, str]:
    reference = write_embeddings(
        str(folder / "x"), x, rows_per_shard=rows_per_shard, texts=[f"old {k}" for k in range(len(x))], prefix="x"
    )
    return reference, write_embeddings(str(folder / "y"), y, rows_per_shard=rows_per_shard, prefix="y")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, vectors) -> Path:
    """A run, its artifacts in `a`, its output in `out`."""
    folder = tmp_path_factory.mktemp("finished")
    settings = {"pca_components": 0, "test_permutations": 199, "kernel_tasks": 3}
    run_steps(folder / "a", *datasets(folder, *vectors), str(folder / "out"), **settings)
    return folder


def judge(folder: Path) -> step.Tested:
    """Run the test step again on what lies in a folder."""
    place = folder / "a"
    return step.test(
        plan=str(place / "plan.json"), out=str(place / "outcome.json"), witness_out=str(place / "witness.npy")
    )


def elsewhere(finished: Path, folder: Path, history: str = "history") -> Path:
    """Copy the artifacts of a run to `a`, such that it reports to `out`, and return where they are."""
    if not (folder / "a").exists():
        shutil.copytree(finished / "a", folder / "a")
    out = folder / "out"
    with_run(folder / "a", base=str(out), folder=str(out), history=str(out / history))
    return folder / "a"


def test_outcome_is_the_dense_tests(finished, vectors):
    spec = read_value(str(finished / "a" / "plan.json"), KernelPlan).spec
    tested = read_value(str(finished / "a" / "outcome.json"), Judged)
    outcome = tested.outcome
    order = np.concatenate([shuffled_order(spec.seed, 0, N), shuffled_order(spec.seed, N, N + M)])
    gram = oracle.gram(np.concatenate(vectors)[order], spec.collection.kernels[0])
    expected = oracle.mmd2(gram, oracle.row_labels(spec.seed, 199, N, M))
    assert outcome.statistic == outcome.mmd2 == pytest.approx(float(expected[0]), rel=1e-5)
    np.testing.assert_allclose(outcome.permuted, expected[1:], atol=1e-6)
    beaten = sum(value >= outcome.statistic for value in outcome.permuted)
    assert outcome.p_value == (1 + beaten) / 200
    assert outcome.threshold == sorted(outcome.permuted)[-10]
    assert outcome.rejected
    scores = np.empty(N + M)
    scores[order] = oracle.witness(gram, N)
    np.testing.assert_allclose(tested.moved_witness, scores[list(tested.moved_rows)], atol=1e-6)
    np.testing.assert_allclose(tested.moved_witness[:MOVED_TEXTS], np.sort(scores)[:MOVED_TEXTS], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "kernel"), [("exact", "rbf"), ("exact", "search"), ("cross", "search"), ("features", "search")]
)
def test_outcome_is_that_of_two_sample_test(tmp_path, vectors, method, kernel):
    settings = {"pca_components": 3, "seed": 4, "test_method": method, "kernel": kernel, "kernel_tasks": 2}
    run_steps(tmp_path / "a", *datasets(tmp_path, *vectors), str(tmp_path / "out"), **settings)
    outcome = read_value(str(tmp_path / "a" / "outcome.json"), Judged).outcome
    pooled = np.concatenate(vectors)
    z = PCA.fit(gather([pooled]), 3).project(pooled)
    expected = two_sample_test(z[:N], z[N:], method=method, kernel=kernel, permutations=99, seed=4)
    assert outcome.p_value == expected.p_value
    assert outcome.statistic == pytest.approx(expected.statistic, rel=1e-6)
    np.testing.assert_allclose(outcome.permuted, expected.permuted, atol={"rbf": 1e-7, "search": 1e-3}[kernel])


@pytest.mark.slow
def test_same_bits_for_any_tasks_and_any_shards(tmp_path):
    """Eight blocks, 36 tiles: 50 tasks are more than there is work for."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(1400, 12)).astype(np.float32), rng.normal(0.05, 1.0, size=(1200, 12)).astype(np.float32)
    seen: dict[str, set] = {}
    for tasks, rows_per_shard in [(1, 5000), (3, 5000), (17, 5000), (50, 5000), (1, 333), (8, 61), (3, 1024)]:
        folder = tmp_path / f"{tasks}-{rows_per_shard}"
        run_steps(
            folder / "a", *datasets(folder, x, y, rows_per_shard), str(folder / "out"), kernel_tasks=tasks, seed=6
        )
        tested = read_value(str(folder / "a" / "outcome.json"), Judged)
        assert tested.kernel_tasks == min(tasks, BlockGrid.of(1400, 1200).tile_count)
        result = read_json(str(folder / "out" / "result.json"))
        [record] = read_history(str(folder / "out" / "history"))
        for name in ("statistic", "p_value", "threshold", "kernels", "mmd2_interval", "explained_variance_ratio"):
            assert record[name] == result[name]
            seen.setdefault(name, set()).add(json.dumps(result[name]))
        seen.setdefault("outcome", set()).add(tested.outcome)
        for name in ("moved_rows", "moved_witness"):
            seen.setdefault(name, set()).add(getattr(tested, name))
        shutil.rmtree(folder)
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(seen, 1)


def test_result_says_what_was_compared(finished):
    result = DriftResult.from_json(read_json(str(finished / "out" / "result.json")))
    assert (finished / "a" / "result.json").read_bytes() == (finished / "out" / "result.json").read_bytes()
    assert (result.reference.uri, result.reference.rows) == (str(finished / "x"), N)
    assert (result.current.uri, result.current.sampled) == (str(finished / "y"), M)
    assert (result.components, result.permutations, result.kernel.name, result.drift) == (0, 199, "rbf", True)
    assert [(timing.name, timing.tasks) for timing in result.steps] == [
        *(("sample", 1), ("fit", 1), ("project", 1), ("plan", 1)),
        *(("kernel", 3), ("test", 1)),
    ]
    assert len(result.moved) == 2 * MOVED_TEXTS
    witness = [moved.witness for moved in result.moved]
    assert witness == sorted(witness)
    for moved in result.moved:
        side, number = moved.id.split("-")
        assert moved.sample == {"x": "reference", "y": "current"}[side]
        assert moved.text == (f"old {number}" if side == "x" else None)
    judged = read_value(str(finished / "a" / "outcome.json"), Judged)
    places = [int(moved.id[2:]) + (0 if moved.sample == "reference" else N) for moved in result.moved]
    assert tuple(places) == judged.moved_rows


@pytest.mark.parametrize(
    ("shift", "method", "verdict"),
    [
        (1.0, "exact", "drift found"),
        (1.0, "cross", "drift found"),
        (1.0, "features", "drift found"),
        (0.0, "exact", "no drift found"),
        (0.0, "cross", "no drift found"),
        (0.0, "features", "no drift found"),
    ],
)
def test_the_test_puts_out_what_was_found(tmp_path, shift, method, verdict):
    """Kubeflow writes a step's outputs as JSON, and knows Python's own numbers alone."""
    rng = np.random.default_rng(3)
    sides = datasets(tmp_path, rng.normal(size=(60, 4)), rng.normal(shift, 1.0, size=(50, 4)))
    tested = run_to_report(tmp_path / "a", *sides, str(tmp_path / "out"), pca_components=2, test_method=method)
    judged = read_value(str(tmp_path / "a" / "outcome.json"), Judged)
    outcome, found = judged.outcome, tested.verdict
    assert found == (outcome.rejected, outcome.p_value, outcome.mmd2, outcome.threshold, verdict)
    assert tested.metrics == run_metrics(outcome, judged.plan.sample.pooled)
    assert tested.metrics["Verdict"] == verdict
    assert tested == judge(tmp_path)
    assert found.drift == (verdict == "drift found")
    assert [type(value) for value in found] == [bool, float, float, float, str]
    assert json.loads(json.dumps(found._asdict(), allow_nan=False)) == found._asdict()
    assert report(tmp_path / "a") == step.Reported(found.drift, str(tmp_path / "out" / "report.html"))
    result = DriftResult.from_json(read_json(str(tmp_path / "out" / "result.json")))
    assert (result.drift, result.p_value, result.mmd2, result.threshold) == found[:4]
    assert (result.verdict, result.method) == (verdict, method)
    assert tested.metrics["auc"] == result.auc
    assert (tested.metrics["rows_reference"], tested.metrics["rows_current"]) == (60, 50)


def test_the_component_puts_out_what_the_step_does():
    for declared, names, artifacts in (
        (component.mmd_test, step.Verdict._fields, ("test_outcome", "test_witness", "drift_metrics")),
        (component.report, step.Reported._fields, ("drift_result", "drift_report")),
    ):
        assert set(declared.component_spec.outputs) == {*names, *artifacts}


def test_history_keeps_no_texts(finished):
    [record] = read_history(str(finished / "out" / "history"))
    result = read_json(str(finished / "out" / "result.json"))
    assert record == {name: value for name, value in result.items() if name not in ("moved", "steps")}
    assert "old " not in json.dumps(record)


def test_report_twice_is_one_record_and_the_same_result(finished, tmp_path):
    out = tmp_path / "out"
    artifacts = elsewhere(finished, tmp_path)
    told = report(artifacts)
    first = {name: (out / name).read_bytes() for name in ("result.json", "report.html")}
    names = listing(out)
    assert report(artifacts) == told  # a retry, after the working files have gone
    assert listing(out) == names
    assert {name: (out / name).read_bytes() for name in first} == first
    page = first["report.html"].decode()
    assert "old " in page
    assert "<script" not in page


def test_another_history(finished, tmp_path):
    report(elsewhere(finished, tmp_path, history=str(tmp_path / "past")))
    assert len(listing(tmp_path / "past")) == 1
    assert listing(tmp_path / "out") == ["report.html", "result.json", "witness.parquet"]


def test_working_files_go_last(finished, tmp_path, monkeypatch, vectors):
    """A report that fails leaves its working files for the retry; one that ends leaves none."""
    history = tmp_path / "past"
    arguments = (tmp_path / "a", *datasets(tmp_path, *vectors), str(tmp_path / "out"))
    run_to_report(*arguments, pca_components=3, output_history=str(history))
    history.write_text("a file where a folder is wanted")
    with pytest.raises(OSError, match="a part of the path is a file"):
        report(tmp_path / "a")
    assert any(name.endswith("manifest.json") for name in listing(tmp_path / "out"))
    history.unlink()
    report(tmp_path / "a")
    assert [name for name in listing(tmp_path / "out") if (tmp_path / "out" / name).is_file()] == [
        "report.html",
        "result.json",
        "witness.parquet",
    ]


def test_every_text_has_its_witness(finished, vectors):
    table = pq.read_table(finished / "out" / "witness.parquet").to_pydict()
    spec = read_value(str(finished / "a" / "plan.json"), KernelPlan).spec
    gram = oracle.gram(np.concatenate(vectors), spec.collection.kernels[0])
    assert table["id"] == [f"x-{k}" for k in range(N)] + [f"y-{k}" for k in range(M)]
    assert table["sample"] == ["reference"] * N + ["current"] * M
    np.testing.assert_allclose(table["witness"], oracle.witness(gram, N), atol=1e-6)
    result = DriftResult.from_json(read_json(str(finished / "out" / "result.json")))
    lowest = np.argsort(table["witness"])[:MOVED_TEXTS]
    assert {table["id"][row] for row in lowest} == {moved.id for moved in result.moved[:MOVED_TEXTS]}


@pytest.fixture
def summed(tmp_path, vectors) -> tuple[KernelPlan, list[Path]]:
    """The plan of a run of three kernel tasks that has not been tested yet, and the tasks' files."""
    run_to_report(
        tmp_path / "a", *datasets(tmp_path, *vectors), str(tmp_path / "out"), pca_components=0, kernel_tasks=3
    )
    for name in ("outcome.json", "witness.npy"):
        (tmp_path / "a" / name).unlink()
    plan = read_value(str(tmp_path / "a" / "plan.json"), KernelPlan)
    return plan, [Path(plan.sums_place(task)) for task in range(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"{place}: the sums of kernel task 2 of 3 are missing; [^\n]+, and start this one again"),
        (b"torn", r"{place}: the sums of kernel task 2 of 3 are damaged \([^\n]+\); start the run again"),
    ],
)
def test_a_task_whose_sums_are_not_there_is_named(summed, tmp_path, content, message):
    places = summed[1]
    places[1].unlink()
    if content is not None:
        places[1].write_bytes(content)
    with pytest.raises(DataError, match=rf"\A{message.format(place=re.escape(str(places[1])))}\Z"):
        judge(tmp_path)
    assert not (tmp_path / "a" / "outcome.json").exists()
    assert not (tmp_path / "a" / "witness.npy").exists()


def test_sums_of_a_task_that_has_not_ended_are_refused(summed, tmp_path):
    place = summed[1][2]
    with place.open("rb") as file:
        task = read_task_sums(file)
    assert isinstance(task.sums, PartialSums)
    with place.open("wb") as file:
        write_task_sums(file, replace(task, sums=replace(task.sums, tiles=0)))
    with pytest.raises(DataError, match=r"\Akernel sums: expected 3 tiles in all, got 2; run the kernel tasks again\Z"):
        judge(tmp_path)
    assert not (tmp_path / "a" / "outcome.json").exists()


def test_a_record_of_something_else_in_the_history_is_refused(finished, tmp_path):
    (tmp_path / "past").mkdir()
    (tmp_path / "past" / "a.json").write_text('{"created": "2025-01-01T00:00:00Z", "statistic": 1.0}')
    with pytest.raises(DataError, match=r"/past: the record created 2025-01-01T00:00:00Z is none of a drift run"):
        report(elsewhere(finished, tmp_path, history=str(tmp_path / "past")))
    assert not (tmp_path / "out").exists()
    assert listing(tmp_path / "past") == ["a.json"]  # nor is this run recorded


def test_trend_has_the_past_and_this_run_once_and_last(finished, tmp_path, monkeypatch):
    shown = []

    def keep(data):
        shown.append([point.created for point in data.history])
        return ""

    monkeypatch.setattr(step, "render_report", keep)
    past = tmp_path / "past"
    shutil.copytree(finished / "out" / "history", past)
    [own] = past.iterdir()
    for created, run in (("2025-01-01T00:00:00Z", ""), ("2999-01-01T00:00:00+00:00", "another")):
        record = json.loads(own.read_text()) | {"created": created, "run": run}
        (past / f"{created[:4]}.json").write_text(json.dumps(record))
    for history in (past, tmp_path / "new"):
        report(elsewhere(finished, tmp_path, history=str(history)))
    created = json.loads(own.read_text())["created"]
    assert shown == [["2025-01-01T00:00:00Z", "2999-01-01T00:00:00+00:00", created], [created]]


@given(st_numpy.arrays(np.float64, st.integers(2, 40), elements=st.integers(-3, 3).map(float)), st.integers(1, 30))
def test_extremes_are_the_ends_of_the_order_and_none_twice(scores, count):
    rows = extremes(scores, count)
    half = min(count, len(scores) // 2)
    assert len(set(rows.tolist())) == len(rows) == 2 * half
    ordered = np.sort(scores)
    np.testing.assert_array_equal(scores[rows[:half]], ordered[:half])
    np.testing.assert_array_equal(scores[rows[half:]], ordered[len(ordered) - half :])
