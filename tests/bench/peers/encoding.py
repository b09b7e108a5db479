"""What every contender of the encoder's benchmark runs in: a process of its own, which encodes when it is asked to.

A contender is a module that defines ``load(options) -> encode`` and calls :func:`serve`. The benchmark starts it with a
model's folder and a file of texts, and asks for one measurement by writing a number of texts on a line to its standard
input; the answer is one line of JSON. By hand::

    echo 500 | python tests/bench/peers/encode_st.py --model .demo/all-MiniLM-L6-v2 --texts texts.json --save v.npy

Only the standard library and NumPy: some contenders live in an environment without Driftline.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from worker import memory_mb

Vectors = NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]


def serve(load: Callable[[argparse.Namespace], Encode]) -> None:
    """Answer each number of texts on standard input with a line of JSON about encoding them.

    The line holds ``seconds``, by the clock; ``cpu_seconds``, of all threads; ``memory_mb``, the peak so far of the
    whole process; ``growth_mb``, how far that is above what it held with its model loaded. The vectors of the last
    measurement are saved where ``--save`` says.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="JSON: a list of texts")
    parser.add_argument("--save", type=Path, required=True, help="the vectors, a .npy file")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--batch-tokens", type=int, default=0, help="of those who bound batches so; 0: their default")
    parser.add_argument("--batch-size", type=int, default=32, help="of those who bound batches by texts")
    parser.add_argument("--together", type=int, default=0, help="texts given to the encoder at a time; 0: all")
    options = parser.parse_args()
    texts: list[str] = json.loads(options.texts.read_text(encoding="utf-8"))
    encode = load(options)
    encode(texts[:64])  # threads start, memory is laid out
    loaded = memory_mb("VmRSS")
    for line in sys.stdin:
        chosen = texts[: int(line)]
        began, began_cpu = time.perf_counter(), time.process_time()
        at_a_time = options.together or len(chosen)
        parts = [encode(chosen[first : first + at_a_time]) for first in range(0, len(chosen), at_a_time)]
        vectors = np.concatenate(parts) if len(parts) > 1 else parts[0]
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        np.save(options.save, vectors)
        peak = memory_mb("VmHWM")
        answer = {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": peak, "growth_mb": peak - loaded}
        print(json.dumps(answer), flush=True)
