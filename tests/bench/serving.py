"""The server's throughput beside the encoder alone, its waits at half load, and a plain KServe model: `make bench`.

`driftline serve` and sentence-transformers behind a plain `kserve.Model`, each a process of its own, are asked for
the same real film reviews over HTTP with 32 connections, in turn with Driftline's encoder alone, round after round:
given all texts at once, or, what requests of one text are compared with, 32 at a time, as many as are ever there
together. Then Driftline's server gets half of its own throughput at random moments, and the waits are set against the
time of one full batch. Server and load share the machine's cores, and the encoder alone has them all. The answers are
compared with the encoder's vectors. Written to bench-results/serving.json with a description of the machine.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import http_load
import numpy as np

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.pipelines.demo.data import fetch_model, fetch_texts

BENCH = Path(__file__).resolve().parent
CONNECTIONS = 32
START_S = TIMEOUT_S = 600.0  # for machines that others use too
OURS, PLAIN, ALONE = "driftline", "plain kserve.Model", "encoder alone"
TOGETHER = f"encoder alone, {CONNECTIONS} texts at a time"
MODEL = "m"


@dataclass(frozen=True, slots=True)
class Shape:
    """How texts are asked for.

    Attributes:
        name: in the table.
        server: whom.
        texts: in a request.
        openai: through OpenAI's route with base64, instead of V1 with numbers.
    """

    name: str
    server: str
    texts: int
    openai: bool = False

    def requests(self, texts: Sequence[str]) -> list[bytes]:
        """Return the requests for some texts, whole."""
        groups = [texts[start : start + self.texts] for start in range(0, len(texts), self.texts)]
        if self.openai:
            fields = {"model": MODEL, "encoding_format": "base64"}
            return [
                http_load.rendered("/openai/v1/embeddings", json.dumps({**fields, "input": group}).encode())
                for group in groups
            ]
        path = f"/v1/models/{MODEL}:predict"
        return [http_load.rendered(path, json.dumps({"instances": group}).encode()) for group in groups]

    def vectors(self, bodies: Sequence[bytes]) -> np.ndarray:
        """Return the vectors that answers hold, (texts, dimension) float32."""
        answers = [json.loads(body) for body in bodies]
        if self.openai:
            numbers = [base64.b64decode(entry["embedding"]) for answer in answers for entry in answer["data"]]
            return np.stack([np.frombuffer(one, "<f4") for one in numbers])
        return np.concatenate([np.asarray(answer["predictions"], np.float32) for answer in answers])


ONE, SIXTEEN = Shape("V1, 1 text a request", OURS, 1), Shape("V1, 16 texts a request", OURS, 16)
SHAPES = (
    SIXTEEN,
    ONE,
    Shape("OpenAI base64, 1 text a request", OURS, 1, openai=True),
    Shape("sentence-transformers in a plain kserve.Model", PLAIN, 1),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server's process."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor's seconds of all of its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ours(model: Path, port: int) -> list[str | Path]:
    """Return the command of Driftline's server."""
    options = ("--model", f"{MODEL}={model}", "--http-port", str(port), "--grpc-port", "-1", "--host", http_load.HOST)
    return [sys.executable, "-m", "driftline.serving", "serve", *options]


def plain(model: Path, port: int) -> list[str | Path]:
    """Return the command of the plain KServe server."""
    return [sys.executable, BENCH / "peers" / "serve_kserve.py", "--model", model, "--port", str(port)]


COMMANDS: dict[str, Callable[[Path, int], list[str | Path]]] = {OURS: ours, PLAIN: plain}


@contextmanager
def running(name: str, model: Path) -> Generator[Server]:
    """Run a server until the block ends; it is ready when the block begins."""
    with socket.create_server((http_load.HOST, 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(part) for part in COMMANDS[name](model, port)], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            began = time.monotonic()
            while not is_ready(port):
                if process.poll() is not None or time.monotonic() - began > START_S:
                    output.seek(0)
                    raise harness.WorkerError(f"{name} did not start: {output.read()[-1000:].decode(errors='replace')}")
                time.sleep(0.1)
            yield Server(port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def is_ready(port: int) -> bool:
    """Say whether the model takes requests."""
    try:
        with urllib.request.urlopen(f"http://{http_load.HOST}:{port}/v2/models/{MODEL}/ready", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Measure, print the tables and the promised ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="leave the plain kserve.Model out")
    parser.add_argument("--home", type=Path, default=BENCH.parents[1] / ".demo", help="where model and texts are kept")
    parser.add_argument("--out", type=Path, default=Path("bench-results/serving.json"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # so that the servers end as well
    model = fetch_model(options.home)
    reviews = [row.text for row in fetch_texts(options.home)]
    random.Random(0).shuffle(reviews)
    texts = reviews[: options.texts]
    described = harness.machine(("torch", "sentence-transformers", "kserve", "uvicorn", "uvloop"))
    encoder = Encoder.load(model, MODEL)
    reference, lengths = encoder.encode(texts).vectors, encoder.prepare(texts).text_lengths()
    batch = max(1, int(np.searchsorted(np.cumsum(lengths), encoder.batch_tokens)))
    del encoder
    shapes = [shape for shape in SHAPES if shape.server == OURS or not options.no_peer]
    figures: dict[str, list[dict[str, float]]] = {
        name: [] for name in (ALONE, TOGETHER, *(shape.name for shape in shapes))
    }
    half: list[dict[str, float]] = []
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        (Path(scratch) / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        command = [sys.executable, BENCH / "peers" / "encode_ours.py", "--model", model]
        command += ["--texts", Path(scratch) / "texts.json", "--save", Path(scratch) / "vectors.npy"]
        wanted = dict.fromkeys(shape.server for shape in shapes)
        servers = {name: stack.enter_context(running(name, model)) for name in wanted}
        with harness.Worker(command) as alone, harness.Worker([*command, "--together", str(CONNECTIONS)]) as together:
            for shape in shapes:  # once unmeasured, and the answers looked at
                some = texts[:200]
                load = http_load.closed(
                    servers[shape.server].port, shape.requests(some), CONNECTIONS, TIMEOUT_S, keep=True
                )
                differences[shape.name] = float(np.abs(shape.vectors(load.bodies) - reference[: len(some)]).max())
            alone.measure(len(texts), TIMEOUT_S)
            together.measure(len(texts), TIMEOUT_S)
            for turn in range(options.rounds):
                found = alone.measure(len(texts), TIMEOUT_S)
                batch_ms = 1000 * alone.measure(batch, TIMEOUT_S)["seconds"]
                figures[ALONE].append({"texts_per_second": len(texts) / found["seconds"], **found})
                found = together.measure(len(texts), TIMEOUT_S)
                figures[TOGETHER].append({"texts_per_second": len(texts) / found["seconds"], **found})
                for shape in shapes:
                    figures[shape.name].append(throughput(servers[shape.server], shape, texts))
                rate = figures[ONE.name][-1]["texts_per_second"] / 2
                load = http_load.opened(servers[OURS].port, ONE.requests(texts), rate, TIMEOUT_S, seed=turn)
                half.append({"per_second": rate, "batch_ms": batch_ms, **waits(load)})
    report(options.out, described, figures, half, differences)


def throughput(server: Server, shape: Shape, texts: Sequence[str]) -> dict[str, float]:
    """Return what one closed load shows."""
    before = server.cpu_seconds()
    load = http_load.closed(server.port, shape.requests(texts), CONNECTIONS, TIMEOUT_S)
    return {
        "texts_per_second": len(texts) / load.seconds,
        "seconds": load.seconds,
        "cpu_seconds": server.cpu_seconds() - before,
        **waits(load),
    }


def waits(load: http_load.Load) -> dict[str, float]:
    """Return a load's percentiles."""
    return {"p50_ms": load.percentile_ms(50), "p99_ms": load.percentile_ms(99)}


def report(
    out: Path,
    described: dict[str, Any],
    figures: dict[str, list[dict[str, float]]],
    half: list[dict[str, float]],
    differences: dict[str, float],
) -> None:
    """Print the tables and the promises, and write them."""
    medians = {name: harness.medians(rounds) for name, rounds in figures.items()}
    bases = {ALONE: ALONE, TOGETHER: TOGETHER, **{shape.name: base_of(shape) for shape in SHAPES}}
    lines = [
        (
            name,
            f"{one['texts_per_second']:,.0f}",
            f"{one['texts_per_second'] / medians[bases[name]]['texts_per_second']:.2f}",
            harness.three_digits(one["cpu_seconds"]),
            harness.three_digits(one.get("p50_ms")),
            harness.three_digits(one.get("p99_ms")),
            f"{differences[name]:.1e}" if name in differences else "-",
        )
        for name, one in medians.items()
    ]
    head = ("", "texts/s", "of the encoder", "CPU, s", "p50, ms", "p99, ms", "difference")
    print(f"\n{CONNECTIONS} connections\n\n{harness.table(head, lines)}")
    quiet = harness.medians(half)
    share = quiet["p99_ms"] / quiet["batch_ms"]
    cells = [harness.three_digits(quiet[key]) for key in ("per_second", "p50_ms", "p99_ms", "batch_ms")]
    head = ("at half of its throughput", "requests/s", "p50, ms", "p99, ms", "a full batch, ms", "p99 over it")
    print(f"\n{harness.table(head, [(ONE.name, *cells, harness.three_digits(share))])}")
    promises = [
        ("texts/s of the encoder alone over the server's, 16 texts a request", ratio(medians, SIXTEEN), 1 / 0.85),
        ("texts/s of the encoder alone over the server's, 1 text a request", ratio(medians, ONE), 1 / 0.85),
        ("p99 at half load over a full batch's time", share, 3.0),
    ]
    peer = medians.get(SHAPES[-1].name)
    if peer is not None:
        share_of_ours = peer["texts_per_second"] / medians[ONE.name]["texts_per_second"]
        promises.append(("a plain kserve.Model's texts/s over ours, 1 text a request", share_of_ours, 0.5))
    rows = [(text, f"{got:.2f}", f"{most:.2f}", "holds" if got <= most else "MISSED") for text, got, most in promises]
    print(f"\n{harness.table(('', 'ratio', 'at most', ''), rows)}")
    content = {
        "machine": described,
        "throughput": {name: {**medians[name], "rounds": rounds} for name, rounds in figures.items()},
        "half_load": {**quiet, "rounds": half},
        "largest_differences": differences,
        "promises": [{"promise": text, "ratio": got, "at_most": most} for text, got, most in promises],
    }
    harness.write_json(out, content)


def base_of(shape: Shape) -> str:
    """Return which measurement of the encoder alone a way to ask is compared with."""
    return TOGETHER if shape.texts == 1 else ALONE


def ratio(medians: dict[str, dict[str, float]], shape: Shape) -> float:
    """Return the encoder's texts a second over those of a way to ask the server."""
    return medians[base_of(shape)]["texts_per_second"] / medians[shape.name]["texts_per_second"]


if __name__ == "__main__":
    main()
