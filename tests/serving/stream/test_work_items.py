from __future__ import annotations

from driftline.serving.errors import PoisonError
from driftline.serving.records.record import Coordinates, Record
from driftline.serving.stream.work_items import ResultWriter


def test_a_record_with_neither_key_nor_value_has_a_dead_letter_that_can_be_sent() -> None:
    record = Record(None, None, (), Coordinates("texts", 0, 1, 0))
    writer = ResultWriter("out", "dead", "m", "r", "numbers", with_text=True)
    letter = writer.dead_letter(record, PoisonError("tombstone-without-key", "it is nothing"))
    assert (letter.key, letter.value) == (None, b"")
