"""What becomes of a bad text: one rule each, and every case is counted.

| a text that is | becomes | counted as |
|---|---|---|
| null | left out; its id is a tombstone | `null` |
| empty | left out | `empty` |
| only white space, as Unicode (and `str.isspace`) has it | left out | `whitespace` |
| with half a surrogate pair, or bytes that are no UTF-8 | kept, U+FFFD in their place | `surrogates` |
| with control characters (category Cc) other than tab, line feed and carriage return | kept as it is | `control` |
| long, 10 MB say | kept whole: the encoder cuts at its model's length, and counts it | |

Nothing else is changed: no text is stripped, lower-cased or normalised. Carried columns are mended as texts are, and
count as `surrogates` too. Ids are never mended: one that is null, blank, no Unicode or twice there is refused. Strict
reading refuses the first text of the first five rules, and so does a carried value that would be mended.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow ships no types)

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from driftline.components.errors import DataError
from driftline.components.storage.texts.rows import RowBatch, TextColumns
from driftline.components.unique_ids import UniqueIds

# RE2's, as Arrow runs it.
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"

_BLOCK_BYTES = 1 << 18

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TextCounts:
    """How many rows fell under which rule.

    Attributes:
        null: Rows left out, their text being null.
        empty: Rows left out, their text being empty.
        whitespace: Rows left out, their text being only white space.
        surrogates: Rows kept, with half surrogate pairs or bytes that are no UTF-8 replaced by U+FFFD.
        control: Rows kept as they are, their text holding control characters other than tab, line feed and carriage
            return.
        outside: Rows that the selection leaves out; the other rules do not look at them.
    """

    null: int = 0
    empty: int = 0
    whitespace: int = 0
    surrogates: int = 0
    control: int = 0
    outside: int = 0

    def __add__(self, other: TextCounts) -> TextCounts:
        return TextCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def check_ids(uri: str, columns: TextColumns, batch: RowBatch) -> None:
    """Check that every id of a batch is there, not blank, and Unicode.

    Raises:
        DataError: One is not; the first such row is named.
    """
    null, empty, space = _absent(batch.ids)
    mended = batch.mended.get(columns.id, np.zeros(len(batch.ids), bool))
    bad = null | empty | space | mended
    if not bad.any():
        return
    row = int(np.argmax(bad))
    state = "null" if null[row] else "empty" if empty[row] else "only white space" if space[row] else "not Unicode"
    remedy = "write it as UTF-8, without half surrogate pairs" if mended[row] else "remove the row, or give it an id"
    raise DataError(f"{uri}: column {columns.id!r}, row {batch.numbers[row] + 1}: the id is {state}; {remedy}")


def kept_rows(texts: pa.Array) -> Mask:
    """Say which texts are kept: not null, not empty, not only white space; shape (rows,)."""
    null, empty, space = _absent(texts)
    return ~(null | empty | space)


def null_rows(texts: pa.Array) -> Mask:
    """Say which texts are null; shape (rows,)."""
    return _mask(pc.is_null(texts))


def judge(uri: str, columns: TextColumns, batch: RowBatch, *, strict: bool) -> tuple[Mask, TextCounts]:
    """Apply the rules to the texts of a batch.

    Args:
        uri: The file, for messages.
        columns: The names of its columns, for messages.
        batch: Its rows, those outside of the selection already gone.
        strict: Whether to refuse the first text that falls under a rule.

    Returns:
        Which rows are kept, shape (rows,), and the counts of the batch, `outside` included.

    Raises:
        DataError: Strict, and a rule applies; the first such row is named.
    """
    null, empty, space = _absent(batch.texts)
    kept = ~(null | empty | space)
    control = _control_rows(batch.texts) & kept
    mended = np.zeros(len(kept), bool)
    for mask in batch.mended.values():
        mended |= mask
    mended &= kept
    if strict and not (kept & ~control & ~mended).all():
        _refuse(uri, columns, batch, {"null": null, "empty": empty, "only white space": space}, control, mended)
    sums = (int(mask.sum()) for mask in (null, empty, space, mended, control))
    return kept, TextCounts(*sums, outside=batch.count - len(batch.ids))


def _refuse(
    uri: str, columns: TextColumns, batch: RowBatch, absent: dict[str, Mask], control: Mask, mended: Mask
) -> None:
    bad = control | mended
    for mask in absent.values():
        bad = bad | mask
    row = int(np.argmax(bad))
    place = f"{uri}: column {columns.text!r}, row {batch.numbers[row] + 1}"
    for state, mask in absent.items():
        if mask[row]:
            raise DataError(
                f"{place}: the text is {state}; remove the row, give it a text, or do without strict reading"
            )
    for name, mask in batch.mended.items():
        if mask[row]:
            raise DataError(
                f"{uri}: column {name!r}, row {batch.numbers[row] + 1}: holds half a surrogate pair, or bytes that are "
                "not UTF-8; write it as UTF-8, or do without strict reading to have U+FFFD in their place"
            )
    raise DataError(
        f"{place}: the text holds control characters; remove them, or do without strict reading to keep them"
    )


def _control_rows(texts: pa.Array) -> Mask:
    """Say which texts hold control characters; the regular expression runs only where bytes hint at one."""
    begin, end = (texts.offset, texts.offset + len(texts)) if len(texts) else (0, 0)
    _, offsets, content = texts.buffers()
    if begin == end or content is None:
        return np.zeros(len(texts), bool)
    ends = np.frombuffer(offsets, np.int32)
    data = np.frombuffer(content, np.uint8)[ends[begin] : ends[end]]
    # By blocks that stay in the processor's cache: several times the speed of the expression.
    if any(_hints_at_control(data[place : place + _BLOCK_BYTES + 1]) for place in range(0, len(data), _BLOCK_BYTES)):
        return _mask(pc.match_substring_regex(texts, _CONTROL))
    return np.zeros(len(texts), bool)


def _hints_at_control(data: npt.NDArray[np.uint8]) -> bool:
    # U+0080 to U+009F are the byte C2 and one from 80 to 9F.
    if not ((data < 0x20) | (data == 0x7F) | (data == 0xC2)).any():
        return False
    ascii_control = (data < 0x20) & (data != 0x09) & (data != 0x0A) & (data != 0x0D) | (data == 0x7F)
    return bool(ascii_control.any() or ((data[:-1] == 0xC2) & (data[1:] < 0xA0)).any())


def _absent(values: pa.Array) -> tuple[Mask, Mask, Mask]:
    """Say which values are null, which are empty and which hold only white space."""
    return _mask(pc.is_null(values)), _mask(pc.equal(pc.binary_length(values), 0)), _mask(pc.utf8_is_space(values))


def _mask(values: pa.Array) -> Mask:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False)


def check_unique(ids: UniqueIds, read_again: Callable[[], Iterator[tuple[str, RowBatch]]]) -> None:
    """Refuse ids that are there twice.

    Args:
        ids: those of all rows, as they were read.
        read_again: Reads all rows once more, each batch with its file: called only where two hashes are equal.

    Raises:
        DataError: An id is there twice; both places are named.
    """

    def places() -> Iterator[tuple[list[str], list[tuple[str, int]]]]:
        for uri, batch in read_again():
            yield batch.ids.to_pylist(), [(uri, number + 1) for number in batch.numbers.tolist()]

    twice = ids.find_twice(places)
    if twice is not None:
        (first, first_row), (second, second_row) = twice.first, twice.second
        raise DataError(
            f"{second}: row {second_row}: id {_shown(twice.id)} is already that of row {first_row} of {first}; "
            "give each text its own id, or remove one of the two"
        )


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")
