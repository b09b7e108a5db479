"""Folders of embeddings datasets, partitioned by date, hour and model, that are read as one dataset.

Below such a folder each dataset lies in a folder of its own, each level of which says what it holds:
`date=2026-11-25/hour=13/model=all-MiniLM-L6-v2-1f6e2a90c4d7`. Any of the levels can be opened, and so can ranges:
`ARCHIVE/date=2026-11-18..2026-11-24` is the seven days, both ends included, and
`ARCHIVE/date=2026-11-25/hour=00..23/model=all-MiniLM-L6-v2-1f6e2a90c4d7` what one of several models made that day.
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
from driftline.components.storage import store
from driftline.components.storage.deletes import read_deletes
from driftline.components.storage.location import FileInfo
from driftline.components.storage.manifest import MANIFEST_NAME, JoinedManifest, Manifest

_LEVEL: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([^/]+)")
_READERS: Final = 16
"""Files read at once: a request to an object store is waiting, mostly."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The folders of one level that are wanted.

    Attributes:
        name: What the level tells apart, such as `date`.
        low: The first value wanted; values are compared as strings.
        high: The last one.
    """

    name: str
    low: str
    high: str

    def takes(self, level: str) -> bool:
        """Say whether a folder is among them."""
        found = _LEVEL.fullmatch(level)
        return found is not None and found[1] == self.name and self.low <= found[2] <= self.high


def selected_folders(uri: str) -> tuple[str, tuple[Selector, ...]]:
    """Split a URI into the folder before its first range and what is wanted below that; no ranges, no selectors.

    Raises:
        DataError: A component behind a range is not of the form `name=value`.
    """
    components = store.join(uri).rstrip("/").split("/")
    first = next((i for i, level in enumerate(components) if (m := _LEVEL.fullmatch(level)) and ".." in m[2]), None)
    if first is None:
        return uri, ()
    base = "/".join(components[:first]) or ("/" if uri.startswith("/") else ".")
    selectors: list[Selector] = []
    for level in components[first:]:
        found = _LEVEL.fullmatch(level)
        if found is None:
            raise DataError(
                f"{uri}: {level!r} stands behind a range; expected folders such as hour=13 or hour=00..11 there"
            )
        low, dots, high = found[2].partition("..")
        selectors.append(Selector(found[1], low, high if dots else low))
    return base, tuple(selectors)


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
    names = [name for name in dataset_folders(folder) if _wanted(name, selectors)]
    if not names:
        return None
    with ThreadPoolExecutor(_READERS) as pool:
        manifests = list(pool.map(read_manifest, [store.join(folder, name) for name in names]))
    parts = list(zip(names, manifests, strict=True))
    _check_alike(folder, parts)
    return JoinedManifest.of(parts)


def joined_deletes(folder: str, manifest: Manifest) -> dict[str, npt.NDArray[np.int64]]:
    """Read which rows of which shards to leave out, as `read_deletes` does, of one dataset or of all joined ones."""
    if not isinstance(manifest, JoinedManifest):
        return read_deletes(folder, manifest)
    with_deletes = [(name, part) for name, part in manifest.parts if part.deletes is not None]
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda entry: read_deletes(store.join(folder, entry[0]), entry[1]), with_deletes)
        return {
            f"{name}/{shard}": rows
            for (name, _), deletes in zip(with_deletes, found, strict=True)
            for shard, rows in deletes.items()
        }


def dataset_folders(folder: str) -> list[str]:
    """Return the folders below this one, relative to it, that hold a dataset and say what each level is; sorted.

    Raises:
        StorageError: They cannot be listed.
    """
    base = PurePosixPath(store.join(folder))  # a listing need not spell the folder as the user did
    names: list[str] = []
    for info in store.list_files(folder):
        name, _, file = PurePosixPath(info.uri).relative_to(base).as_posix().rpartition("/")
        if file == MANIFEST_NAME and name and all(_LEVEL.fullmatch(level) for level in name.split("/")):
            names.append(name)
    return sorted(names)


def _wanted(name: str, selectors: Sequence[Selector]) -> bool:
    levels = name.split("/")
    return len(levels) >= len(selectors) and all(map(Selector.takes, selectors, levels))


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
