"""What a shard of an embeddings dataset looks like, and what its writer, its readers and its checks share."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from driftline.components.errors import DataError, StorageError, UsageError
from driftline.components.storage.dataset.manifest import DTYPES

KEY = b"driftline.key"
"""Metadata of a shard's schema: what the shard comes from."""


def embedding_type(dimension: int, dtype: str) -> pa.DataType:
    """The Arrow type of the `embedding` column.

    Raises:
        UsageError: The dimension is not positive, or the dtype not `float32` or `float16`.
    """
    if dimension < 1 or dtype not in DTYPES:
        raise UsageError(f"dimension {dimension}, dtype {dtype!r}: expected at least 1, and {' or '.join(DTYPES)}")
    item = pa.float32() if dtype == "float32" else pa.float16()
    # Not nullable: Parquet then keeps no levels for it, which reads 1.5 times as fast.
    return pa.list_(pa.field("element", item, nullable=False), dimension)


def vectors_of(column: pa.Array, dimension: int) -> npt.NDArray[Any]:
    """View a list column as a matrix, without a copy where Arrow allows.

    Args:
        column: A list or fixed-size list array of numbers, without nulls.
        dimension: Numbers in each list.

    Returns:
        Shape (rows, dimension), of the column's dtype; may be read-only.

    Raises:
        ValueError: A list is null, has a null in it, or another length.
    """
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        raise ValueError(f"holds {kind}, not lists of float32 or float16")
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size != dimension:
            raise ValueError(f"holds vectors of {kind.list_size} numbers, not {dimension}")
    elif len(column):
        lengths = np.diff(column.offsets.to_numpy())
        wrong = np.flatnonzero(lengths != dimension)
        if column.null_count == 0 and wrong.size:
            raise ValueError(f"row {wrong[0] + 1} is a vector of {lengths[wrong[0]]} numbers, not {dimension}")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ValueError("holds nulls where numbers are expected")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), dimension)


@contextmanager
def whole_parquet(uri: str, where: str) -> Generator[None]:
    """Turn what pyarrow says of a damaged file into one clear line.

    Raises:
        DataError: The body failed for the file's content.
        StorageError: As the body raised it: the file could not be read.
    """
    try:
        yield
    except StorageError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{uri}: is not a whole Parquet file ({where}: {' '.join(str(error).split())[:200]}); restore it or "
            "run the backfill again"
        ) from error
