"""What many settings have in common: whole numbers, numbers of tasks, and words for what becomes of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final

from driftline.components.errors import InputError, UsageError

MAX_TASKS: Final = 200
"""Ceiling of a fan-out. Each of its tasks is three pods to the cluster, and all that Argo knows of them stays in the
workflow's own object, of which Argo packs at most 1 MiB: 200 tasks fill about half of that. No more are needed: 200
tasks of 6 hours are 1,200 hours of work."""

SKIP: Final = "skip"
REFUSE: Final = "refuse"
"""What becomes of a run that has too little to work on, by its settings."""


def check_whole(**numbers: float) -> None:
    """Raise UsageError for a number that must be whole and is not: Kubeflow hands an integer parameter 8.5 as it is."""
    for name, value in numbers.items():
        if not float(value).is_integer():
            raise UsageError(f"{name}: expected a whole number, got {value}")


def check_tasks(tasks: int) -> None:
    """Raise UsageError for a number of tasks that cannot be fanned out to."""
    check_whole(tasks=tasks)
    if not 1 <= tasks <= MAX_TASKS:
        raise UsageError(f"tasks: expected from 1 to {MAX_TASKS}, got {tasks}")


def filled(
    kind: type[Any], what: str, given: Mapping[str, Any], *, whole: Collection[str], never_zero: Collection[str]
) -> dict[str, Any]:
    """Return the values of a dataclass of settings. What is empty, or 0 where that means nothing, is default.

    Args:
        kind: the dataclass, whose fields all have defaults.
        what: what it is the settings of.
        given: settings by name.
        whole: names of those that are whole numbers, which Kubeflow may hand on as 8.0.
        never_zero: names of those of which 0 means nothing.

    Raises:
        UsageError: a number is not whole.
        TypeError: there is no setting of a name.
    """
    defaults: dict[str, Any] = {field.name: field.default for field in fields(kind)}
    unknown = given.keys() - defaults.keys()
    if unknown:
        raise TypeError(f"expected settings of {what}, got {', '.join(sorted(unknown))}")
    values = {**defaults, **given}
    for name, value in values.items():
        if (isinstance(value, str) and not value.strip()) or (value == 0 and name in never_zero):
            values[name] = defaults[name]
    for name in whole:
        check_whole(**{name: values[name]})
        values[name] = int(values[name])
    return values


@contextmanager
def in_pipelines(names: Mapping[str, str]) -> Generator[None]:
    """Let an error that begins with a setting's short name begin with its name in the pipeline's form.

    Args:
        names: the form's names by the short ones.
    """
    try:
        yield
    except InputError as error:
        error.args = (re.sub(r"\A\w+(?=:| ['\"])", lambda name: names.get(name[0], name[0]), str(error)),)
        raise


@contextmanager
def in_options(names: Mapping[str, str]) -> Generator[None]:
    """Let an error call settings what a command's options call them, and not what the pipeline's form does.

    Args:
        names: the form's names by the short ones, which the options bear.
    """
    short = {name: option for option, name in names.items()}
    try:
        yield
    except InputError as error:
        # Whole words, but no part of a path or of a quoted value.
        pattern = rf"(?<![\w/.'\"{{-])({'|'.join(short)})(?![\w/.'\"}}-])"
        error.args = (re.sub(pattern, lambda name: short[name[1]], str(error)),)
        raise
