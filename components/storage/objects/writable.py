"""Whether a run will be able to write, found out before hours of work."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from driftline.components.storage.objects import store
from driftline.components.storage.objects.location import is_gcs, normalised

_PROBE: Final = "writable"


def check_writable(folder: str) -> None:
    """Write an empty file into a folder, and remove it again, with the folders that were made for it.

    Args:
        folder: Where a run will write; it need not be there yet.

    Raises:
        StorageError: Nothing can be written there.
    """
    place = normalised(folder)
    made = [] if is_gcs(place) else [each for each in (Path(place), *Path(place).parents) if not _is_there(each)]
    probe = store.join(place, _PROBE)
    try:
        store.write_bytes(probe, b"")
        store.remove(probe)
    finally:
        for each in made:  # the deepest first
            with suppress(OSError):  # never made, or another run works in it by now
                each.rmdir()


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a folder above may not be looked into
