"""Speed of the encoder beside sentence-transformers and onnxruntime: `make bench`.

Two corpora of real film reviews: as they are, and cut and joined to lengths spread evenly on a logarithmic scale. The
contenders encode the same texts in turn, round after round, each in a process of its own; the table shows medians and,
so that nothing is fast because it is wrong, how far each one's vectors are from those of sentence-transformers in
float32. On a machine with a GPU: float16, at several of sentence-transformers' batch sizes (`--texts 100000`).
Written to bench-results/encoder.json with a description of the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from driftline.pipelines.demo.data import fetch_model, fetch_texts

BENCH = Path(__file__).resolve().parent
PEERS_PYTHON = BENCH.parents[1] / ".venv-peers" / "bin" / "python"
TIMEOUT_S = 900.0
ST = "sentence-transformers"
OURS = "driftline"
FLOOR = "its matrix products alone"


@dataclass(frozen=True, slots=True)
class Contender:
    """Who encodes, by which module of peers/, where it lives, and how."""

    name: str
    module: str
    python: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promise:
    """A ratio of times that must hold on every corpus: at least ``least``."""

    text: str
    peers: tuple[str, ...]
    ours: str
    least: float


OURS_HALF = "driftline, bfloat16"
ONNX = ("onnxruntime, 512 tokens a batch", "onnxruntime, 2,048 tokens a batch")
OURS_FLOAT16 = "driftline, float16"
ST_HALF = tuple(f"sentence-transformers, float16, batches of {size}" for size in (32, 128, 512, 1024))
PROMISES = (
    Promise("sentence-transformers' time (its best batch size) over ours, float16", ST_HALF, OURS_FLOAT16, 2.0),
    Promise("sentence-transformers' time over ours, float32", (ST,), OURS, 1.3),
    Promise("sentence-transformers' time over ours in bfloat16", (ST,), OURS_HALF, 2.0),
    Promise("onnxruntime's time (the faster of two) over ours, float32", ONNX, OURS, 1.0),
)


def contenders(peers: Path) -> list[Contender]:
    """Return who is measured; onnxruntime lives in the peers' environment, and runs on CPUs here."""
    own = Path(sys.executable)
    if torch.cuda.is_available():
        half = ("--precision", "float16")
        sizes = [Contender(name, "encode_st.py", own, (*half, "--batch-size", name.split()[-1])) for name in ST_HALF]
        return [Contender(ST, "encode_st.py", own), *sizes, Contender(OURS_FLOAT16, "encode_ours.py", own, half)]
    single = [
        Contender(ST, "encode_st.py", own),
        Contender(ONNX[0], "encode_onnx.py", peers),
        Contender(ONNX[1], "encode_onnx.py", peers, ("--batch-tokens", "2048")),
        Contender(OURS, "encode_ours.py", own),
        Contender(FLOOR, "encode_floor.py", own),
    ]
    half = ("--precision", "bfloat16")
    if not has_bfloat16():
        return single
    autocast = Contender("sentence-transformers, bfloat16 autocast", "encode_st.py", own, half)
    return [*single, autocast, Contender(OURS_HALF, "encode_ours.py", own, half)]


def has_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16; without, it is emulated, many times slower."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return True
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def mixed_lengths(reviews: list[str], count: int, seed: int) -> list[str]:
    """Return texts of real words whose numbers of words are spread evenly on a logarithmic scale, from 3 to 300."""
    shuffled = random.Random(seed)
    words = " ".join(reviews).split()
    lengths = [round(3 * 100 ** shuffled.random()) for _ in range(count)]
    starts = [shuffled.randrange(len(words) - 300) for _ in range(count)]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def run_corpus(name: str, model: Path, texts: list[str], peers: Path, rounds: int) -> dict[str, Any]:
    """Measure every contender on one corpus and print its table."""
    outcome: dict[str, Any] = {"corpus": name, "texts": len(texts), "contenders": {}}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        workers: dict[str, tuple[harness.Worker, Path, list[harness.Figures]]] = {}
        why: dict[str, str] = {}
        for number, one in enumerate(contenders(peers)):
            saved = folder / f"{number}.npy"
            command = [one.python, BENCH / "peers" / one.module, "--model", model, "--texts", folder / "texts.json"]
            try:
                worker = stack.enter_context(harness.Worker([*command, "--save", saved, *one.options]))
                worker.measure(min(len(texts), 64), TIMEOUT_S)
                workers[one.name] = (worker, saved, [])
            except harness.WorkerError as error:
                why[one.name] = str(error)
        for _ in range(rounds):
            for worker, _, figures in workers.values():
                figures.append(worker.measure(len(texts), TIMEOUT_S))
        reference = np.load(workers[ST][1])
        base = harness.medians(workers[ST][2])["seconds"]
        lines: list[tuple[str, ...]] = []
        for contender, (_, saved, figures) in workers.items():
            median = harness.medians(figures)
            vectors = np.load(saved)
            furthest = float(np.abs(vectors - reference).max())
            cosine = float((vectors * reference).sum(axis=1).min())
            outcome["contenders"][contender] = {
                "rounds": figures, **median, "texts_per_second": len(texts) / median["seconds"],
                "largest_difference": furthest, "smallest_cosine": cosine,
            }  # fmt: skip
            lines.append(
                (
                    contender,
                    harness.three_digits(median["seconds"]),
                    harness.three_digits(median["cpu_seconds"]),
                    f"{len(texts) / median['seconds']:,.0f}",
                    harness.three_digits(base / median["seconds"]),
                    f"{median['growth_mb']:,.0f}",
                    "-" if contender == FLOOR else f"{furthest:.1e}",
                    "-" if contender == FLOOR else f"{cosine:.6f}",
                )
            )
        head = ("", "seconds", "CPU, s", "texts/s", "times as fast", "growth, MB", "difference", "cosine")
        print(f"\n{name}: {len(texts)} texts\n\n{harness.table(head, lines)}", flush=True)
        for contender, reason in why.items():
            print(f"  {contender}: {reason}")
        outcome["left_out"] = why
    return outcome


def ratios(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each promised ratio on each corpus; None where one of the two was not measured."""
    found: list[dict[str, Any]] = []
    for promise in PROMISES:
        for outcome in outcomes:
            if promise.ours not in outcome["contenders"]:  # of the other kind of device
                continue
            seconds = {name: figures["seconds"] for name, figures in outcome["contenders"].items()}
            peers = [seconds[peer] for peer in promise.peers if peer in seconds]
            ratio = min(peers) / seconds[promise.ours] if peers else None
            found.append({"promise": promise.text, "corpus": outcome["corpus"], "ratio": ratio, "least": promise.least})
    return found


def main() -> None:
    """Measure both corpora, print the tables and the promised ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, default=BENCH.parents[1] / ".demo", help="where model and texts are kept")
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON)
    parser.add_argument("--out", type=Path, default=Path("bench-results/encoder.json"))
    options = parser.parse_args()
    model = fetch_model(options.home)
    reviews = [row.text for row in fetch_texts(options.home)]
    random.Random(0).shuffle(reviews)
    if not (torch.cuda.is_available() or has_bfloat16()):
        print("this processor has no instructions for bfloat16: left out")
    packages = ("torch", "transformers", "sentence-transformers", "tokenizers")
    described = harness.machine(packages)
    corpora = {"film reviews": reviews[: options.texts], "mixed lengths": mixed_lengths(reviews, options.texts // 2, 0)}
    outcomes = [run_corpus(name, model, texts, options.peers, options.rounds) for name, texts in corpora.items()]
    found = ratios(outcomes)
    lines = [
        (
            f"{one['promise']}, {one['corpus']}",
            harness.three_digits(one["ratio"]),
            f"{one['least']}",
            "-" if one["ratio"] is None else "holds" if one["ratio"] >= one["least"] else "MISSED",
        )
        for one in found
    ]
    print(f"\n{harness.table(('', 'ratio', 'at least', ''), lines)}")
    harness.write_json(options.out, {"machine": described, "outcomes": outcomes, "promises": found})


if __name__ == "__main__":
    main()
