"""The columns in a result: the one whose texts are shown, and the others that the datasets carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.components.errors import UsageError
from driftline.components.mmd.result import DriftResult, MovedText
from driftline.components.storage.objects.json_history import read_history
from driftline.components.storage.objects.store import read_json
from tests.components.mmd.report.samples import make_data
from tests.support.command import listing
from tests.support.datasets import write_embeddings
from tests.support.steps import run_steps

ROWS = 30
FIELDS_OF_BEFORE = {
    "as_of", "auc", "combination", "components", "created", "current", "drift", "explained_variance_ratio",
    "feature_error_bound", "format", "job", "kernels", "leading_kernel", "level", "method", "method_reason", "mmd2",
    "mmd2_interval", "moved", "p_value", "permutations", "reference", "report_uri", "run", "seed", "statistic",
    "status", "steps", "threshold", "version",
}  # fmt: skip
"""The fields that a result has with or without columns."""


def words(name: str, *, missing: bool = False) -> list[Any]:
    return [None if missing and row % 2 else f"{name} {row}" for row in range(ROWS)]


def result_of(folder: Path, columns: tuple[Mapping[str, Any], Mapping[str, Any]], **settings: Any) -> DriftResult:
    """Run over two datasets with such columns, and return the result that was written."""
    sides = [
        write_embeddings(
            str(folder / name), np.random.default_rng(seed).normal(seed, 1.0, (ROWS, 3)), carried=each, prefix=name
        )
        for seed, (name, each) in enumerate(zip("xy", columns, strict=True))
    ]
    run_steps(folder / "a", sides[0], sides[1], str(folder / "out"), pca_components=2, **settings)
    written = read_json(str(folder / "out" / "result.json"))
    assert set(written) == FIELDS_OF_BEFORE | {"text_column", "carried"}
    [record] = read_history(str(folder / "out" / "history"))
    assert record == {name: value for name, value in written.items() if name not in ("moved", "steps")}
    return DriftResult.from_json(written)


def expected(moved: MovedText, columns: tuple[Mapping[str, Any], Mapping[str, Any]], column: str) -> str | None:
    """Return what the datasets carry for a text."""
    side = columns[0 if moved.sample == "reference" else 1]
    return side[column][int(moved.id[2:])] if column in side else None


TEXT, BODY, STARS = words("text"), words("body"), list(range(ROWS))


@pytest.mark.parametrize(
    ("columns", "column", "carried"),
    [
        (({"text": TEXT}, {"text": TEXT}), "text", ("text",)),
        (({"text": TEXT}, {}), "text", ("text",)),
        (({}, {"text": TEXT, "stars": STARS}), "text", ("text", "stars")),
        (({}, {}), "", ()),
        (({"stars": STARS}, {"body": BODY}), "", ("stars", "body")),
        (({"text": words("text", missing=True)}, {"text": TEXT}), "text", ("text",)),
    ],
    ids=["both", "reference", "current", "none", "others", "with nulls"],
)
def test_text_is_shown_where_it_is_carried(
    tmp_path: Path, columns: tuple[Mapping[str, Any], Mapping[str, Any]], column: str, carried: tuple[str, ...]
):
    result = result_of(tmp_path, columns)
    assert (result.text_column, result.carried) == (column, carried)
    assert {moved.sample for moved in result.moved} == {"reference", "current"}
    assert [moved.text for moved in result.moved] == [expected(moved, columns, column) for moved in result.moved]


def test_the_column_that_is_asked_for_is_shown(tmp_path: Path):
    columns = {"text": TEXT, "body": BODY}, {"body": BODY, "stars": STARS}
    result = result_of(tmp_path, columns, text_column="body")
    assert (result.text_column, result.carried) == ("body", ("text", "body", "stars"))
    assert [moved.text for moved in result.moved] == [expected(moved, columns, "body") for moved in result.moved]
    assert "body 1" in (tmp_path / "out" / "report.html").read_text()


def test_numbers_are_shown_as_texts(tmp_path: Path):
    result = result_of(tmp_path, ({"stars": STARS}, {"stars": STARS}), text_column="stars")
    assert [moved.text for moved in result.moved] == [moved.id[2:] for moved in result.moved]


def test_a_misspelt_column_makes_no_run_at_all(tmp_path: Path):
    with pytest.raises(UsageError, match=r"\Atext_column: no column 'bodyy' is there; columns: body; in [^\n]+\Z"):
        result_of(tmp_path, ({"body": BODY}, {"body": BODY}), text_column="bodyy")
    assert listing(tmp_path / "a") == []
    assert not (tmp_path / "out").exists()


def test_the_columns_do_not_change_what_is_found(tmp_path: Path):
    found = []
    for number, (columns, settings) in enumerate(
        [
            (({}, {}), {}),
            (({"text": TEXT}, {"text": TEXT}), {}),
            (({"body": BODY}, {"body": BODY}), {"text_column": "body"}),
        ]
    ):
        result = result_of(tmp_path / f"{number}", columns, **settings)
        found.append((result.statistic, result.p_value, result.threshold, result.kernels, result.mmd2_interval))
    assert len(set(found)) == 1


def test_a_result_of_before_tells_of_no_columns():
    record = make_data().result.to_json()
    for name in ("text_column", "carried"):
        del record[name]
    result = DriftResult.from_json(record)
    assert (result.text_column, result.carried) == ("", ())
