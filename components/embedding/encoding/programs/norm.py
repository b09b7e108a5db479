"""A layer's norm as vector code."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from driftline.components.embedding.encoding.programs.cells import VECTORS
from driftline.components.vector_code import Value, VectorCode


class Norm(NamedTuple):
    """Pointers to what a norm takes: what it multiplies by, adds, and adds to the variance."""

    scale: Value
    shift: Value
    epsilon: Value


class Normaliser:
    """Writes norms.

    Args:
        code: what is written to, before any loop.
    """

    def __init__(self, code: VectorCode) -> None:
        self._code = code
        self._moments = code.variables(VECTORS)

    def normalise(self, row: Value, width: int, norm: Norm) -> None:
        """Bring a row to mean 0 and variance 1, then scale and shift it; the variance from deviations.

        Args:
            row: its first number.
            width: its numbers, a multiple of two vectors.
            norm: scale, shift and epsilon.
        """
        code, build = self._code, self._code.build
        count = code.constant(float(width))

        def values(start: Value) -> list[Value]:
            return [code.load(code.at(row, code.plus(start, v * code.lanes))) for v in range(VECTORS)]

        def add(k: Value, sums: list[Value]) -> list[Value]:
            return [build.fadd(value, total) for value, total in zip(values(k), sums, strict=True)]

        mean = build.fdiv(self._total(width, add), count)

        def add_squares(k: Value, sums: list[Value]) -> list[Value]:
            deviations = [build.fsub(value, mean) for value in values(k)]
            return [code.fused(each, each, total) for each, total in zip(deviations, sums, strict=True)]

        variance = build.fdiv(self._total(width, add_squares), count)
        spread = code.root(build.fadd(variance, code.spread(code.load_one(norm.epsilon))))
        factor = build.fdiv(code.constant(1.0), spread)
        with code.loop(code.index(0), code.index(width), code.lanes) as k:
            scaled = build.fmul(build.fsub(code.load(code.at(row, k)), mean), factor)
            result = code.fused(scaled, code.load(code.at(norm.scale, k)), code.load(code.at(norm.shift, k)))
            code.store(result, code.at(row, k))

    def _total(self, width: int, add: Callable[[Value, list[Value]], list[Value]]) -> Value:
        """Return the sum over a row of what ``add`` adds to sums at each two vectors, spread."""
        code = self._code
        places = [code.vector_at(self._moments, v) for v in range(VECTORS)]
        for place in places:
            code.store(code.constant(0.0), place)
        with code.loop(code.index(0), code.index(width), VECTORS * code.lanes) as k:
            for place, value in zip(places, add(k, [code.load(place) for place in places]), strict=True):
                code.store(value, place)
        return code.spread(code.total(code.sum([code.load(place) for place in places])))
