"""Random features from their phases, as a program made by LLVM: cosine and sine at once, each number read once."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

from driftline.components.kernel.llvm_codegen import Compiled, VectorCode, host_registers

POINTERS: Final = ("phases", "features")
INTEGERS: Final = ("rows",)


def least_count() -> int:
    """Return the fewest frequencies that the program takes."""
    return host_registers().bytes // 4


@cache
def feature_program(count: int) -> Compiled:
    """Return the program of [cos p, sin p]/√count, for float32.

    It takes the addresses POINTERS and the INTEGERS:

    ========  ==================================================================================
    phases    (rows, count)
    features  (rows, 2·count), cosines and then sines
    ========  ==================================================================================

    Args:
        count: frequencies, no fewer than :func:`least_count`.
    """
    code = VectorCode("features", POINTERS, INTEGERS, single=True, lanes=least_count())
    given, build = code.arguments, code.build
    scale = code.constant(1 / math.sqrt(count))
    last = code.index(count - code.lanes)
    with code.loop(code.index(0), given["rows"], 1) as row:
        phases = code.at(given["phases"], code.times(row, count))
        cosines = code.at(given["features"], code.times(row, 2 * count))
        sines = code.at(cosines, code.index(count))
        with code.loop(code.index(0), code.index(count), code.lanes) as k:
            place = code.least(k, last)  # where the row ends within a vector, some are computed twice
            for values, target in zip(
                code.cosine_and_sine(code.load(code.at(phases, place))), (cosines, sines), strict=True
            ):
                code.store(build.fmul(values, scale), code.at(target, place))
    return code.compiled()
