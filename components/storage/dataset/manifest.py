"""The manifest of an embeddings dataset: what is in it, in one JSON object."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, cast

from driftline.components.errors import DataError

MANIFEST_NAME = "manifest.json"
FORMAT = "driftline.embeddings"
VERSION = 2
DTYPES = ("float32", "float16")

_SHARD_KEYS = {"name": str, "rows": int, "bytes": int, "crc32c": str}
_KEYS: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "version": int,
    "model": str,
    "revision": str,
    "dimension": int,
    "normalized": bool,
    "dtype": str,
    "rows": int,
    "columns": list,
    "shards": list,
}
_NO_DELETES_VERSION = 1
"""Version 2 added the deletion vectors, and nothing else."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file of a dataset: a shard, or the deletion vectors.

    Attributes:
        name: Its name within the dataset's folder; in a joined dataset with the folder of its part before it.
        rows: Its rows, at least 1.
        bytes: Its size.
        crc32c: Its checksum: base64 of the big-endian CRC-32C.

    Raises:
        DataError: A value is not possible.
    """

    name: str
    rows: int
    bytes: int
    crc32c: str

    def __post_init__(self) -> None:
        for component in self.name.split("/"):
            check_shard_name(component)
        if self.rows < 1 or self.bytes < 1 or not self.crc32c:
            raise DataError(
                f"shard {self.name!r}: {self.rows} rows, {self.bytes} bytes, crc32c {self.crc32c!r}; expected at "
                "least 1 row, 1 byte and a checksum: write the shard again"
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"name": self.name, "rows": self.rows, "bytes": self.bytes, "crc32c": self.crc32c}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an embeddings dataset holds. Rows are numbered through the shards, in this order, from 0.

    Rows that the deletion vectors name are not there for a reader: they are neither counted nor numbered.

    Attributes:
        model: The name of the model that made the vectors.
        revision: The model's revision.
        dimension: Numbers in a vector.
        normalized: Whether every vector has length 1.
        dtype: `float32` or `float16`.
        columns: The names of the carried columns, in the shards' order.
        shards: The shards, at least one.
        deletes: The file of deletion vectors, which name the rows to leave out; None where there are none.

    Raises:
        DataError: A value is not possible, two files or columns bear one name, or more rows are left out than
            there are.
    """

    model: str
    revision: str
    dimension: int
    normalized: bool
    dtype: str
    columns: tuple[str, ...]
    shards: tuple[Shard, ...]
    deletes: Shard | None = None

    def __post_init__(self) -> None:
        names = [shard.name for shard in self.shards]
        if self.dimension < 1:
            raise DataError(f"manifest: the dimension is {self.dimension}; expected at least 1")
        if self.dtype not in DTYPES:
            raise DataError(f"manifest: the dtype is {self.dtype!r}; expected {' or '.join(DTYPES)}")
        if not names or len(set(names)) != len(names):
            raise DataError("manifest: expected at least one shard, and each named once; write it again")
        if len({"id", "embedding", *self.columns}) != len(self.columns) + 2:
            raise DataError("manifest: a column's name is there twice; give each column its own name")
        if self.deletes is not None:
            if self.deletes.name in names:
                raise DataError(f"manifest: {self.deletes.name!r} is a shard and the deletion vectors; write it again")
            if self.deletes.rows > self.stored_rows:
                raise DataError(
                    f"manifest: {self.deletes.rows} rows are to be left out, the shards have {self.stored_rows}; "
                    "restore it or run the backfill again"
                )

    @property
    def rows(self) -> int:
        """Rows that readers see: those of all shards together, less the deleted ones. May be 0."""
        return self.stored_rows - (0 if self.deletes is None else self.deletes.rows)

    @property
    def stored_rows(self) -> int:
        """Rows of all shards together, the deleted ones included."""
        return sum(shard.rows for shard in self.shards)

    @property
    def digest(self) -> str:
        """`sha256:` and the hexadecimal SHA-256 of the manifest's canonical JSON: the dataset's identity.

        Without deletion vectors it is that of the manifest's version 1, so that a dataset keeps its identity when its
        manifest is written again.
        """
        record = self.to_json()
        if self.deletes is None:
            del record["deletes"]
            record["version"] = _NO_DELETES_VERSION
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "revision": self.revision,
            "dimension": self.dimension,
            "normalized": self.normalized,
            "dtype": self.dtype,
            "rows": self.rows,
            "columns": list(self.columns),
            "shards": [shard.to_json() for shard in self.shards],
            "deletes": None if self.deletes is None else self.deletes.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read what `to_json` gave, in this version or 1: nothing may be missing, and no key be unknown.

        Raises:
            DataError: It is not the manifest of an embeddings dataset, or of another version.
        """
        if not isinstance(value, dict):
            raise DataError("manifest: is not a JSON object; restore it or run the backfill again")
        record = cast("dict[str, Any]", value)
        if record.get("format") != FORMAT:
            raise DataError(
                f"manifest: the format is {record.get('format')!r}, not {FORMAT!r}; name an embeddings dataset"
            )
        version = record.get("version")
        if version not in (_NO_DELETES_VERSION, VERSION):
            raise DataError(
                f"manifest: version {version!r} cannot be read, this Driftline reads versions "
                f"{_NO_DELETES_VERSION} and {VERSION}; update Driftline or run the backfill again"
            )
        deletes_key = {} if version == _NO_DELETES_VERSION else {"deletes": (dict, NoneType)}
        _check_keys("manifest", record, {**_KEYS, **deletes_key})
        for name in record["columns"]:
            if not isinstance(name, str):
                raise DataError(f"manifest: column {name!r} is not a name; restore it or run the backfill again")
        shards: list[Shard] = []
        for i, entry in enumerate(record["shards"]):
            if not isinstance(entry, dict):
                raise DataError(f"manifest: shard {i} is not an object; restore it or run the backfill again")
            shards.append(_shard(f"manifest: shard {i}", cast("dict[str, Any]", entry)))
        deletes = record.get("deletes")
        manifest = cls(
            model=record["model"],
            revision=record["revision"],
            dimension=record["dimension"],
            normalized=record["normalized"],
            dtype=record["dtype"],
            columns=tuple(record["columns"]),
            shards=tuple(shards),
            deletes=None if deletes is None else _shard("manifest: the deletion vectors", deletes),
        )
        if manifest.rows != record["rows"]:
            less = "" if manifest.deletes is None else f", less the {manifest.deletes.rows} deleted"
            raise DataError(
                f"manifest: {record['rows']} rows are stated, the shards have {manifest.stored_rows}{less}; restore it "
                "or run the backfill again"
            )
        return manifest


@dataclass(frozen=True, slots=True)
class JoinedManifest(Manifest):
    """What several datasets of one model hold together: their rows one after the other, in the parts' order.

    It is made of the parts' manifests whenever a folder of datasets is opened, and never written.

    Attributes:
        parts: The folder of each dataset, within that of the whole, and its manifest.
    """

    parts: tuple[tuple[str, Manifest], ...] = ()

    @classmethod
    def of(cls, parts: Sequence[tuple[str, Manifest]]) -> JoinedManifest:
        """Join datasets, at least one, that agree in all but their rows."""
        first = parts[0][1]
        shards = [replace(shard, name=f"{folder}/{shard.name}") for folder, part in parts for shard in part.shards]
        return cls(
            first.model,
            first.revision,
            first.dimension,
            first.normalized,
            first.dtype,
            first.columns,
            tuple(shards),
            parts=tuple(parts),
        )

    @property
    def rows(self) -> int:
        """Rows that readers see. May be 0."""
        return sum(part.rows for _, part in self.parts)

    @property
    def digest(self) -> str:
        """`sha256:` and the hexadecimal SHA-256 of the parts' folders and identities: the whole's identity."""
        canonical = json.dumps([[folder, part.digest] for folder, part in self.parts], ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON object to look at; it cannot be read as a manifest."""
        return {"format": f"{FORMAT}.joined", "parts": {folder: part.to_json() for folder, part in self.parts}}


def check_shard_name(name: str) -> None:
    """Refuse a name that could lead out of the dataset's folder, or that readers would skip.

    Raises:
        DataError: It is not a plain file name.
    """
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise DataError(
            f"shard name {name!r}: expected a plain file name such as part-00000.parquet, without a slash or a "
            "leading dot"
        )


def _shard(what: str, record: dict[str, Any]) -> Shard:
    _check_keys(what, record, _SHARD_KEYS)
    check_shard_name(record["name"])
    return Shard(**record)


def _check_keys(what: str, record: Mapping[str, Any], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    missing = sorted(wanted.keys() - record.keys())
    unknown = sorted(record.keys() - wanted.keys())
    if missing or unknown:
        raise DataError(
            f"{what}: missing keys: {', '.join(missing) or 'none'}; unknown keys: {', '.join(unknown) or 'none'}; "
            "restore it or run the backfill again"
        )
    for key, kind in wanted.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        # By type, not isinstance: true is no number.
        if type(record[key]) not in kinds:
            raise DataError(
                f"{what}: {key!r} is {json.dumps(record[key], default=str)[:40]}, expected "
                f"{' or '.join('null' if one is NoneType else one.__name__ for one in kinds)}; restore it or run the "
                "backfill again"
            )
