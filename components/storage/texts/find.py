"""Finds the files that inputs name: files, folders and patterns, local or gs://."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from driftline.components.errors import DataError
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import is_gcs, normalised, split_gcs

_FORMATS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".csv": "csv",
    ".csv.gz": "csv",
}
_READABLE = ".parquet, .jsonl, .ndjson or .csv (the last three also .gz)"
_WILD = re.compile(r"[*?]")


class NoTextFiles(DataError):  # noqa: N818 - named for what it is: a night may be quiet
    """There is no file where texts were expected."""


class NoTexts(DataError):  # noqa: N818
    """There are files of texts, but no text in them that is wanted."""


def text_format(uri: str) -> str | None:
    """The format that a file's name tells: `parquet`, `jsonl`, `csv`, or None."""
    name = uri.rpartition("/")[2].lower()
    for ending, kind in _FORMATS.items():
        if name.endswith(ending):
            return kind
    return None


def find_texts(inputs: Sequence[str]) -> list[str]:
    """Find the files of texts that `inputs` name.

    Args:
        inputs: Each a file, a folder (every file in it, at any depth, that ends in .parquet, .jsonl, .ndjson
            or .csv, the last three also with .gz), or a pattern: `*` and `?` stay within one path component,
            `**` spans any number. Local or gs://. In folders and patterns, names that begin with a dot or an
            underscore are left out, and so are files of other kinds.

    Returns:
        URIs in the order of the inputs, sorted within each; a file that two inputs name is there once.

    Raises:
        DataError: An input names nothing, or a file of another kind.
        StorageError: A place cannot be listed.
    """
    if not inputs:
        raise DataError(f"no inputs: name at least one file, folder or pattern of texts ({_READABLE})")
    found: dict[str, str] = {}
    for given in inputs:
        for uri in _resolve(normalised(given)):
            found.setdefault(uri if is_gcs(uri) else str(Path(uri).absolute()), uri)
    return list(found.values())


def _resolve(given: str) -> list[str]:
    place = given if is_gcs(given) else str(Path(given))
    if is_gcs(place):
        split_gcs(place)
    # Looked up first: a file may bear a name that looks like a pattern.
    listed = [info.uri for info in store.list_files(place)]
    if listed == [place]:
        if text_format(place) is None:
            raise DataError(f"{given}: its name does not tell the format of the texts; end it in {_READABLE}")
        return listed
    base, pattern = place.rstrip("/"), ""
    if not listed and (wild := _WILD.search(place)):
        base = place[: wild.start()].rpartition("/")[0]
        pattern = place[len(base) :].lstrip("/")
        folder = base or ("/" if place.startswith("/") else ".")
        names = _regex(pattern)
        listed = [info.uri for info in store.list_files(folder) if names.fullmatch(_relative(info.uri, base))]
    readable = [uri for uri in listed if text_format(uri) and _visible(_relative(uri, base))]
    if readable:
        return readable
    if listed:
        raise DataError(
            f"{given}: none of the {len(listed)} files found there is one of texts; name files that end in "
            f"{_READABLE}, without a dot or an underscore at the front"
        )
    missing = "no file matches the pattern" if pattern else "there is no such file, and no file in such a folder"
    raise NoTextFiles(f"{given}: {missing}; check the path")


def _relative(uri: str, base: str) -> str:
    return uri.removeprefix(base).lstrip("/")


def _visible(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/"))


def _regex(pattern: str) -> re.Pattern[str]:
    parts = pattern.split("/")
    expression = ""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:[^/]+/)*"
            continue
        for character in part:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        expression += "" if last else "/"
    return re.compile(expression, re.DOTALL)
