"""The graph of a compiled pipeline as Kubeflow's UI draws it, computed by the UI's own rules.

Nodes and edges are those of ``frontend/src/lib/v2/StaticFlow.ts`` of Kubeflow Pipelines 2.17.0. Where nodes lie is for
dagre to say, the very package; how much is seen, for React Flow's ``fitView`` without options. Sizes are those that the
UI's nodes have in a browser.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import floor
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from tests.support.compiled_ir import Spec

VARIABLE: Final = "DRIFTLINE_DAGRE"
"""Names the folder ``node_modules`` that holds dagre."""

DAGRE: Final = "0.8.4"
"""The version that the UI locks."""

WINDOW: Final = (1440, 900)
_CHROME: Final = (220, 165)
"""What the window loses to the navigation, and to the title, the tabs and the bar of layers."""

_REM: Final = 13.0
"""The page's font size."""

Kind = Literal["task", "artifact", "sub-DAG"]

_TOLD: Final = (224.0, 48.0)
"""The size that dagre is told of every node."""

_SIZES: Final[Mapping[Kind, tuple[float, float]]] = {
    "task": (182.0, 39.0),
    "artifact": (195.0, 39.0),
    "sub-DAG": (238.0, 82.0),
}
"""The sizes that nodes have, as a graph is first drawn."""

_FONTS: Final[Mapping[Kind, float]] = {"task": 0.875 * _REM, "artifact": 0.875 * _REM, "sub-DAG": _REM}

_PADDING, _LEAST_ZOOM, _MOST_ZOOM = 0.1, 0.5, 2.0
_MAP, _MAP_MARGIN = (200.0, 150.0), 15.0
_HANDLE: Final = 0.5  # half of the invisible dot in which an edge ends
_SAMPLES: Final = 64  # of each curve
_SCRIPT: Final = """
const dagre = require(process.argv[1] + '/dagre');
const told = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const placed = told.layers.map(({nodes, edges}) => {
  const graph = new dagre.graphlib.Graph();
  graph.setDefaultEdgeLabel(() => ({}));
  graph.setGraph({rankdir: 'TB'});
  for (const key of nodes) graph.setNode(key, {width: told.size[0], height: told.size[1]});
  for (const [source, target] of edges) graph.setEdge(source, target);
  dagre.layout(graph);
  return nodes.map((key) => [graph.node(key).x, graph.node(key).y]);
});
process.stdout.write(JSON.stringify(placed));
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A node.

    Attributes:
        label: what stands on it.
        kind: how it looks.
    """

    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Layer:
    """What the UI shows at once: the root, or what is in a sub-DAG.

    Attributes:
        path: the tasks that were opened to get there; empty for the root.
        nodes: by the UI's keys, in its order.
        edges: source and target, by the UI's keys; in its order, which counts for dagre.
    """

    path: tuple[str, ...]
    nodes: Mapping[str, Node]
    edges: Mapping[str, tuple[str, str]]

    def __str__(self) -> str:
        return " > ".join(("root", *self.path))


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node lies, before zoom; y grows downwards.

    Attributes:
        left, top, width, height: its frame.
        rank: its row, from 0.
    """

    left: float
    top: float
    width: float
    height: float
    rank: int

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


@dataclass(frozen=True)
class Picture:
    """A layer as it is drawn once it fits the window.

    Attributes:
        layer: what is drawn.
        boxes: of its nodes, by key.
        window: the browser's size, width and height in pixels.
    """

    layer: Layer
    boxes: Mapping[str, Box]
    window: tuple[int, int] = WINDOW

    @cached_property
    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of all nodes, before zoom."""
        boxes = self.boxes.values()
        return (
            min(box.left for box in boxes),
            min(box.top for box in boxes),
            max(box.left + box.width for box in boxes),
            max(box.top + box.height for box in boxes),
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of all nodes, before zoom."""
        left, top, right, bottom = self.frame
        return right - left, bottom - top

    @property
    def canvas(self) -> tuple[int, int]:
        """What of the window is left for the graph, width and height in pixels."""
        return self.window[0] - _CHROME[0], self.window[1] - _CHROME[1]

    @property
    def wanted_zoom(self) -> float:
        """The zoom at which it would fill the canvas."""
        return min(
            (room - 2 * floor((room - room / (1 + _PADDING)) / 2)) / taken
            for room, taken in zip(self.canvas, self.size, strict=True)
        )

    @property
    def zoom(self) -> float:
        """The zoom that the UI takes."""
        return min(max(self.wanted_zoom, _LEAST_ZOOM), _MOST_ZOOM)

    @property
    def fits(self) -> bool:
        """Whether all of it is seen."""
        return self.wanted_zoom >= _LEAST_ZOOM

    @property
    def letters_px(self) -> float:
        """Size of the smallest letters, in pixels."""
        return self.zoom * min(_FONTS[node.kind] for node in self.layer.nodes.values())

    @property
    def longest_edge(self) -> int:
        """Rows that the longest edge goes down."""
        return max((self._fall(edge) for edge in self.layer.edges.values()), default=0)

    @property
    def longest_share(self) -> float:
        """The most of the picture's height or width that an edge takes which goes past a row."""
        shares = [0.0]
        for source, target in (edge for edge in self.layer.edges.values() if self._fall(edge) > 1):
            away = abs(self.boxes[target].middle - self.boxes[source].middle)
            down = abs(self.boxes[target].top - self.boxes[source].top)
            shares.append(max(away / self.size[0], down / self.size[1]))
        return max(shares)

    def curves(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Points of each edge as it is drawn: a Bézier curve from a node's bottom to the next one's top."""
        return {name: self._curve(*edge) for name, edge in self.layer.edges.items()}

    def crossings(self) -> list[tuple[str, str]]:
        """Return the pairs of edges that cross; two that share an end are no pair."""
        curves, edges = self.curves(), self.layer.edges
        return [
            (one, other)
            for one, other in combinations(edges, 2)
            if not {*edges[one]} & {*edges[other]} and _cross(curves[one], curves[other])
        ]

    def covered(self) -> list[str]:
        """Return the labels of nodes that lie below the small map in the canvas's corner, at least in part."""
        (width, height), (left, top) = self.canvas, self._place
        map_left, map_top = width - _MAP_MARGIN - _MAP[0], height - _MAP_MARGIN - _MAP[1]
        return [
            self.layer.nodes[key].label
            for key, box in self.boxes.items()
            if (box.left + box.width) * self.zoom + left > map_left
            and box.left * self.zoom + left < map_left + _MAP[0]
            and (box.top + box.height) * self.zoom + top > map_top
            and box.top * self.zoom + top < map_top + _MAP[1]
        ]

    def outside(self, opened_from: Picture) -> list[str]:
        """Return the labels that are off the canvas, at least in part, when the layer is opened from another one.

        The UI fits the first layer alone: what is opened from it has its zoom and its place, until somebody clicks
        "fit view".
        """
        zoom, (x, y), (width, height) = opened_from.zoom, opened_from._place, self.canvas
        return [
            self.layer.nodes[key].label
            for key, box in self.boxes.items()
            if box.left * zoom + x < 0
            or box.top * zoom + y < 0
            or (box.left + box.width) * zoom + x > width
            or (box.top + box.height) * zoom + y > height
        ]

    @property
    def _place(self) -> tuple[float, float]:
        """Where on the canvas the layer's origin is, in pixels: the nodes are in the middle."""
        left, top, right, bottom = self.frame
        width, height = self.canvas
        return width / 2 - (left + right) / 2 * self.zoom, height / 2 - (top + bottom) / 2 * self.zoom

    def _fall(self, edge: tuple[str, str]) -> int:
        return self.boxes[edge[1]].rank - self.boxes[edge[0]].rank

    def _curve(self, source: str, target: str) -> npt.NDArray[np.float64]:
        start, end = self.boxes[source], self.boxes[target]
        first = np.array([start.middle, start.top + start.height + _HANDLE])
        last = np.array([end.middle, end.top - _HANDLE])
        down = last[1] - first[1]
        # React Flow's getBezierPath, at its default curvature of 0.25.
        bend = np.array([0.0, 0.5 * down if down >= 0 else 0.25 * 25 * np.sqrt(-down)])
        t = np.linspace(0.0, 1.0, _SAMPLES)[:, None]
        return (
            (1 - t) ** 3 * first
            + 3 * (1 - t) ** 2 * t * (first + bend)
            + 3 * (1 - t) * t**2 * (last - bend)
            + t**3 * last
        )


class MissingDagreError(Exception):
    """There is no node, or no dagre for it; the message says which."""


def layers(spec: Spec) -> list[Layer]:
    """Return what can be looked at in a compiled pipeline: the root first, then what is in each sub-DAG.

    On a run's page a loop has a layer more, of an iteration in each node, in one row; the layer of each is the same.
    """
    return [*_layers(spec, spec["root"], ())]


def pictures(
    spec: Spec, modules: str | None = None, window: tuple[int, int] = WINDOW
) -> Mapping[tuple[str, ...], Picture]:
    """Return what the UI draws of a compiled pipeline, by the path of its layers.

    Args:
        spec: the pipeline spec.
        modules: folder ``node_modules`` with dagre; by default what the environment names.
        window: the browser's size, width and height in pixels.

    Raises:
        MissingDagreError: dagre cannot be run.
    """
    found = layers(spec)
    placed = _placed(found, modules or os.environ.get(VARIABLE, ""))
    return {
        layer.path: Picture(layer, _boxes(layer, positions), window)
        for layer, positions in zip(found, placed, strict=True)
    }


def _layers(spec: Spec, component: Spec, path: tuple[str, ...]) -> Iterator[Layer]:
    tasks: Mapping[str, Any] = component["dag"].get("tasks", {})
    components = {name: spec["components"][task["componentRef"]["name"]] for name, task in tasks.items()}
    yield Layer(path, _nodes(component, tasks, components), _edges(tasks, components))
    for name in sorted(tasks):
        if "dag" in components[name]:
            yield from _layers(spec, components[name], (*path, name))


def _nodes(component: Spec, tasks: Spec, components: Spec) -> dict[str, Node]:
    # Keys come in the order of letters: the server sends what is in a map so.
    nodes: dict[str, Node] = {}
    for name in sorted(tasks):
        nodes[_task(name)] = Node(tasks[name]["taskInfo"]["name"], "sub-DAG" if "dag" in components[name] else "task")
    for name in sorted(component.get("inputDefinitions", {}).get("artifacts", {})):
        nodes[_artifact("", name)] = Node(name, "artifact")
    for task in sorted(tasks):
        inner = components[task].get("dag", {}).get("outputs", {}).get("artifacts", {})
        for name in _outputs(components[task]):
            selectors = inner.get(name, {}).get("artifactSelectors", [])
            label = selectors[0]["outputArtifactKey"] if len(selectors) == 1 else name
            nodes[_artifact(task, name)] = Node(label, "artifact")
    return nodes


def _edges(tasks: Spec, components: Spec) -> dict[str, tuple[str, str]]:
    edges: dict[str, tuple[str, str]] = {}
    for task in sorted(tasks):
        for name in _outputs(components[task]):
            edges[f"outedge.{task}.{name}"] = (_task(task), _artifact(task, name))
    for task in sorted(tasks):
        for _, source in sorted(tasks[task].get("inputs", {}).get("artifacts", {}).items()):
            if "taskOutputArtifact" in source:
                taken = source["taskOutputArtifact"]
                key, producer = taken["outputArtifactKey"], taken["producerTask"]
            else:
                key, producer = source["componentInputArtifact"], ""
            edges[f"inedge.{key}.{task}"] = (_artifact(producer, key), _task(task))
    for task in sorted(tasks):
        for _, source in sorted(tasks[task].get("inputs", {}).get("parameters", {}).items()):
            if "taskOutputParameter" in source:
                producer = source["taskOutputParameter"]["producerTask"]
                edges.setdefault(f"paramedge.{producer}.{task}", (_task(producer), _task(task)))
    for task in sorted(tasks):
        for producer in tasks[task].get("dependentTasks", []):
            edges.setdefault(f"paramedge.{producer}.{task}", (_task(producer), _task(task)))
    return edges


def _outputs(component: Spec) -> list[str]:
    return sorted(component.get("outputDefinitions", {}).get("artifacts", {}))


def _task(name: str) -> str:
    return f"task.{name}"


def _artifact(task: str, name: str) -> str:
    return f"artifact.{task}.{name}"


def _placed(found: Sequence[Layer], modules: str) -> list[list[tuple[float, float]]]:
    """Return where dagre puts the middles of each layer's nodes."""
    node = shutil.which("node")
    if node is None:
        raise MissingDagreError("there is no node on PATH, which runs dagre")
    package = Path(modules) / "dagre" / "package.json"
    if not modules or not package.is_file():
        raise MissingDagreError(f"{VARIABLE} names no folder node_modules with dagre: npm install dagre@{DAGRE}")
    version = json.loads(package.read_text(encoding="utf-8"))["version"]
    if version != DAGRE:
        raise AssertionError(f"{package}: expected dagre {DAGRE}, which the UI has, got {version}")
    told = [{"nodes": [*layer.nodes], "edges": [*layer.edges.values()]} for layer in found]
    done = subprocess.run(
        [node, "-e", _SCRIPT, str(package.parents[1].resolve())],
        input=json.dumps({"size": _TOLD, "layers": told}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"dagre: {done.stderr}")
    return json.loads(done.stdout)


def _boxes(layer: Layer, middles: Sequence[tuple[float, float]]) -> dict[str, Box]:
    rows = sorted({y for _, y in middles})
    boxes: dict[str, Box] = {}
    for (key, node), (x, y) in zip(layer.nodes.items(), middles, strict=True):
        # The UI puts the corner where it would be if the node had the size that dagre was told.
        boxes[key] = Box(x - _TOLD[0] / 2, y - _TOLD[1] / 2, *_SIZES[node.kind], rank=rows.index(y))
    return boxes


def _cross(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Say whether two lines of points cross."""
    p, q = one[:-1, None], other[None, :-1]
    r, s = one[1:, None] - p, other[None, 1:] - q
    span = _product(r, s)
    apart = np.where(span == 0, 1.0, span)
    t, u = _product(q - p, s) / apart, _product(q - p, r) / apart
    return bool(((span != 0) & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)).any())


def _product(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
