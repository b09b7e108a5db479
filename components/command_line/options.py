"""Options of commands, from the settings that they become."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from driftline.components.settings import Described, described

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


def options_of(
    *kinds: type[Any], but: Collection[str] = (), only: Collection[str] = (), prefix: str = ""
) -> Callable[[Command], Command]:
    """Give a command an option for each described setting; :func:`settings_from` makes settings of their values.

    Args:
        kinds: dataclasses whose fields are described.
        but: fields that have no option here.
        only: fields that have one; empty for all.
        prefix: what their names begin with here, such as ``monitor-``.
    """
    options = [
        _option(one, prefix)
        for kind in kinds
        for name, one in described(kind).items()
        if name not in but and (not only or name in only)
    ]

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_from(kind: type[T], options: dict[str, Any], *, prefix: str = "", **others: Any) -> T:
    """Make settings of what was given as options.

    Args:
        kind: the dataclass.
        options: the command's values by the options' names; those of these settings are taken out.
        prefix: what the options' names begin with.
        others: fields without an option, or instead of one.

    Raises:
        UsageError: a value is out of range, or values contradict one another.
    """
    return kind(**fields_from(kind, options, prefix) | others)


def fields_from(kind: type[Any], options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Take the fields of a dataclass out of a command's values; those that were left out are missing."""
    found: dict[str, Any] = {}
    for name, one in described(kind).items():
        value = options.pop(_parameter(prefix + one.option), None)
        if value is not None:
            found[name] = value if one.setting.unit == 1 else one.kind(value * one.setting.unit)
    return found


def _option(one: Described, prefix: str) -> Callable[[Command], Command]:
    flag = f"--{prefix}{one.option}"
    if one.kind is bool and one.default:
        flag += f"/--{one.setting.off or f'no-{one.option}'}"
    many, empty = one.kind is tuple, "" if one.default else one.setting.empty
    more = "; repeatable" if many else f"; 0 for {one.setting.empty}" if one.setting.empty and one.default else ""
    no_default = one.default is None or one.default is False or one.default in ("", ())
    default: Any = one.default
    if one.setting.unit != 1 and default is not None:
        default = one.kind(default / one.setting.unit)
    return click.option(
        flag,
        _parameter(prefix + one.option),
        type=_type(one),
        is_flag=one.kind is bool,
        multiple=many,
        required=one.required,
        default=None if many or (one.choices and not default) else default,
        show_default=not (empty or no_default),
        metavar=one.setting.metavar or ("N" if one.kind in (int, float) else None),
        help=one.setting.help + more + "." + (f"  [default: {empty}]" if empty else ""),
    )


def _parameter(option: str) -> str:
    return option.replace("-", "_")


def _type(one: Described) -> Any:
    if one.kind is bool:
        return None
    if words := [word for word in one.choices if word]:
        return click.Choice(words)
    setting = one.setting
    least = setting.least if setting.above is None else setting.above
    most = setting.most if setting.below is None else setting.below
    ranged = (
        not setting.empty and not least is most is None
    )  # click shows a range; the check of the settings sees to all
    if one.kind is int:
        low, high = (None if bound is None else int(bound) for bound in (least, most))
        return click.IntRange(low, high) if ranged else click.INT
    if one.kind is float:
        above, below = setting.above is not None, setting.below is not None
        return click.FloatRange(least, most, min_open=above, max_open=below) if ranged else click.FLOAT
    return click.STRING


model_option = click.option(
    "--model", required=True, metavar="M", help="Folder, gs:// prefix or name of a sentence-transformers model."
)
tunings_option = click.option(
    "--tunings",
    metavar="FILE",
    help="What `driftline bench encode` measured.  [default: of this user, where there is one]",
)


def model_cache_option(default: str) -> Callable[[Command], Command]:
    """Return the option for the folder of models from gs://; its default in words."""
    return click.option(
        "--model-cache", metavar="DIR", help=f"Local folder for models from gs://.  [default: {default}]"
    )
