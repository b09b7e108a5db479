"""Settings, each described once: in the annotation of a dataclass's field, which states name, type and default already.

    rows: Annotated[int, Setting("Rows of a file at most", least=1)] = 50_000

From it follow the option of a command (:mod:`driftline.components.command_line.options`), the check of what is given
(:func:`check_settings`), and the words that explain the setting in Kubeflow's form (:attr:`Described.sentence`), which
stand in the declarations, since KFP takes literals alone, and are compared with these by a test.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from driftline.components.errors import InputError, UsageError

MAX_TASKS: Final = 200
"""Ceiling of a fan-out. Each of its tasks is three pods to the cluster, and all that Argo knows of them stays in the
workflow's own object, of which Argo packs at most 1 MiB: 200 tasks fill about half of that. No more are needed: 200
tasks of 6 hours are 1,200 hours of work."""

SKIP: Final = "skip"
REFUSE: Final = "refuse"
"""What becomes of a run that has too little to work on, by its settings."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Description of a setting, beside its name, type and default.

    Attributes:
        help: what it is, without a full stop.
        empty: what an empty text or 0 stands for, in words; for a setting without a default, what is taken instead.
        least: the smallest number.
        most: the largest.
        above: a number that is too small by nothing.
        below: a number that is too large by nothing.
        choices: the words that it may be; those of a `Literal` unless given.
        option: its name on a command line, where that is another one.
        off: the option that says no, where that is not `--no-` and the name.
        unit: of the option's number in the setting's: 86,400 for days where the setting is in seconds.
        metavar: the option's value in the command's help.
    """

    help: str
    empty: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    option: str = ""
    off: str = ""
    unit: int = 1
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """A dataclass's field with its description.

    Attributes:
        name: the field's.
        kind: bool, int, float or str, or tuple for any number of texts.
        choices: the words that it may be; none for any.
        default: its default; None where one is made, or must be given.
        required: whether it has no default.
        setting: its description.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    required: bool
    setting: Setting

    @property
    def option(self) -> str:
        """Its name on a command line, without the dashes in front."""
        return self.setting.option or self.name.replace("_", "-")

    @property
    def zero_is_default(self) -> bool:
        """Whether 0 is out of range, so that a form's 0 can stand for the default."""
        return self.kind in (int, float) and not self._within(0)

    @property
    def sentence(self) -> str:
        """What Kubeflow's form says of it, to which a declaration may add examples."""
        most = f", {self.setting.most:,.0f} at most" if self.kind is int and self.setting.most is not None else ""
        empty = f"{self.default:,}" if self.zero_is_default else self.setting.empty
        instead = f"; {'empty' if self.kind is str else '0'} for {empty}" if empty else ""
        return self.setting.help + most + instead

    def check(self, value: Any, name: str) -> None:
        """Raise UsageError, which begins with the name, for a value out of range or none of the choices."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            *others, last = [choice or "nothing" for choice in self.choices]
            raise UsageError(f"{name}: expected {', '.join(others)} or {last}, got {value!r}")
        if self.kind in (int, float) and not self._within(value):
            got = value if self.setting.unit == 1 else f"{value / self.setting.unit:g}"
            raise UsageError(f"{name}: expected {self._range()}, got {got}")

    def _within(self, value: float) -> bool:
        one = self.setting
        return (
            (one.least is None or value >= one.least)
            and (one.most is None or value <= one.most)
            and (one.above is None or value > one.above)
            and (one.below is None or value < one.below)
        )

    def _range(self) -> str:
        one = self.setting
        if one.above is not None:
            both = one.below is not None
            return (
                f"a number between {one.above:g} and {one.below:g}, both excluded"
                if both
                else f"more than {one.above:g}"
            )
        if one.most is not None:
            return f"from {one.least:g} to {one.most:g}"
        if one.least == 0 and one.empty and self.kind is int and self.default is not None:
            return f"1 or more, or 0 for {one.empty}"
        return f"{one.least:g} or more"


@cache
def described(kind: type[Any]) -> Mapping[str, Described]:
    """Return the described fields of a dataclass by name, in their order."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Described] = {}
    for field in fields(kind):
        hint = hints[field.name]
        setting = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Setting)), None)
        if setting is not None:
            found[field.name] = _described(field, hint.__origin__, setting)
    return found


def _described(field: Field[Any], hint: Any, setting: Setting) -> Described:
    if get_origin(hint) in (Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not NoneType)
    literal = get_origin(hint) is Literal
    return Described(
        name=field.name,
        kind=str if literal else get_origin(hint) or hint,
        choices=setting.choices or (get_args(hint) if literal else ()),
        default=None if field.default is MISSING else field.default,
        required=field.default is MISSING and field.default_factory is MISSING,
        setting=setting,
    )


def setting_of(kind: type[Any], name: str) -> Setting:
    """Return the description of a dataclass's field, for another one that hands its value on."""
    found = described(kind)[name]
    return replace(found.setting, option=found.option)


def check_settings(settings: Any, *, by_option: bool = False) -> None:
    """Check every described field of a dataclass.

    Args:
        settings: an instance.
        by_option: whether errors call a setting by its option rather than by its field.

    Raises:
        UsageError: a value is out of range, or none of the choices.
    """
    for name, one in described(type(settings)).items():
        one.check(getattr(settings, name), one.option if by_option else name)


def option_names(kind: type[Any]) -> dict[str, str]:
    """Return the fields' names by those of the options, with underscores, as errors of a library have them."""
    return {one.option.replace("-", "_"): name for name, one in described(kind).items()}


def filled(kind: type[Any], what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass of settings. What is empty, or 0 where that is out of range, is the default.

    Args:
        kind: the dataclass, whose fields are all described and have defaults.
        what: what it is the settings of.
        given: settings by name. Kubeflow may hand whole numbers on as 8.0.

    Raises:
        UsageError: a number must be whole and is not.
        TypeError: there is no setting of a name.
    """
    known = described(kind)
    if unknown := given.keys() - known.keys():
        raise TypeError(f"expected settings of {what}, got {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {name: one.default for name, one in known.items()} | dict(given)
    for name, value in values.items():
        one = known[name]
        if (isinstance(value, str) and not value.strip()) or (value == 0 and one.zero_is_default):
            values[name] = one.default
        if one.kind is int and values[name] is not None:
            check_whole(**{name: values[name]})
            values[name] = int(values[name])
    return values


def check_whole(**numbers: float) -> None:
    """Raise UsageError for a number that must be whole and is not: Kubeflow hands an integer parameter 8.5 as it is."""
    for name, value in numbers.items():
        if not float(value).is_integer():
            raise UsageError(f"{name}: expected a whole number, got {value}")


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
