"""What can be asked of a drift run: its defaults, what is refused and in which words, and that it is stated once."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.components.drift_settings import (
    COMBINATIONS,
    EXACT_ROWS,
    IN_PIPELINES,
    KERNELS,
    MAX_PERMUTATIONS,
    METHODS,
    SEARCH,
    WHEN_PARTIAL,
    WHEN_SMALL,
    WITHOUT_FEATURES,
    DriftSettings,
    check_permutations,
    choose_method,
    parse_gamma,
)
from driftline.components.errors import UsageError
from driftline.components.kernel.theory.families import KERNEL_NAMES, family
from driftline.components.kernel.theory.permutations import rank_of_threshold
from driftline.components.mmd.search import combine
from driftline.components.random_bits import MAX_SEED
from driftline.components.sampling.component import sample
from driftline.components.settings import MAX_TASKS
from driftline.components.storage.objects.values import read_value, write_value
from driftline.pipelines.commands.drift import drift as command
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import LOCAL

STATED: dict[str, Any] = {
    "output_history": "",
    "window_as_of": "",
    "window_max_rows": 0,
    "window_min_rows": 0,
    "window_when_small": "skip",
    "window_when_partial": "compare",
    "pca_components": 32,
    "kernel": "search",
    "kernel_gamma": "median",
    "kernel_combination": "studentised",
    "kernel_tasks": 4,
    "test_method": "auto",
    "test_permutations": 500,
    "test_level": 0.05,
    "seed": 0,
    "text_column": "",
}
"""What users are told that a setting is where they give none."""

WHOLE = [name for name, value in STATED.items() if isinstance(value, int)]
NUMBERS = [*WHOLE, "test_level"]
ZERO_IS_ZERO = {"window_max_rows", "window_min_rows", "pca_components", "seed"}
"""Of these 0 says something: all rows, the least, whole vectors, the seed 0."""

UI_LETTERS = 75
"""What Kubeflow's UI shows of a line of a log."""

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"window_max_rows": 1}, "window_max_rows: expected at least 2 rows, or 0 for all"),
    ({"window_max_rows": -1}, "window_max_rows: expected at least 2 rows, or 0 for all, got -1"),
    ({"window_min_rows": -5}, "window_min_rows: expected 1 or more, or 0 for the least that a test takes"),
    ({"window_when_small": "compare"}, "window_when_small: expected skip or refuse, got 'compare'"),
    ({"window_when_small": "Skip"}, "window_when_small: expected skip or refuse, got 'Skip'"),
    ({"window_when_partial": "ignore"}, "window_when_partial: expected compare, skip or refuse, got 'ignore'"),
    ({"pca_components": -1}, "pca_components: expected 1 or more, or 0 for whole vectors, got -1"),
    ({"kernel": "cosine"}, "kernel: unknown 'cosine'; choose search or one of: rbf, laplace-l2"),
    ({"kernel": "RBF"}, "kernel: unknown 'RBF'; choose search or one of: rbf, laplace-l2"),
    ({"kernel": "rbf", "kernel_gamma": "wide"}, "kernel_gamma: expected 'median' or a number above 0, got 'wide'"),
    ({"kernel": "rbf", "kernel_gamma": "0"}, "kernel_gamma: expected 'median' or a finite number above 0, got '0'"),
    ({"kernel": "rbf", "kernel_gamma": "-2"}, "kernel_gamma: expected 'median' or a finite number above 0, got '-2'"),
    ({"kernel": "rbf", "kernel_gamma": "nan"}, "kernel_gamma: expected 'median' or a finite number above 0"),
    ({"kernel": "rbf", "kernel_gamma": "1e999"}, "kernel_gamma: expected 'median' or a finite number above 0"),
    ({"kernel_gamma": "0.5"}, "kernel_gamma: 0.5 was given with the kernel search"),
    ({"kernel_combination": "min"}, "kernel_combination: unknown 'min'; choose one of: studentised, fuse, agg"),
    ({"kernel_tasks": -1}, "kernel_tasks: expected from 1 to 200, got -1"),
    ({"kernel_tasks": 201}, "kernel_tasks: expected from 1 to 200, got 201"),
    ({"test_method": "Exact"}, "test_method: unknown 'Exact'; choose one of: auto, exact, cross, features"),
    (
        {"test_method": "features", "kernel": "linear"},
        "test_method: features need a kernel of a distance, and linear is none",
    ),
    (
        {"test_method": "features", "kernel": "polynomial"},
        "test_method: features need a kernel of a distance, and polynomial is none",
    ),
    ({"test_permutations": 18}, "test_permutations: 18 are too few for level 0.05"),
    ({"test_permutations": 98, "test_level": 0.01}, "test_permutations: 98 are too few for level 0.01"),
    ({"test_permutations": -1}, "test_permutations: -1 are too few for level 0.05"),
    ({"test_permutations": 1_000_001}, "test_permutations: expected at most 1000000, got 1000001"),
    ({"test_level": 1}, "test_level: expected a number between 0 and 1, both excluded, got 1"),
    ({"test_level": 5.0}, "test_level: expected a number between 0 and 1, both excluded, got 5.0"),
    ({"test_level": -0.05}, "test_level: expected a number between 0 and 1, both excluded, got -0.05"),
    ({"test_level": float("nan")}, "test_level: expected a number between 0 and 1, both excluded, got nan"),
    ({"seed": -1}, f"seed: expected a whole number from 0 to {MAX_SEED}, got -1"),
    ({"seed": MAX_SEED + 1}, f"seed: expected a whole number from 0 to {MAX_SEED}, got"),
    *(({name: 8.5}, f"{name}: expected a whole number, got 8.5") for name in WHOLE),
    *(({name: float("nan")}, f"{name}: expected a whole number, got nan") for name in WHOLE),
    *(({name: float("-inf")}, f"{name}: expected a whole number, got -inf") for name in WHOLE),
]
"""Settings out of range, and what the message about them begins with: so much is read in Kubeflow's UI."""

FREE_TEXT = {"output_history", "window_as_of", "text_column"}
"""Settings that mean nothing without the clock, the folders and the columns: the first step checks them."""


def shown(value: object) -> str:
    """Return a name for a case that is none too long."""
    return str(value)[:60]


def test_what_is_not_given_is_what_is_stated():
    assert asdict(DriftSettings.of()) == asdict(DriftSettings()) == STATED


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", STATED)
def test_a_box_that_was_cleared_is_the_default(name: str, blank: str):
    assert asdict(DriftSettings.of(**{name: blank})) == STATED


def test_a_form_of_nothing_but_cleared_boxes_is_all_defaults():
    assert asdict(DriftSettings.of(**dict.fromkeys(STATED, ""))) == STATED


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_the_default_where_it_means_nothing(name: str, zero: float):
    found = getattr(DriftSettings.of(**{name: zero}), name)
    assert found == (0 if name in ZERO_IS_ZERO else STATED[name])
    assert type(found) is type(STATED[name])


@pytest.mark.parametrize("name", STATED)
def test_what_stands_around_a_text_does_not_count(name: str):
    if isinstance(STATED[name], str):
        given = STATED[name] or "x"
        assert getattr(DriftSettings.of(**{name: f" {given}\n"}), name) == given


@pytest.mark.parametrize(("changes", "begins"), REFUSED, ids=shown)
def test_what_is_out_of_range_is_refused_and_the_ui_shows_why(changes: dict[str, Any], begins: str):
    with pytest.raises(UsageError) as caught:
        DriftSettings.of(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert len(begins) <= UI_LETTERS
    assert message.startswith(begins)
    assert begins.partition(":")[0] in changes


def test_there_is_a_refusal_for_every_setting():
    assert {begins.partition(":")[0] for _, begins in REFUSED} == set(STATED) - FREE_TEXT


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_may_come_as_floats(name: str):
    """Kubeflow hands every number on as a double."""
    given, expected = (19.0, 19) if name == "test_permutations" else (8.0, 8)
    found = getattr(DriftSettings.of(**{name: given}), name)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"window_max_rows": 2}, 2),
        ({"kernel_tasks": 1}, 1),
        ({"kernel_tasks": MAX_TASKS}, MAX_TASKS),
        ({"test_permutations": 19}, 19),
        ({"test_permutations": MAX_PERMUTATIONS}, MAX_PERMUTATIONS),
        ({"seed": MAX_SEED}, MAX_SEED),
        ({"test_level": 1 / 501}, 1 / 501),
        ({"test_level": 0.999}, 0.999),
        ({"kernel_gamma": "median"}, "median"),
    ],
    ids=shown,
)
def test_the_ends_of_every_range_are_in_it(changes: dict[str, Any], kept: object):
    assert list(changes.values()) == [kept]
    [name] = changes
    assert getattr(DriftSettings.of(**changes), name) == kept


def test_a_window_may_have_to_hold_more_rows_than_are_taken_of_it():
    """Two thousand texts make a night, of which five hundred are compared."""
    asked = DriftSettings.of(window_min_rows=2000, window_max_rows=500)
    assert (asked.window_min_rows, asked.window_max_rows) == (2000, 500)


def test_what_is_no_setting_is_an_error_of_the_caller_s():
    with pytest.raises(TypeError, match=r"\Aexpected settings of a drift run, got permutations, sample\Z"):
        DriftSettings.of(seed=1, permutations=100, sample=3)


words = st.text(st.characters(categories=["L", "N"], include_characters="/:._-"), max_size=12)
gammas = st.one_of(st.just("median"), st.floats(1e-300, 1e300).map(repr))
valid = (
    st.fixed_dictionaries(
        {
            "output_history": words,
            "window_as_of": words,
            "window_max_rows": st.one_of(st.just(0), st.integers(2, 10**12)),
            "window_min_rows": st.integers(0, 10**12),
            "window_when_small": st.sampled_from(WHEN_SMALL),
            "window_when_partial": st.sampled_from(WHEN_PARTIAL),
            "pca_components": st.integers(0, 10**6),
            "kernel": st.sampled_from([SEARCH, *KERNELS]),
            "kernel_gamma": gammas,
            "kernel_combination": st.sampled_from(COMBINATIONS),
            "kernel_tasks": st.integers(1, MAX_TASKS),
            "test_method": st.sampled_from(METHODS),
            "test_permutations": st.integers(1, MAX_PERMUTATIONS),
            "test_level": st.floats(1e-6, 1, exclude_max=True),
            "seed": st.integers(0, MAX_SEED),
            "text_column": words,
        }
    )
    .map(lambda given: given | ({"kernel_gamma": "median"} if given["kernel"] == SEARCH else {}))
    .filter(lambda given: 1 / (int(given["test_permutations"]) + 1) <= float(given["test_level"]))
    .filter(lambda given: given["test_method"] != "features" or given["kernel"] not in WITHOUT_FEATURES)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(valid)
def test_settings_are_what_was_given_and_stay_so(tmp_path: Path, given: dict[str, Any]):
    asked = DriftSettings.of(**given)
    assert asdict(asked) == given
    assert DriftSettings.of(**asdict(asked)) == asked
    write_value(str(tmp_path / "settings.json"), asked)
    assert read_value(str(tmp_path / "settings.json"), DriftSettings) == asked


def test_a_gamma_given_as_a_number_travels_as_well(tmp_path: Path):
    asked = DriftSettings.of(kernel="rbf", kernel_gamma=0.5)
    write_value(str(tmp_path / "settings.json"), asked)
    assert read_value(str(tmp_path / "settings.json"), DriftSettings) == asked
    assert asked.kernel_gamma == "0.5"


# What goes with so many rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "n", "m", "dimension", "most"),
    [(8, 100, 100, 8, None), (9, 100, 100, 8, 8), (32, 10, 10, 384, 19), (19, 10, 10, 384, None), (0, 2, 2, 1, None)],
)
def test_no_more_components_than_there_are(components: int, n: int, m: int, dimension: int, most: int | None):
    asked = DriftSettings.of(pca_components=components)
    if most is None:
        asked.check_for(n, m, dimension)
        return
    expected = rf"\Apca_components: expected at most {most} for {n + m} vectors of dimension {dimension}, [^\n]+\Z"
    with pytest.raises(UsageError, match=expected):
        asked.check_for(n, m, dimension)


@pytest.mark.parametrize("kernel", [SEARCH, *KERNELS])
@pytest.mark.parametrize("method", METHODS)
def test_features_by_size_are_refused_for_a_kernel_that_has_none(kernel: str, method: str):
    if method == "features" and kernel in WITHOUT_FEATURES:
        return
    asked = DriftSettings.of(kernel=kernel, test_method=method)
    asked.check_for(EXACT_ROWS // 2, EXACT_ROWS - EXACT_ROWS // 2, 384)
    if method == "auto" and kernel in WITHOUT_FEATURES:
        with pytest.raises(UsageError, match=rf"\Akernel: {kernel} takes the test_method exact or cross, [^\n]+\Z"):
            asked.check_for(EXACT_ROWS // 2, EXACT_ROWS - EXACT_ROWS // 2 + 1, 384)
    else:
        asked.check_for(EXACT_ROWS, 4, 384)


def test_a_small_sample_has_no_halves():
    asked = DriftSettings.of(test_method="cross", pca_components=2)
    asked.check_for(4, 4, 384)
    for n, m in ((3, 100), (100, 3)):
        with pytest.raises(UsageError, match=rf"\Atest_method: cross [^\n]+ {n} and {m}[^\n]*\Z"):
            asked.check_for(n, m, 384)
        DriftSettings.of(test_method="exact", pca_components=2).check_for(n, m, 384)


# One statement of each ---------------------------------------------------------------------------------------------


def test_kernels_are_those_of_the_registry():
    assert KERNELS == KERNEL_NAMES
    assert tuple(name for name in KERNEL_NAMES if family(name).mixture is None) == WITHOUT_FEATURES
    assert SEARCH not in KERNELS


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_combination_is_there(combination: str):
    assert len(combine([[1.0, 0.0, 0.5]], [1.0], [1.0], 5, 5, combination)) == 3


@pytest.mark.parametrize(("n", "m", "method"), [(100_000, 100_000, "exact"), (100_000, 100_001, "features")])
def test_auto_goes_by_size_and_says_so(n: int, m: int, method: str):
    choice = choose_method("auto", n, m)
    assert choice.method == method
    assert choice.why.startswith(f"chosen by size ({n + m:,} rows are {'within' if method == 'exact' else 'past'} the ")


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_method_that_is_asked_for_is_taken_at_any_size(method: str):
    for rows in (2, 10**9):
        choice = choose_method(method, rows, rows)
        assert choice.method == method
        assert choice.why.startswith("asked for: ")


def test_what_becomes_of_a_run_is_said_in_these_words():
    assert WHEN_SMALL == ("skip", "refuse")
    assert WHEN_PARTIAL == ("compare", "skip", "refuse")
    assert METHODS == ("auto", "exact", "cross", "features")
    assert COMBINATIONS == ("studentised", "fuse", "agg")
    for name, allowed in (
        ("window_when_small", WHEN_SMALL),
        ("window_when_partial", WHEN_PARTIAL),
        ("kernel", (SEARCH, *KERNELS)),
        ("kernel_combination", COMBINATIONS),
        ("test_method", METHODS),
    ):
        assert STATED[name] in allowed
        for word in allowed:
            assert getattr(DriftSettings.of(**{name: word}), name) == word


def test_the_level_of_the_settings_is_that_of_the_threshold():
    for permutations in (1, 18, 19, 20, 99, 500):
        for level in (0.001, 0.01, 0.05, 0.5):
            outcomes: list[str] = []
            for check in (check_permutations, rank_of_threshold):
                try:
                    check(permutations, level)
                    outcomes.append("")
                except UsageError as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]


def test_gammas():
    assert parse_gamma("median") == "median"
    assert parse_gamma("0.5") == parse_gamma(0.5) == 0.5
    for wrong in ("wide", "", "0", "-1", "inf", "nan", float("inf")):
        with pytest.raises(UsageError, match=r"\Agamma: expected 'median' or a [^\n]+\Z"):
            parse_gamma(wrong)


def defaults(function: Any) -> dict[str, Any]:
    """Return the defaults of a Python function's settings, in their order."""
    parameters = inspect.signature(function).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name in STATED}


def test_what_the_form_shows_is_what_the_settings_are():
    assert [field.name for field in dataclasses.fields(DriftSettings)] == list(STATED)
    for function in (sample.python_func, drift_pipeline(LOCAL).pipeline_func):  # pyright: ignore[reportFunctionMemberAccess]
        found = defaults(function)
        assert found == STATED
        assert list(found) == list(STATED)
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in STATED.items()
        }


def test_what_the_form_says_of_zero_is_what_it_does():
    for function in (sample.python_func, drift_pipeline(LOCAL).pipeline_func):  # pyright: ignore[reportFunctionMemberAccess]
        words = " ".join((inspect.getdoc(function) or "").split())
        for name in set(NUMBERS) - ZERO_IS_ZERO:
            told = words.partition(f"{name}: ")[2].partition(". ")[0]
            assert told.endswith(f"; 0 for {STATED[name]}"), name


def test_the_command_has_the_same_defaults():
    found = {IN_PIPELINES.get(option.name or "", option.name): option.default for option in command.params}
    assert {name: found[name] for name in STATED} == STATED
