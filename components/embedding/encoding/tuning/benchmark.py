"""The measurement of a model on this machine, and its fastest tuning remembered: `driftline bench encode`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from driftline.components.embedding.encoding.model import check_prompt
from driftline.components.embedding.encoding.opening import open_model
from driftline.components.embedding.encoding.settings import EncoderSettings, Precision
from driftline.components.embedding.encoding.tuning.measure import Measurement, drawn_texts, measure
from driftline.components.embedding.encoding.tuning.tunings import (
    MeasuredTuning,
    best_device,
    device_name,
    read_tunings,
    write_tunings,
)
from driftline.components.storage.texts.reading import read_texts, scan_texts
from driftline.components.storage.texts.rows import TextColumns


def bench_encoder(
    *,
    model: str,
    inputs: Sequence[str],
    columns: TextColumns,
    texts: int,
    encoder: EncoderSettings,
    torch_compile: bool,
    tunings: str,
    model_cache: str,
    on_progress: Callable[[int, int], None],
) -> list[Measurement]:
    """Measure a model, write its fastest tunings into a file, and return the measurements, the fastest first.

    The file holds one tuning for each precision; which precision to use remains the user's choice.

    Args:
        model: folder, gs:// prefix or name of the model.
        inputs: files, folders or patterns of texts like those to come; none for random words.
        columns: the texts' columns.
        texts: texts in one measurement; of fewer inputs, all.
        encoder: what decides the vectors; precision auto for all those of the device.
        torch_compile: whether to measure the model translated by `torch.compile` as well.
        tunings: file to remember the fastest in, beside what it holds of other machines, models and precisions.
        model_cache: local folder in which models from gs:// are kept; empty for none.
        on_progress: called with how many measurements are done, and of how many.

    Raises:
        DataError: the model, the texts or the tunings are not as expected.
        UsageError: a setting is out of range, or not this model's.
        StorageError: something cannot be read or written.
    """
    before = read_tunings(tunings)  # what cannot be read is found before minutes of measuring
    with open_model(model, Path(model_cache) if model_cache else None) as folder:
        check_prompt(folder.path, model, encoder.prompt)
        sample = _texts(inputs, columns, texts) if inputs else drawn_texts(folder.path, texts)
        kinds = [
            (dataclasses.replace(encoder, precision=precision), kind)
            for precision in _precisions(encoder.precision)
            for kind in ((False, True) if torch_compile else (False,))
        ]
        found: list[Measurement] = []
        for number, (settings, kind) in enumerate(kinds):

            def progressed(done: int, of: int, number: int = number) -> None:
                on_progress(number * of + done, len(kinds) * of)

            found += measure(folder.path, model, settings, sample, torch_compile=kind, on_progress=progressed)
        found.sort(key=lambda one: -one.tokens_per_second)
        after = before
        for fastest in {one.precision: one for one in reversed(found)}.values():
            entry = MeasuredTuning(
                device=device_name(best_device()),
                revision=folder.revision,
                precision=fastest.precision,
                tuning=fastest.tuning,
                texts_per_second=fastest.texts_per_second,
                tokens_per_second=fastest.tokens_per_second,
            )
            after = after.with_entry(entry)
        write_tunings(tunings, after)
    return found


def _precisions(asked: Precision) -> tuple[Precision, ...]:
    """Return what to measure: what was asked for, or all that a device is used with."""
    if asked != "auto":
        return (asked,)
    return ("float32", "bfloat16") if best_device().type == "cpu" else ("float16", "bfloat16", "float32")


def _texts(inputs: Sequence[str], columns: TextColumns, count: int) -> list[str]:
    sources = scan_texts(inputs, columns)
    batches = (batch for source in sources for batch in read_texts(source, columns))
    return list(islice((text for batch in batches for text in batch.column("text").to_pylist()), count))
