"""Folders of embeddings datasets, partitioned by date, hour and model, that are read as one dataset.

Below such a folder each dataset lies in a folder of its own, each level of which says what it holds:
`date=2026-11-25/hour=13/model=all-MiniLM-L6-v2-1f6e2a90c4d7`. Any of the levels can be opened, and so can ranges:
`ARCHIVE/date=2026-11-18..2026-11-24` is the seven days, both ends included, and
`ARCHIVE/date=2026-11-25/hour=00..23/model=all-MiniLM-L6-v2-1f6e2a90c4d7` what one of several models made that day.
Hours of more than one day are named by their days, without a level for the date before them:
`ARCHIVE/hour=2026-11-24T13..2026-11-25T12`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.components.errors import DataError, StorageError
from driftline.components.storage.dataset.deletion_vectors import read_deletion_vectors
from driftline.components.storage.dataset.manifest import MANIFEST_NAME, JoinedManifest, Manifest
from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import FileInfo

_LEVEL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([^/]+)")
_DAY_AND_HOUR: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}", re.ASCII)
LAST: Final = "\U0010ffff"
"""As a selector's last value: there is no end."""

_READERS: Final = 16
"""Files read at once: a request to an object store is waiting, mostly."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The folders of one level that are wanted; hours named by their days take two levels, `date=…/hour=…`.

    Attributes:
        name: What the level tells apart, such as `date`.
        low: The first value wanted; values are compared as strings.
        high: The last one.
    """

    name: str
    low: str
    high: str

    @classmethod
    def parse(cls, level: str) -> Selector | None:
        """Read a level as it stands in a URI, `name=value` or `name=low..high`; None where it is none."""
        found = _LEVEL.fullmatch(level)
        if found is None:
            return None
        low, dots, high = found[2].partition("..")
        return cls(found[1], low, high if dots else low)

    @property
    def crosses_days(self) -> bool:
        """Whether it names hours by their days, such as 2026-11-24T13."""
        return self.name == "hour" and bool(_DAY_AND_HOUR.fullmatch(self.low) and _DAY_AND_HOUR.fullmatch(self.high))

    @property
    def width(self) -> int:
        """Levels of folders that it is about."""
        return 2 if self.crosses_days else 1

    @property
    def outermost(self) -> Selector:
        """What is wanted of the first of its levels alone."""
        return Selector("date", self.low[:10], self.high[:10]) if self.crosses_days else self

    def takes(self, folder: str) -> bool:
        """Say whether a folder, of `width` levels, is among them."""
        found = [_LEVEL.fullmatch(level) for level in folder.split("/")]
        names = [level[1] for level in found if level]
        value = "T".join(level[2] for level in found if level)
        return names == (["date", "hour"] if self.crosses_days else [self.name]) and self.low <= value <= self.high


def components_of(uri: str) -> list[str]:
    """Return a URI's components, which joined by slashes are the URI, but for slashes at its end."""
    return store.join(uri).rstrip("/").split("/")


def folder_of(components: Sequence[str], uri: str) -> str:
    """Return the folder of a URI's first components, which may be none of them."""
    return "/".join(components) or ("/" if store.join(uri).startswith("/") else ".")


def selected_folders(uri: str) -> tuple[str, tuple[Selector, ...]]:
    """Split a URI into the folder before its first range and what is wanted below that; no ranges, no selectors.

    Raises:
        DataError: A component behind a range is not of the form `name=value`.
    """
    components = components_of(uri)
    parsed = [Selector.parse(component) for component in components]
    ranges = (
        number
        for number, (component, selector) in enumerate(zip(components, parsed, strict=True))
        if selector is not None and (".." in component or selector.crosses_days)
    )
    first = next(ranges, None)
    if first is None:
        return uri, ()
    selectors: list[Selector] = []
    for component, selector in zip(components[first:], parsed[first:], strict=True):
        if selector is None:
            raise DataError(
                f"{uri}: {component!r} stands behind a range; expected folders such as hour=13 or hour=00..11 there"
            )
        selectors.append(selector)
    return folder_of(components[:first], uri), tuple(selectors)


def read_manifest(folder: str) -> Manifest:
    """Read the manifest of one dataset, which may be replaced meanwhile.

    Raises:
        DataError: It is not one of an embeddings dataset.
        StorageError: It cannot be read.
    """
    return read_manifest_version(folder)[0]


def read_manifest_version(folder: str) -> tuple[Manifest, FileInfo]:
    """Read the manifest of one dataset, and say which version of the file it is, or an earlier one.

    Raises:
        DataError: It is not one of an embeddings dataset.
        StorageError: It cannot be read.
    """
    place = store.join(folder, MANIFEST_NAME)
    info = store.stat(place)
    while True:
        try:
            return Manifest.from_json(store.read_json(place)), info
        except DataError as error:
            text = str(error)
            raise DataError(text if text.startswith(place) else f"{place}: {text}") from error
        except StorageError:
            # An object that is replaced between two requests for it can no longer be read: the new one can.
            seen, info = info, store.stat(place)
            if info == seen:
                raise


def joined_manifest(folder: str, selectors: Sequence[Selector] = ()) -> JoinedManifest | None:
    """Read the manifests of all datasets below a folder, in the order of their folders' names.

    Each is read as it is at that moment. A text that moves from one of them to another meanwhile, being embedded anew,
    may be found in both or in neither.

    Args:
        folder: What holds the datasets.
        selectors: Which of the folders are wanted, level by level; those below the last are all wanted.

    Returns:
        What they hold together; None where there is none.

    Raises:
        DataError: A manifest is damaged, or the datasets differ in their model or columns.
        StorageError: One cannot be read.
    """
    names = dataset_folders(folder, selectors)
    if not names:
        return None
    with ThreadPoolExecutor(_READERS) as pool:
        manifests = list(pool.map(read_manifest, [store.join(folder, name) for name in names]))
    parts = list(zip(names, manifests, strict=True))
    _check_alike(folder, parts)
    return JoinedManifest.of(parts)


def joined_deletion_vectors(folder: str, manifest: Manifest) -> dict[str, npt.NDArray[np.int64]]:
    """Read the deletion vectors, as `read_deletion_vectors` does, of one dataset or of all joined ones."""
    if not isinstance(manifest, JoinedManifest):
        return read_deletion_vectors(folder, manifest)
    with_vectors = [(name, part) for name, part in manifest.parts if part.deletes is not None]
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda entry: read_deletion_vectors(store.join(folder, entry[0]), entry[1]), with_vectors)
        return {
            f"{name}/{shard}": rows
            for (name, _), deletes in zip(with_vectors, found, strict=True)
            for shard, rows in deletes.items()
        }


def dataset_folders(folder: str, selectors: Sequence[Selector] = ()) -> list[str]:
    """Return the folders below this one, relative to it, that hold a dataset and say what each level is; sorted.

    Below the folders of the first level that are not wanted nothing is listed.

    Args:
        folder: What holds the datasets.
        selectors: Which of the folders are wanted, level by level; those below the last are all wanted.

    Raises:
        StorageError: They cannot be listed.
    """
    if not selectors:
        return _dataset_folders(folder)
    outer = [name for name in store.list_folders(folder) if selectors[0].outermost.takes(name)]
    with ThreadPoolExecutor(_READERS) as pool:
        inner = pool.map(lambda name: _dataset_folders(folder, name), outer)
        return sorted(name for names in inner for name in names if _wanted(name, selectors))


def _dataset_folders(folder: str, below: str = "") -> list[str]:
    return [
        name for name in manifest_folders(folder, below) if all(_LEVEL.fullmatch(level) for level in name.split("/"))
    ]


def manifest_folders(folder: str, below: str = "") -> list[str]:
    """Return the folders below this one, relative to it, that hold a manifest, whatever they are called; sorted.

    Args:
        folder: What holds them.
        below: The folder in it, relative to it, to look into; empty for all of it.

    Raises:
        StorageError: They cannot be listed.
    """
    base = PurePosixPath(store.join(folder))  # a listing need not spell the folder as the user did
    places = (
        PurePosixPath(info.uri).relative_to(base).as_posix().rpartition("/")
        for info in store.list_files(store.join(folder, below))
    )
    return sorted(name for name, _, file in places if file == MANIFEST_NAME and name)


def _wanted(name: str, selectors: Sequence[Selector]) -> bool:
    levels = name.split("/")
    for selector in selectors:
        if len(levels) < selector.width or not selector.takes("/".join(levels[: selector.width])):
            return False
        levels = levels[selector.width :]
    return True


def _check_alike(folder: str, parts: Sequence[tuple[str, Manifest]]) -> None:
    (first, ours), *others = parts
    for name, theirs in others:
        for what in ("model", "revision", "dimension", "normalized", "dtype", "columns"):
            mine, other = getattr(ours, what), getattr(theirs, what)
            if mine != other:
                raise DataError(
                    f"{store.join(folder, name)}: {what} is {other}, but {mine} in {store.join(folder, first)}; "
                    "name the datasets of one model, such as date=2026-11-18..2026-11-24/hour=00..23/model=…"
                )
