"""Families' scalar functions as vector code: their JAX definitions, translated operation by operation.

A family is defined once, as a JAX function (:mod:`driftline.components.kernel.theory.families`); JAX traces it to a
list of elementwise operations, and each of these is a few instructions here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jax
import jax.numpy as jnp

from driftline.components.kernel.llvm_codegen import Value, VectorCode
from driftline.components.kernel.theory.families import Family

_LOG2_E: Final = 1 / math.log(2)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A vector times a factor that is not multiplied yet: γ or √γ, a sign and log₂e go into one multiplication.

    ``at_most_zero``: none of the products is above 0.
    """

    factor: Value
    vector: Value
    at_most_zero: bool = False


def _integer_power(code: VectorCode, base: Value, exponent: int) -> Value:
    if exponent < 0:
        return code.build.fdiv(code.constant(1.0), _integer_power(code, base, -exponent))
    if exponent == 0:
        return code.constant(1.0)
    half = _integer_power(code, base, exponent // 2)
    square = half if exponent == 1 else code.build.fmul(half, half)
    return code.build.fmul(square, base) if exponent % 2 else square


_OPERATIONS: Final[dict[str, Callable[..., Value]]] = {
    "add": lambda code, a, b: code.build.fadd(a, b),
    "sub": lambda code, a, b: code.build.fsub(a, b),
    "mul": lambda code, a, b: code.build.fmul(a, b),
    "div": lambda code, a, b: code.build.fdiv(a, b),
    "max": lambda code, a, b: code.largest(a, b),
    "min": lambda code, a, b: code.smallest(a, b),
    "neg": lambda code, a: code.build.fneg(a),
    "sqrt": lambda code, a: code.root(a),
    "rsqrt": lambda code, a: code.build.fdiv(code.constant(1.0), code.root(a)),
    "square": lambda code, a: code.build.fmul(a, a),
    "integer_pow": lambda code, a, y: _integer_power(code, a, y),
    "exp2": lambda code, a: code.power_of_two(a),
    "exp": lambda code, a: code.power_of_two(code.build.fmul(a, code.constant(_LOG2_E))),
}
_CALLS: Final = ("jit", "pjit", "closed_call")


@cache
def _traced(family: Family) -> Any:
    return jax.make_jaxpr(family.function)(jnp.zeros((), jnp.float32)).jaxpr


@cache
def is_known(family: Family) -> bool:
    """Return whether vector code can be made of a family's function."""

    def known(jaxpr: Any) -> bool:
        return not jaxpr.constvars and all(
            known(equation.params["jaxpr"].jaxpr) if equation.primitive.name in _CALLS
            else equation.primitive.name in _OPERATIONS
            for equation in jaxpr.eqns
        )  # fmt: skip

    return known(_traced(family))


def kernel_values(code: VectorCode, family: Family, factor: Value, argument: Value) -> Value:
    """Return f(factor·argument), a vector, for a family of which :func:`is_known` is true."""
    is_distance = family.argument != "product"
    return _multiplied(code, _run(code, _traced(family), [_Scaled(factor, argument)], is_distance)[0])


def _multiplied(code: VectorCode, value: Any) -> Value:
    return code.build.fmul(value.factor, value.vector) if isinstance(value, _Scaled) else value


def _run(code: VectorCode, jaxpr: Any, arguments: list[Any], is_distance: bool) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return code.constant(float(atom.val)) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [read(atom) for atom in equation.invars]
        first = inputs[0]
        if name in _CALLS:
            results = _run(code, equation.params["jaxpr"].jaxpr, inputs, is_distance)
        elif isinstance(first, _Scaled) and name == "neg":
            results = [
                _Scaled(
                    code.build.fneg(first.factor), first.vector, at_most_zero=is_distance and not first.at_most_zero
                )
            ]
        elif isinstance(first, _Scaled) and name == "exp":
            factor = code.build.fmul(first.factor, code.constant(_LOG2_E))
            exponent = code.build.fmul(factor, first.vector)
            results = [code.power_of_two(exponent, at_most_one=first.at_most_zero)]
        else:
            settings = {"y": equation.params["y"]} if name == "integer_pow" else {}
            results = [_OPERATIONS[name](code, *(_multiplied(code, value) for value in inputs), **settings)]
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
