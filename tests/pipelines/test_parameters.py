"""What is typed becomes what a pipeline declares, or is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.components.errors import DataError, UsageError
from driftline.pipelines.parameters import (
    Parameter,
    brief,
    declared,
    grouped,
    markdown,
    parameters_of,
    read_parameters,
)
from tests.support.kubeflow_cli import PIPELINE

PARAMETERS = declared(next(yaml.safe_load_all(PIPELINE)))
GIVEN = ["current=a", "reference=b", "output_folder=c"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("output_folder=", ""),
        ("output_folder=a=b", "a=b"),
        ("output_folder=7", "7"),
        ("test_level=0.1", 0.1),
        ("test_level=1e-3", 0.001),
        ("test_level=1", 1.0),
        ("kernel_tasks=8", 8),
        ("fail_on_drift=true", True),
        ("fail_on_drift=False", False),
        ('text_files=["gs://b/x.jsonl"]', ["gs://b/x.jsonl"]),
        ('extra={"a": 1}', {"a": 1}),
        ("test_method=exact", "exact"),
    ],
)
def test_a_value_has_its_declared_type(typed: str, value: object) -> None:
    found = parameters_of(PARAMETERS, [*(one for one in GIVEN if one[:4] != typed[:4]), typed])
    name = typed.partition("=")[0]
    assert found[name] == value
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("kernel_tasks=8.5", "parameter kernel_tasks: expected whole number, got '8.5'$"),
        ("kernel_tasks=eight", "expected whole number, got 'eight'"),
        ("test_level=nan", "parameter test_level: expected number, got nan"),
        ("test_level=0,1", "parameter test_level: expected number, got '0,1'"),
        ("fail_on_drift=yes", "parameter fail_on_drift: expected true or false, got 'yes'"),
        ("text_files=gs://b/x.jsonl", "parameter text_files: expected list, as JSON, got 'gs://b/x.jsonl'"),
        ('text_files={"a": 1}', "parameter text_files: expected list, as JSON, got {'a': 1}"),
        ("extra=[1]", r"parameter extra: expected object, as JSON, got \[1\]"),
        ("test_method=Exact", "parameter test_method: expected one of auto, exact, got 'Exact'"),
        ("test_levle=0.1", "parameter test_levle: the pipeline has none of that name; did you mean test_level?"),
        ("zzz=1", "parameter zzz: the pipeline has none of that name; known: current, reference, output_folder, "),
        ("output_folder=d", "parameter output_folder: is given twice"),
        ("test_level", "parameter: expected NAME=VALUE, got 'test_level'"),
        ("=1", "parameter: expected NAME=VALUE, got '=1'"),
    ],
)
def test_a_wrong_one_is_one_line(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parameters_of(PARAMETERS, [*GIVEN, typed])


def test_a_missing_one_is_named() -> None:
    with pytest.raises(
        UsageError, match="parameters current, output_folder: must be given: -p current=… -p output_folder=…"
    ):
        parameters_of(PARAMETERS, ["reference=a"])
    with pytest.raises(UsageError, match="parameter output_folder: must be given: -p output_folder=…"):
        parameters_of(PARAMETERS, ["reference=a"], {"current": "b"})


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_a_file_gives_values_of_their_own_types(tmp_path: Path, name: str) -> None:
    content = {
        "p.yaml": "reference: a\ncurrent: 2026-11-30\noutput_folder: on\ntest_level: 1e-3\nkernel_tasks: 4\n"
        "fail_on_drift: true\ntext_files: [x]\n",
        "p.json": '{"reference": "a", "current": "2026-11-30", "output_folder": "on", "test_level": 1e-3,'
        ' "kernel_tasks": 4, "fail_on_drift": true, "text_files": ["x"]}',
    }
    path = tmp_path / name
    path.write_text(content[name], encoding="utf-8")
    from_file = read_parameters(str(path))
    expected = {
        "current": "2026-11-30",
        "test_level": 0.001,
        "output_folder": "on",
        "reference": "a",
        "fail_on_drift": True,
        "kernel_tasks": 4,
    }
    assert parameters_of(PARAMETERS, [], from_file) == {**expected, "text_files": ["x"]}
    assert parameters_of(PARAMETERS, ["kernel_tasks=9"], from_file)["kernel_tasks"] == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel_tasks": "8"}, "parameter kernel_tasks: expected whole number, got '8'"),
        ({"kernel_tasks": 8.5}, "parameter kernel_tasks: expected whole number, got 8.5"),
        ({"kernel_tasks": True}, "parameter kernel_tasks: expected whole number, got True"),
        ({"test_level": "0.1"}, "parameter test_level: expected number, got '0.1'"),
        ({"output_folder": 7}, "parameter output_folder: expected text, got 7"),
        ({"output_folder": None}, "parameter output_folder: expected text, got None"),
        ({"fail_on_drift": "true"}, "parameter fail_on_drift: expected true or false, got 'true'"),
    ],
)
def test_a_files_values_are_checked_too(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parameters_of(PARAMETERS, GIVEN[:2], values)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(UsageError, match=r"params .*p\.yaml: No such file or directory; name a YAML or JSON file"):
        read_parameters(str(path))
    for content, message in (
        ("- a\n", "expected names and values, got list"),
        ("a: [\n", "is no YAML or JSON .*line 2"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_parameters(str(path))


def explained(**described: str) -> dict[str, Parameter]:
    """Parameters by name, each with its explanation; those that begin with q must be given."""
    return {
        name: Parameter(name, "STRING", name[0] == "q", None if name[0] == "q" else "", meaning)
        for name, meaning in described.items()
    }


def test_the_tables_explain_them() -> None:
    lines = markdown(PARAMETERS).splitlines()
    assert lines[:6] == [
        "| must be given | type | meaning |",
        "| --- | --- | --- |",
        "| `current` | text | What to compare. |",
        "| `output_folder` | text |  |",
        "| `reference` | text |  |",
        "",
    ]
    assert lines[6:8] == ["| may be given | type | default | meaning |", "| --- | --- | --- | --- |"]
    assert "| `kernel_tasks` | whole number | `8` |  |" in lines
    assert "| `test_method` | one of `auto`, `exact` | `auto` |  |" in lines
    assert "| `output_history` | text |  |  |" in lines
    assert "| `a_b` | text |  | As `q_x`, or 1 \\| 2\\*3 in `b*c` of gs://lake/q\\_x. |" in markdown(
        explained(q_x="", a_b="As q_x,\n  or 1 | 2*3 in `b*c` of gs://lake/q_x.")
    )
    assert markdown(explained(a="")) == "\n".join(
        ["| may be given | type | default | meaning |", "| --- | --- | --- | --- |", "| `a` | text |  |  |"]
    )
    assert markdown({}) == ""


def test_they_are_explained_in_short_by_group() -> None:
    parameters = explained(
        window_to="The last day (of UTC, say); empty for today.", window_from="MMD from here. More of it.",
        quantity="How many", kernel="As window_from.", seed="",
    )  # fmt: skip
    assert brief(parameters).splitlines() == [
        "- **must be given:** `quantity` how many",
        "- `kernel` as `window_from`",
        "- `seed`",
        "- `window_from` MMD from here; `window_to` the last day",
    ]
    assert brief(parameters, meanings=False).splitlines()[-1] == "- `window_from`; `window_to`"
    assert brief({}) == ""
    assert {group: [one.name for one in members] for group, members in grouped(parameters).items()} == {
        "": ["quantity"],
        "kernel": ["kernel"],
        "seed": ["seed"],
        "window": ["window_from", "window_to"],
    }


def test_what_is_no_pipeline() -> None:
    for spec in ({}, {"root": {}}, {"root": None}, {"components": {}}):
        with pytest.raises(DataError, match="expected a compiled pipeline with 'root' and its 'dag'"):
            declared(spec)
