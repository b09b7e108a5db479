"""What is typed becomes what a pipeline declares, or is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.components.errors import DataError, UsageError
from driftline.pipelines.parameters import declared, markdown, parameters_of, read_parameters
from tests.support.kubeflow_cli import PIPELINE

PARAMETERS = declared(next(yaml.safe_load_all(PIPELINE)))
GIVEN = ["current=a", "reference=b", "out=c"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("out=", ""),
        ("out=a=b", "a=b"),
        ("out=7", "7"),
        ("level=0.1", 0.1),
        ("level=1e-3", 0.001),
        ("level=1", 1.0),
        ("tasks=8", 8),
        ("strict=true", True),
        ("strict=False", False),
        ('texts=["gs://b/x.jsonl"]', ["gs://b/x.jsonl"]),
        ('extra={"a": 1}', {"a": 1}),
        ("method=exact", "exact"),
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
        ("tasks=8.5", "parameter tasks: expected whole number, got '8.5'$"),
        ("tasks=eight", "expected whole number, got 'eight'"),
        ("level=nan", "parameter level: expected number, got nan"),
        ("level=0,1", "parameter level: expected number, got '0,1'"),
        ("strict=yes", "parameter strict: expected true or false, got 'yes'"),
        ("texts=gs://b/x.jsonl", "parameter texts: expected list, as JSON, got 'gs://b/x.jsonl'"),
        ('texts={"a": 1}', "parameter texts: expected list, as JSON, got {'a': 1}"),
        ("extra=[1]", r"parameter extra: expected object, as JSON, got \[1\]"),
        ("method=Exact", "parameter method: expected one of auto, exact, got 'Exact'"),
        ("levle=0.1", "parameter levle: the pipeline has none of that name; did you mean level?"),
        ("zzz=1", "parameter zzz: the pipeline has none of that name; known: current, reference, out, history"),
        ("out=d", "parameter out: is given twice"),
        ("level", "parameter: expected NAME=VALUE, got 'level'"),
        ("=1", "parameter: expected NAME=VALUE, got '=1'"),
    ],
)
def test_a_wrong_one_is_one_line(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parameters_of(PARAMETERS, [*GIVEN, typed])


def test_a_missing_one_is_named() -> None:
    with pytest.raises(UsageError, match="parameters current, out: must be given: -p current=… -p out=…"):
        parameters_of(PARAMETERS, ["reference=a"])
    with pytest.raises(UsageError, match="parameter out: must be given: -p out=…"):
        parameters_of(PARAMETERS, ["reference=a"], {"current": "b"})


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_a_file_gives_values_of_their_own_types(tmp_path: Path, name: str) -> None:
    content = {
        "p.yaml": "reference: a\ncurrent: 2026-11-30\nout: on\nlevel: 1e-3\ntasks: 4\nstrict: true\ntexts: [x]\n",
        "p.json": '{"reference": "a", "current": "2026-11-30", "out": "on", "level": 1e-3, "tasks": 4,'
        ' "strict": true, "texts": ["x"]}',
    }
    path = tmp_path / name
    path.write_text(content[name], encoding="utf-8")
    from_file = read_parameters(str(path))
    expected = {"current": "2026-11-30", "level": 0.001, "out": "on", "reference": "a", "strict": True, "tasks": 4}
    assert parameters_of(PARAMETERS, [], from_file) == {**expected, "texts": ["x"]}
    assert parameters_of(PARAMETERS, ["tasks=9"], from_file)["tasks"] == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": "8"}, "parameter tasks: expected whole number, got '8'"),
        ({"tasks": 8.5}, "parameter tasks: expected whole number, got 8.5"),
        ({"tasks": True}, "parameter tasks: expected whole number, got True"),
        ({"level": "0.1"}, "parameter level: expected number, got '0.1'"),
        ({"out": 7}, "parameter out: expected text, got 7"),
        ({"out": None}, "parameter out: expected text, got None"),
        ({"strict": "true"}, "parameter strict: expected true or false, got 'true'"),
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


def test_the_table_explains_them() -> None:
    assert markdown(PARAMETERS).splitlines()[:4] == [
        "| parameter | type | default | meaning |",
        "|---|---|---|---|",
        "| `current` | text | required | What to compare. |",
        "| `reference` | text | required |  |",
    ]
    assert "| `tasks` | whole number | `8` |  |" in markdown(PARAMETERS)
    assert "What" not in markdown(PARAMETERS, meanings=False)


def test_what_is_no_pipeline() -> None:
    for spec in ({}, {"root": {}}, {"root": None}, {"components": {}}):
        with pytest.raises(DataError, match="expected a compiled pipeline with 'root' and its 'dag'"):
            declared(spec)
