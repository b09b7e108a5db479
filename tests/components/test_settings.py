"""Settings that are described once: what their declarations say of them, and how they are checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from docstring_parser import parse
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.embedding.component import plan_backfill
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.errors import UsageError
from driftline.components.sampling.component import sample
from driftline.components.settings import Setting, check_settings, check_whole, described, filled, setting_of
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import LOCAL

DECLARATIONS: Mapping[str, tuple[Callable[..., Any], type[Any]]] = {
    "sample": (sample.python_func, DriftSettings),
    "drift": (drift_pipeline(LOCAL).pipeline_func, DriftSettings),  # pyright: ignore[reportFunctionMemberAccess]
    "plan-backfill": (plan_backfill.python_func, BackfillSettings),
    "backfill": (backfill_pipeline(LOCAL).pipeline_func, BackfillSettings),  # pyright: ignore[reportFunctionMemberAccess]
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_declaration_says_of_each_setting_what_it_is(name: str):
    function, kind = DECLARATIONS[name]
    parameters = inspect.signature(function).parameters
    told = {
        one.arg_name: " ".join((one.description or "").split()) for one in parse(inspect.getdoc(function) or "").params
    }
    common = parameters.keys() & described(kind).keys()
    assert len(common) >= 16
    for one in (described(kind)[name] for name in common):
        assert told[one.name].startswith(one.sentence), one.name
        assert told[one.name][len(one.sentence)] in ".,:", one.name
        default = parameters[one.name].default
        assert (tuple(default) if isinstance(default, list) else default) in (one.default, 0), one.name
        assert default == one.default or default != 0 or one.zero_is_default, one.name


def test_a_setting_that_is_handed_on_has_the_default_and_the_words_of_the_one_it_becomes():
    assert BackfillSettings().encoder == EncoderSettings()
    assert described(BackfillSettings)["model_prompt"].setting == setting_of(EncoderSettings, "prompt")
    assert described(BackfillSettings)["model_segment_overlap"].option == "overlap"


@dataclass(frozen=True)
class Some:
    """Settings of every kind."""

    mode: Annotated[Literal["a", "b", "c"], Setting("Way")] = "a"
    share: Annotated[float, Setting("Part", above=0, below=1)] = 0.5
    tasks: Annotated[int, Setting("Tasks", least=1, most=200)] = 4
    rows: Annotated[int, Setting("Rows", "all", least=0)] = 0
    delay_s: Annotated[float, Setting("Seconds", least=0)] = 1.0
    bytes: Annotated[int, Setting("Size", least=1, option="file-mib", unit=1024)] = 2048
    wait_s: Annotated[float, Setting("Wait", above=0)] = 1.0
    limit: Annotated[int | None, Setting("Limit", "none", least=0)] = None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "d"}, "mode: expected a, b or c, got 'd'"),
        ({"share": 0.0}, "share: expected a number between 0 and 1, both excluded, got 0.0"),
        ({"share": float("nan")}, "share: expected a number between 0 and 1, both excluded, got nan"),
        ({"tasks": 201}, "tasks: expected from 1 to 200, got 201"),
        ({"rows": -1}, "rows: expected 1 or more, or 0 for all, got -1"),
        ({"delay_s": -0.5}, "delay-s: expected 0 or more, got -0.5"),
        ({"bytes": 0}, "file-mib: expected 1 or more, got 0"),
        ({"wait_s": 0}, "wait-s: expected more than 0, got 0"),
        ({"limit": -1}, "limit: expected 0 or more, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused_in_words(given: dict[str, Any], message: str):
    check_settings(Some())
    with pytest.raises(UsageError) as caught:
        check_settings(Some(**given), by_option=True)
    assert str(caught.value) == message


def test_what_is_empty_is_the_default():
    given = {"mode": " ", "share": 0, "tasks": 0.0, "rows": 8.0}
    assert filled(Some, "x", given) == vars(Some()) | {"rows": 8}
    with pytest.raises(UsageError, match=r"\Arows: expected a whole number, got 8\.5\Z"):
        filled(Some, "x", {"rows": 8.5})
    with pytest.raises(TypeError, match=r"\Aexpected settings of x, got other\Z"):
        filled(Some, "x", {"other": 1})


@given(st.integers(-(2**63), 2**63))
def test_whole_numbers_are_taken_however_they_are_written(whole: int):
    check_whole(number=whole, same=float(whole))


@given(st.integers(-(2**40), 2**40), st.floats(0.001, 0.999))
def test_parts_are_refused(whole: int, part: float):
    with pytest.raises(UsageError, match=r"\Anumber: expected a whole number, got -?\d+\.\d+\Z"):
        check_whole(good=1, number=whole + part)
