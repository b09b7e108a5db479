"""The drift history: one small JSON file a record, so that appending never touches earlier ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.objects import store

# Records read at once: a request to an object store is waiting, mostly.
_READERS = 8
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def append_history(uri: str, record: Mapping[str, Any], *, key: str) -> str:
    """Add one record to a history, atomically.

    The file's name is the record's time and its key: to append it again replaces it, so that a step that is
    run twice leaves one record.

    Args:
        uri: The history's folder; made where it is missing.
        record: A JSON object; its `created` is a time in UTC, in ISO 8601, such as 2025-03-01T06:00:00Z.
        key: Tells apart records of the same time: letters, digits, `.`, `_` and `-`, at most 128.

    Returns:
        The URI of the record.

    Raises:
        UsageError: The key cannot be part of a file's name.
        DataError: `created` is missing or no UTC time, or the record is not JSON.
        StorageError: It cannot be written.
    """
    if _KEY.fullmatch(key) is None:
        raise UsageError(
            f"history key {key!r}: expected 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    created = _created(store.join(uri, f"<record {key}>"), record)
    # Microseconds always, so that names sort as times do.
    place = store.join(uri, f"{created:%Y%m%dT%H%M%S.%fZ}-{key}.json")
    store.write_json(place, dict(record))
    return place


def read_history(uri: str) -> list[dict[str, Any]]:
    """Read all records of a history, by ascending `created`, then by name; a missing folder has none.

    Raises:
        DataError: A record is damaged; it is named.
        StorageError: A record cannot be read.
    """
    base = store.join(uri)
    places = [
        info.uri
        for info in store.list_files(base)
        if re.fullmatch(r"[^./][^/]*\.json", info.uri[len(base) :].lstrip("/"))
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        dated = list(readers.map(_read, places))
    return [record for _, record in sorted(dated, key=lambda pair: pair[0])]


def _read(place: str) -> tuple[tuple[datetime, str], dict[str, Any]]:
    try:
        value = store.read_json(place)
    except (DataError, StorageError) as error:
        kind = type(error)
        raise kind(f"history record {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"history record {place}: is not a JSON object; restore or remove it")
    record = cast("dict[str, Any]", value)
    return (_created(f"history record {place}", record), place), record


def _created(what: str, record: Mapping[str, Any]) -> datetime:
    value = record.get("created")
    try:
        created = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        created = None
    if created is None or created.utcoffset() != timedelta(0):
        raise DataError(
            f"{what}: 'created' is {value!r}; expected a time in UTC such as 2025-03-01T06:00:00Z: set it, or "
            "restore or remove the record"
        )
    return created.astimezone(UTC)
