"""The form for a run of the pipelines, as Kubeflow's UI has it: a name and a type at each box, and no explanation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.errors import UsageError
from driftline.pipelines.catalogue import PIPELINES
from driftline.pipelines.choices import CHOICES
from driftline.pipelines.compiled import compile_pipeline
from driftline.pipelines.parameters import brief, declared, grouped
from driftline.pipelines.profile import Profile
from tests.support.compiled_ir import Graph, Spec, documents, inputs_of
from tests.support.ui_form import RefusedError, boxes, sent

FORMS = {
    "backfill": """
        embed_tasks - integer
        model - string, required
        model_dimension - integer
        model_max_tokens - integer
        model_precision - string
        model_prompt - string
        model_segments - string
        output_dtype - string
        output_folder - string, required
        output_incremental - boolean
        text_column - string
        text_files - list, required
        text_id_column - string
        text_strict - boolean
        text_where - list
        window_as_of - string
        window_since - string
        window_time_column - string
        window_until - string
        window_when_empty - string
    """,
    "drift": """
        current - string, required
        fail_on_drift - boolean
        kernel - string
        kernel_combination - string
        kernel_gamma - string
        kernel_tasks - integer
        notify_url - string
        output_folder - string, required
        output_history - string
        pca_components - integer
        reference - string, required
        seed - integer
        test_level - double
        test_method - string
        test_permutations - integer
        text_column - string
        window_as_of - string
        window_max_rows - integer
        window_min_rows - integer
        window_when_partial - string
        window_when_small - string
    """,
}
GIVEN = {
    "backfill": {"text_files": '["gs://lake/texts"]', "model": "gs://lake/model", "output_folder": "gs://lake/out"},
    "drift": {"reference": "gs://lake/a", "current": "gs://lake/b", "output_folder": "gs://lake/out"},
}
"""What somebody types at least."""

SETTINGS: Final[Mapping[str, type[DriftSettings] | type[BackfillSettings]]] = {
    "backfill": BackfillSettings,
    "drift": DriftSettings,
}


def spec_of(name: str, *, choices: bool = False) -> Spec:
    return documents(compile_pipeline(name, Profile(), choices=choices))[0]


def settings_of(name: str, values: Mapping[str, object]) -> Any:
    """Return the settings that a pipeline's first step makes of what the form sent."""
    kind = SETTINGS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    make: Callable[..., Any] = kind.of
    return make(**{key: value for key, value in values.items() if key in known})


@pytest.mark.parametrize("name", PIPELINES)
def test_the_form_from_the_top(name: str) -> None:
    lines = [f"{box.label}{', required' if box.required else ''}" for box in boxes(spec_of(name))]
    assert lines == [line.strip() for line in FORMS[name].strip().splitlines()]


@pytest.mark.parametrize("name", PIPELINES)
def test_what_need_not_be_given_has_a_default_and_what_must_be_given_has_none(name: str) -> None:
    """The form asks for whatever has no default, optional or not."""
    for key, one in inputs_of(spec_of(name)["root"]).items():
        assert bool(one.get("isOptional")) == ("defaultValue" in one), key
        assert one.get("description"), key


@pytest.mark.parametrize("name", PIPELINES)
def test_what_belongs_together_begins_alike(name: str) -> None:
    """Few groups, and what stands alone is one word or a thing of its own."""
    groups = grouped(declared(spec_of(name)))
    alone = [members[0].name for group, members in groups.items() if group and len(members) == 1]
    assert len(groups) - len(alone) <= 5
    assert set(alone) <= {
        "embed_tasks", "fail_on_drift", "notify_url", "output_history", "pca_components", "seed", "text_column",
    }  # fmt: skip


@pytest.mark.parametrize("name", PIPELINES)
def test_the_least_to_type_is_enough(name: str) -> None:
    spec = spec_of(name)
    assert settings_of(name, sent(spec, GIVEN[name])) == SETTINGS[name]()
    for missing in GIVEN[name]:
        typed = {key: text for key, text in GIVEN[name].items() if key != missing}
        with pytest.raises(RefusedError, match=f"{missing} - .*: Missing parameter"):
            sent(spec, typed)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_cleared_box_is_the_default(name: str) -> None:
    """A cleared text is sent as it is, empty; any other cleared box is not sent."""
    spec = spec_of(name)
    cleared = {box.name: "" for box in boxes(spec) if not box.required}
    values = sent(spec, {**GIVEN[name], **cleared})
    assert {key for key, value in values.items() if value == ""} == {
        box.name for box in boxes(spec) if box.kind == "STRING" and not box.required
    }
    assert settings_of(name, values) == SETTINGS[name]()
    blank = {box.name: " " for box in boxes(spec) if box.kind == "STRING" and not box.required}
    assert settings_of(name, sent(spec, {**GIVEN[name], **blank})) == SETTINGS[name]()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_zero_is_taken_everywhere(name: str) -> None:
    spec = spec_of(name)
    zeros = {box.name: "0" for box in boxes(spec) if box.kind.startswith("NUMBER")}
    settings = settings_of(name, sent(spec, {**GIVEN[name], **zeros}))
    default = SETTINGS[name]()
    for field in ("kernel_tasks", "test_permutations", "test_level", "embed_tasks"):
        assert getattr(settings, field, None) == getattr(default, field, None)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"text_files": "gs://lake/texts"}, "text_files - list: Invalid input. This parameter should be in list type"),
        ({"text_files": "['a']"}, "in list type"),
        ({"text_strict": "True"}, "text_strict - boolean: Invalid input. This parameter should be in boolean type"),
        ({"text_strict": "yes"}, "in boolean type"),
        ({"embed_tasks": "8.5"}, "embed_tasks - integer: Invalid input. This parameter should be in integer type"),
        ({"embed_tasks": "eight"}, "in integer type"),
        ({"text_files": ""}, "text_files - list: Missing parameter"),
    ],
)
def test_what_the_form_refuses(typed: Mapping[str, str], said: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(said)):
        sent(spec_of("backfill"), {**GIVEN["backfill"], **typed})


def test_what_the_form_sends() -> None:
    typed = {"text_strict": "true", "embed_tasks": "1e1", "text_where": '["rating >= 7"]', "model_dimension": ""}
    values = sent(spec_of("backfill"), {**GIVEN["backfill"], **typed})
    assert (values["text_strict"], values["embed_tasks"], values["text_where"]) == (True, 10, ["rating >= 7"])
    assert "model_dimension" not in values
    assert values["text_files"] == ["gs://lake/texts"]


# Select boxes.


@pytest.mark.parametrize("name", PIPELINES)
def test_select_boxes_offer_what_is_taken_and_nothing_else(name: str) -> None:
    spec = spec_of(name, choices=True)
    offered = {box.name: box for box in boxes(spec) if box.options}
    flags = {box.name for box in boxes(spec) if box.kind == "BOOLEAN"}
    assert offered.keys() == CHOICES[name].keys() | flags
    assert flags
    for key, box in offered.items():
        assert box.text in box.options
        assert len(set(box.options)) == len(box.options)
        for option in box.options:
            values = sent(spec, {**GIVEN[name], key: option})
            if key in CHOICES[name]:
                assert getattr(settings_of(name, values), key) == option
            else:
                assert values[key] is (option == "true")
        if key in CHOICES[name]:
            for wrong in {"exact", "Skip", "none", "float64", "rbf", "compare", f"{box.text}x"} - {*box.options}:
                with pytest.raises(UsageError, match=f"^{key}: "):
                    settings_of(name, {key: wrong})


# What the UI says of a pipeline, on a card that does not scroll.

CARD = 2050
"""Letters for which a card of 410 by 780 pixels has room."""


@pytest.mark.parametrize("name", PIPELINES)
def test_the_card_of_a_pipeline_holds_its_description_and_every_parameter(name: str) -> None:
    spec = spec_of(name)
    description, told = spec["pipelineInfo"]["description"], brief(declared(spec))
    assert all(f"`{box.name}` " in told for box in boxes(spec))
    assert len(description) + len(told) <= CARD


@pytest.mark.parametrize("name", PIPELINES)
def test_the_description_speaks_of_what_is_there(name: str) -> None:
    """Of nodes by the names that stand on them: what it says to look at can be found."""
    spec = spec_of(name)
    graph = Graph(spec)
    nodes = {task.spec["taskInfo"]["name"] for task in graph.tasks()}
    for component in graph.components.values():
        nodes |= {*component.get("outputDefinitions", {}).get("artifacts", {})}
    named = re.findall(r"`([^`]+)`", spec["pipelineInfo"]["description"])
    assert len(named) >= 2
    assert [one for one in named if one not in nodes | {*inputs_of(spec["root"])}] == []
