from __future__ import annotations

import dataclasses
import json

import pytest

from driftline.components.errors import DataError, InputError
from driftline.components.mmd.report.data import HistoryPoint


def record(data) -> dict:
    """Return what the history keeps of a result, as it is read again."""
    kept = {name: value for name, value in data.result.to_json().items() if name not in ("moved", "steps")}
    return json.loads(json.dumps(kept))


@pytest.mark.parametrize("kernels", [1, 8])
def test_a_record_gives_what_the_result_says(sample, kernels):
    data = sample(kernels=kernels)
    found = HistoryPoint.of(record(data), "gs://b/history")
    assert found == data.history[-1]
    assert found.mmd2_interval == (2.81e-3, 3.67e-3)
    assert found.kernel == ("laplace-l2" if kernels == 8 else "rbf")


def test_a_record_without_an_interval(sample, changed):
    assert HistoryPoint.of(record(changed(sample(), mmd2_interval=None)), "h").mmd2_interval is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": None}, "is none of a drift run: expected the format 'driftline.drift-result', got None"),
        (
            {"version": 2},
            "is a drift result of version 2, expected 3; read it with the Driftline that wrote it",
        ),
        ({"version": None}, "is a drift result of version None, expected 3"),
        ({"mmd2": None}, "is damaged (mmd2: expected a number, got None)"),
        ({"mmd2": True}, "is damaged (mmd2: expected a number, got True)"),
        ({"drift": "no"}, "is damaged (drift: expected true or false, got 'no')"),
        ({"p_value": "small"}, "is damaged (p_value: expected a number, got 'small')"),
        ({"mmd2_interval": [1.0]}, "is damaged ("),
        ({"mmd2_interval": "no"}, "is damaged ("),
        ({"leading_kernel": 8}, "is damaged ("),
        ({"kernels": []}, "is damaged ("),
        ({"kernels": 5}, "is damaged ("),
        ({"kernels": [{"name": "rbf"}], "leading_kernel": 0}, "has no gamma"),
    ],
)
def test_other_records_are_refused_in_one_line(sample, values, said):
    with pytest.raises(DataError) as error:
        HistoryPoint.of(record(sample()) | values, "gs://b/history")
    message = str(error.value)
    assert message.startswith("gs://b/history: the record created 2026-03-14T06:00:00+00:00 ")
    assert said in message
    assert message.endswith("remove it, or give another folder for the history")
    assert "\n" not in message


@pytest.mark.parametrize("missing", ["drift", "p_value", "mmd2", "mmd2_interval", "auc", "kernels", "leading_kernel"])
def test_what_a_record_lacks_is_named(sample, missing):
    found = record(sample())
    del found[missing]
    with pytest.raises(DataError, match=f"has no {missing}; remove it"):
        HistoryPoint.of(found, "h")


def test_arrays_of_another_shape_are_refused(sample):
    data = sample(points=3)
    with pytest.raises(InputError, match=r"reference_points: expected .* \(rows, 2\), got shape \(3, 1\)"):
        dataclasses.replace(data, reference_points=data.reference_points[:, :1])
    with pytest.raises(InputError, match=r"permuted: expected .* got \(250, 2\)"):
        dataclasses.replace(data, permuted=data.permuted.reshape(250, 2))


@pytest.mark.parametrize("leading", [-1, 1])
def test_a_leading_kernel_that_is_not_there_is_refused(sample, changed, leading):
    with pytest.raises(InputError, match=f"place of one of its kernels in leading_kernel, got {leading} for 1"):
        changed(sample(), leading_kernel=leading)
