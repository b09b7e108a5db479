"""The graphs of the pipelines as Kubeflow's UI draws them, in a window of 1440 by 900 pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import pytest

from driftline.pipelines.catalogue import PIPELINES
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.profile import Profile
from tests.support.compiled_ir import Graph, Spec, Task, documents
from tests.support.ui_layout import MissingDagreError, Picture, layers, pictures

LETTERS_PX = 9.0
LABEL = 20  # letters of a task's name; the UI cuts what is longer
CROSSINGS = {"backfill": 1, "drift": 0}
"""Pairs of edges that cross in a pipeline, all layers together.

Where a task takes another one's artifact, the UI draws an edge between the two as well: that of the backfill's last
task crosses the plan's way into the loop.
"""
ROWS = 3  # that an edge may go down: to a neighbour over an artifact is two

Pictures: TypeAlias = Mapping[tuple[str, ...], Picture]


def spec_of(name: str) -> Spec:
    return documents(compile_pipeline(name, Profile()))[0]


def drawn(spec: Spec, **options: Any) -> Pictures:
    try:
        return pictures(spec, **options)
    except MissingDagreError as missing:
        pytest.skip(f"the layout needs the UI's own: {missing}")


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> tuple[str, Pictures]:
    return request.param, drawn(spec_of(request.param))


def test_every_layer_can_be_read_without_zooming(pipeline: tuple[str, Pictures]) -> None:
    _, found = pipeline
    letters = {str(picture.layer): round(picture.letters_px, 2) for picture in found.values()}
    assert {layer: size for layer, size in letters.items() if size < LETTERS_PX} == {}


def test_edges_are_short_and_do_not_tangle(pipeline: tuple[str, Pictures]) -> None:
    name, found = pipeline
    crossings = [(str(picture.layer), *pair) for picture in found.values() for pair in picture.crossings()]
    assert len(crossings) <= CROSSINGS[name], crossings
    assert {str(picture.layer): picture.longest_edge for picture in found.values() if picture.longest_edge > ROWS} == {}


def test_nothing_lies_below_the_map_in_the_corner(pipeline: tuple[str, Pictures]) -> None:
    """It would hide the verdict's green tick."""
    _, found = pipeline
    assert found[()].covered() == []


def test_what_is_opened_is_on_the_canvas(pipeline: tuple[str, Pictures]) -> None:
    """The UI fits the root alone to the window: what is opened from it has the root's zoom and place."""
    _, found = pipeline
    root = found[()]
    outside = {str(picture.layer): picture.outside(root) for path, picture in found.items() if path}
    assert {layer: labels for layer, labels in outside.items() if labels} == {}


def tasks_of(name: str) -> Iterator[Task]:
    return Graph(spec_of(name)).tasks()


@pytest.mark.parametrize("name", PIPELINES)
def test_tasks_have_short_names_of_their_own_and_loops_have_none(name: str) -> None:
    for task in tasks_of(name):
        label = task.spec["taskInfo"]["name"]
        assert len(label) <= LABEL, label
        if task.is_loop:
            # A loop by another name is not found by the driver of what is behind it.
            assert label == task.name
            assert label.startswith("for-loop-")
        else:
            assert label != task.name, f"{label} has the name of a function"


def test_drift_is_told_by_a_condition_behind_all_else() -> None:
    """Green where drift was found, grey where not: what is seen of the verdict without a click."""
    root = layers(spec_of("drift"))[0]
    [condition] = [key for key, node in root.nodes.items() if node.label == "drift found"]
    assert root.nodes[condition].kind == "sub-DAG"
    assert condition not in {source for source, _ in root.edges.values()}
    assert [node.label for node in root.nodes.values() if node.kind == "task"] == ["MMD test", "Report", "Choose rows"]


# The layout itself, against what was measured in a browser.


def spec_with(tasks: Mapping[str, tuple[str, str, str]]) -> Spec:
    """Return a pipeline spec of tasks by name: the artifacts that each takes and makes, and the tasks it is behind.

    An artifact is taken as ``task.name``; a task whose name begins with for- is a sub-DAG.
    """
    spec: dict[str, Any] = {"components": {}, "root": {"dag": {"tasks": {}}}}
    for name, (taken, made, behind) in tasks.items():
        inputs = {}
        for one in taken.split():
            producer, _, key = one.partition(".")
            inputs[key] = {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}}
        spec["root"]["dag"]["tasks"][name] = {
            "taskInfo": {"name": name},
            "componentRef": {"name": f"comp-{name}"},
            "inputs": {"artifacts": inputs},
            "dependentTasks": behind.split(),
        }
        body = {"dag": {"tasks": {}}} if name.startswith("for-") else {"executorLabel": f"exec-{name}"}
        outputs = {"artifacts": {key: {} for key in made.split()}}
        spec["components"][f"comp-{name}"] = {**body, "outputDefinitions": outputs}
    return spec


TANGLE = {
    "sample": ("", "pooled_sample", ""),
    "fit": ("sample.pooled_sample", "projection", "sample"),
    "project": ("sample.pooled_sample fit.projection", "projected_sample", "fit sample"),
    "plan": ("project.projected_sample", "kernel_plan", "project"),
    "for-loop-1": ("plan.kernel_plan", "", "plan"),
    "mmd-test": ("plan.kernel_plan", "outcome witness", "for-loop-1 plan"),
    "report": (
        "sample.pooled_sample fit.projection project.projected_sample plan.kernel_plan mmd-test.outcome "
        "mmd-test.witness",
        "html metrics result", "fit mmd-test plan project sample",
    ),
}  # fmt: skip
"""The drift pipeline before it was drawn for people."""

SMALL = {
    "plan-backfill": ("", "backfill_plan", ""),
    "for-loop-1": ("plan-backfill.backfill_plan", "", "plan-backfill"),
    "finish-backfill": ("plan-backfill.backfill_plan", "dataset metrics", "for-loop-1 plan-backfill"),
}


@pytest.mark.parametrize(
    ("tasks", "window", "size", "zoom", "edges"),
    [
        (TANGLE, (1440, 900), (1364.5, 1215), 0.550617, 33),
        (TANGLE, (1000, 1000), (1364.5, 1215), 0.520337, 33),
        (TANGLE, (1920, 1080), (1364.5, 1215), 0.685597, 33),
        (SMALL, (1440, 900), (479, 431), 1.5522, 8),
    ],
)
def test_the_layout_is_the_one_that_a_browser_shows(
    tasks: Mapping[str, tuple[str, str, str]],
    window: tuple[int, int],
    size: tuple[float, float],
    zoom: float,
    edges: int,
) -> None:
    """Sizes and zooms as measured in Chromium on the UI of Kubeflow Pipelines 2.17.0."""
    picture = drawn(spec_with(tasks), window=window)[()]
    assert picture.size == pytest.approx(size, abs=0.01)
    assert picture.zoom == pytest.approx(zoom, abs=1e-5)
    assert picture.letters_px == pytest.approx(11.375 * zoom, abs=1e-3)
    assert len(picture.layer.edges) == edges


def test_a_tangle_is_seen() -> None:
    picture = drawn(spec_with(TANGLE))[()]
    assert picture.letters_px < LETTERS_PX
    assert len(picture.crossings()) == 11
    assert picture.longest_edge == 11
    assert picture.longest_share > 0.8
    assert picture.fits


def test_what_the_map_covers_is_seen() -> None:
    """A row of four at the bottom reaches below it, one of three does not, and neither does one in the middle."""

    def covered(children: int, *, behind: int = 0) -> list[str]:
        chain = {f"t{i}": (f"t{i - 1}.a{i - 1}" if i else "", f"a{i}", "") for i in range(3)}
        row = {f"u{i}": ("t2.a2", "", "") for i in range(children)}
        below = {f"v{i}": ("", "", f"v{i - 1}" if i else "u0") for i in range(behind)}
        return drawn(spec_with({**chain, **row, **below}))[()].covered()

    assert covered(4) == ["u3"]
    assert covered(3) == []
    assert covered(4, behind=3) == []


def test_what_is_too_large_is_cut_off() -> None:
    chain = {f"t{i}": (f"t{i - 1}.a{i - 1}" if i else "", f"a{i}", "") for i in range(10)}
    picture = drawn(spec_with(chain))[()]
    assert not picture.fits
    assert picture.zoom == 0.5
    assert len(picture.outside(picture)) > 0
    assert picture.crossings() == []
    assert picture.longest_edge == 1
