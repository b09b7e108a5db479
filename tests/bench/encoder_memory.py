"""Whether the encoder holds its speed and its memory over a long run: `python tests/bench/encoder_memory.py`.

Encodes film reviews chunk after chunk, as a backfill does, and notes the process's memory and the rate by tenths of the
run. Written to bench-results/encoder_memory.json with a description of the machine.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import harness
from peers.worker import memory_mb

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.pipelines.demo.data import fetch_model, fetch_texts

BENCH = Path(__file__).resolve().parent
CHUNK = 4096


def main() -> None:
    """Encode as many texts as asked for and print a line for each tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--home", type=Path, default=BENCH.parents[1] / ".demo", help="where model and texts are kept")
    parser.add_argument("--out", type=Path, default=Path("bench-results/encoder_memory.json"))
    options = parser.parse_args()
    model = fetch_model(options.home)
    reviews = [row.text for row in fetch_texts(options.home)]
    shuffled = random.Random(0)

    def chunks() -> Iterator[list[str]]:
        left = options.texts
        while left > 0:
            chosen = shuffled.choices(reviews, k=min(CHUNK, left))
            left -= len(chosen)
            yield [f"{number} {text}" for number, text in zip(itertools.count(left), chosen, strict=False)]

    encoder = Encoder.load(model, "model", EncoderSettings(precision=cast(Any, options.precision)))
    described = harness.machine(("torch", "transformers", "sentence-transformers"))
    rows: list[dict[str, float]] = []
    done = last = tokens = 0
    began = time.perf_counter()
    for encoding in encoder.encode_chunks(chunks()):
        done += len(encoding.vectors)
        tokens += encoding.tokens
        if done - last >= options.texts // 10 or done == options.texts:
            seconds = time.perf_counter() - began
            rows.append(
                {
                    "texts": done,
                    "texts_per_second": (done - last) / seconds,
                    "tokens_per_second": tokens / seconds,
                    "resident_mb": memory_mb("VmRSS"),
                    "peak_mb": memory_mb("VmHWM"),
                }
            )
            last, tokens, began = done, 0, time.perf_counter()
    names = ("texts", "texts/s", "tokens/s", "resident, MB", "peak, MB")
    print(harness.table(names, [[f"{value:,.0f}" for value in row.values()] for row in rows]))
    harness.write_json(options.out, {"machine": described, "precision": encoder.precision, "tenths": rows})


if __name__ == "__main__":
    main()
