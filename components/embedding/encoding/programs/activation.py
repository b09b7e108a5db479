"""GELU as vector code."""

from __future__ import annotations

from typing import Final

from driftline.components.vector_code import Value, VectorCode


def gelu(code: VectorCode, x: Value) -> Value:
    """Return x·Φ(x), Φ the normal distribution function: GELU by the error function (Hendrycks and Gimpel, 2016).

    As max(x, 0) - |x|·Φ(-|x|), with Φ(-s) = p(s)⁻⁸ after the form of Abramowitz and Stegun, 7.1.28: in float32 within
    2e-7 and a rounding of x. A root of the tail is so smooth that a polynomial of few terms follows it.
    """
    build = code.build
    size = code.magnitude(x)
    highest, *rest = reversed(_TAIL)
    power = code.constant(highest)
    for coefficient in rest:
        power = code.fused(power, size, code.constant(coefficient))
    for _ in range(3):
        power = build.fmul(power, power)
    return build.fsub(code.largest(x, code.constant(0.0)), build.fdiv(size, power))


_TAIL: Final = (
    1.090508222579956,
    0.1087539941072464,
    0.04886253923177719,
    0.009330888278782368,
    0.001109741861000657,
    9.708882862469181e-05,
    0.00011478522355901077,
    -1.978081309061963e-05,
    3.3100420750997728e-06,
)
"""Coefficients of p, lowest first: least squares of Φ(-s)^(-1/8), 0 ≤ s ≤ 6, weighted until s·Φ(-s) errs evenly."""
