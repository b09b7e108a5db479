"""Argo Workflows' rules that a compiled pipeline's fate hangs on, as its controller (3.7 to 4.0) applies them.

Those of retries are in `tests.support.argo_retries`. What is in neither, no release of Kubeflow Pipelines emits for the
pipelines under test; meeting it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from tests.support.argo_retries import RetryStrategy


class Phase(StrEnum):
    """How a node ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"  # its container's status was not 0
    ERROR = "Error"  # Argo itself could not go on: a value that is missing, a pod whose object vanished
    SKIPPED = "Skipped"  # its `when` was false
    OMITTED = "Omitted"  # its `depends` was false


_FAILURES: Final = (Phase.FAILED, Phase.ERROR)
_COMPLETED: Final = (Phase.SUCCEEDED, *_FAILURES)


class UnsupportedError(Exception):
    """The Workflow uses what these rules do not know."""


# Depends: https://argo-workflows.readthedocs.io/en/latest/enhanced-depends-logic/
_TERM: Final = re.compile(r"\s*(?:(&&|\|\||!|\(|\))|([A-Za-z0-9][-A-Za-z0-9]*)(?:\.([A-Z][A-Za-z]+))?)\s*")
_BARE: Final = (Phase.SUCCEEDED, Phase.SKIPPED)  # or daemoned, which no task here is
_RESULTS: Final[Mapping[str, tuple[Phase, ...]]] = {
    "Succeeded": (Phase.SUCCEEDED,),
    "Failed": (Phase.FAILED,),
    "Errored": (Phase.ERROR,),
    "Skipped": (Phase.SKIPPED,),
    "Omitted": (Phase.OMITTED,),
    "Daemoned": (),
}


def _terms(depends: str) -> list[tuple[str, str, str]]:
    """Cut an expression into operators, and tasks with the result asked for."""
    found: list[tuple[str, str, str]] = []
    place = 0
    while place < len(depends):
        term = _TERM.match(depends, place)
        if term is None or (term[3] and term[3] not in _RESULTS):
            raise UnsupportedError(f"depends: {depends!r} from character {place} on")
        found.append((term[1] or "", term[2] or "", term[3] or ""))
        place = term.end()
    return found


def dependencies(depends: str) -> frozenset[str]:
    """Return the tasks that an expression waits for."""
    return frozenset(task for _, task, _ in _terms(depends) if task)


def admits(depends: str, phases: Mapping[str, Phase]) -> bool:
    """Whether a task may run after what became of those that it depends on; else it is omitted.

    A bare name means `Succeeded || Skipped || Daemoned`; `!` binds tighter than `&&`, `&&` tighter than `||`.
    """
    terms = _terms(depends)
    place = 0

    def operator(wanted: str) -> bool:
        nonlocal place
        if place < len(terms) and terms[place][0] == wanted:
            place += 1
            return True
        return False

    def either() -> bool:
        value = both()
        while operator("||"):
            value = both() or value  # both sides are read in any case
        return value

    def both() -> bool:
        value = one()
        while operator("&&"):
            value = one() and value
        return value

    def one() -> bool:
        nonlocal place
        if operator("!"):
            return not one()
        if operator("("):
            value = either()
            if not operator(")"):
                raise UnsupportedError(f"depends: no ) in {depends!r}")
            return value
        if place == len(terms) or not terms[place][1]:
            raise UnsupportedError(f"depends: a task is missing in {depends!r}")
        _, task, result = terms[place]
        place += 1
        return phases[task] in (_RESULTS[result] if result else _BARE)

    value = either()
    if place < len(terms):
        raise UnsupportedError(f"depends: {terms[place]} is too much in {depends!r}")
    return value


_WHEN: Final = re.compile(r"\s*(\S*)\s*(==|!=)\s*(\S*)\s*")


def holds(when: str) -> bool:
    """Whether a `when` is true: two words, compared."""
    compared = _WHEN.fullmatch(when)
    if compared is None:
        raise UnsupportedError(f"when: {when!r}")
    left, operator, right = compared.groups()
    return (left == right) == (operator == "==")


def dag_phase(depends: Mapping[str, Collection[str]], phases: Mapping[str, Phase]) -> Phase:
    """Return what becomes of a DAG: of its leaves, each of which inherits the last completed phase of its branch.

    Args:
        depends: of each task, the tasks that it depends on.
        phases: of each task.
    """
    leaves = depends.keys() - {task for tasks in depends.values() for task in tasks}

    def branch(task: str) -> Phase:
        if phases[task] in _COMPLETED:
            return phases[task]
        inherited = [branch(parent) for parent in depends[task]]
        return next((phase for phase in inherited if phase in _FAILURES), Phase.SUCCEEDED)

    return next((phase for phase in map(branch, sorted(leaves)) if phase in _FAILURES), Phase.SUCCEEDED)


_PLACEHOLDER: Final = re.compile(r"\{\{(?!\$)\s*([^{}]+?)\s*\}\}")


def substitute(text: str, scope: Mapping[str, str]) -> str:
    """Fill a text's `{{names}}` in. What stands in a value put in is left alone, as are KFP's own `{{$...}}`.

    Raises:
        KeyError: a name is unknown; Argo makes the node an error, or waits for it for ever.
        UnsupportedError: it is an expression.
    """

    def value(match: re.Match[str]) -> str:
        if match[1].startswith("="):
            raise UnsupportedError(f"expression: {match[0]}")
        return scope[match[1]]

    return _PLACEHOLDER.sub(value, text)


_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Return one of Argo's durations in seconds: a whole number of them, or numbers with units."""
    if text.isdigit():
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smh])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise UnsupportedError(f"duration: {text!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def retry_strategy(template: Mapping[str, Any], scope: Mapping[str, str]) -> RetryStrategy:
    """Read the retryStrategy of a Workflow's template, its placeholders filled in."""
    emitted: Mapping[str, Any] = template["retryStrategy"]
    unknown = emitted.keys() - {"limit", "retryPolicy", "backoff"}
    if unknown:
        raise UnsupportedError(f"retryStrategy: {', '.join(sorted(unknown))}")
    backoff = {name: substitute(str(value), scope) for name, value in emitted.get("backoff", {}).items()}
    return RetryStrategy(
        limit=int(substitute(str(emitted["limit"]), scope)),
        duration_s=seconds(backoff.get("duration", "0")),
        factor=int(backoff.get("factor", "0")),
        max_duration_s=seconds(backoff["maxDuration"]) if "maxDuration" in backoff else None,
        policy=emitted.get("retryPolicy") or "OnFailure",
    )
