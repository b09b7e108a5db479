"""Machine code for loops over vectors of floats, made through LLVM: no more than the kernel engine needs.

A :class:`VectorCode` writes one function. Its values are of three kinds: vectors of as many floats as fit a register of
this processor, single floats, and 64-bit integers, which count and index. Floats are float32 or float64 throughout.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.polynomial import Polynomial
from numpy.polynomial.chebyshev import cheb2poly, poly2cheb

Value: TypeAlias = Any  # an ir.Value: llvmlite has no types

_POINTER: Final = ir.PointerType()
_INDEX: Final = ir.IntType(64)
_DOUBLE: Final = ir.DoubleType()


@dataclass(frozen=True, slots=True)
class Registers:
    """The vector registers of a processor.

    Attributes:
        bytes: size of one.
        many: whether there are 32 of them, not 16.
    """

    bytes: int
    many: bool


@cache
def host_registers() -> Registers:
    """Return the vector registers of this processor."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Registers(64, True)
    if features.get("avx2"):
        return Registers(32, False)
    return Registers(16, bool(features.get("neon")))


class VectorCode:
    """One function that returns nothing.

    Args:
        name: its name.
        pointers: names of its arguments that point to arrays, none of which overlaps one that is written to.
        integers: names of its integer arguments, which come after them.
        single: whether floats are float32, else float64.
        lanes: floats of a vector.
    """

    def __init__(
        self, name: str, pointers: Sequence[str], integers: Sequence[str], *, single: bool, lanes: int
    ) -> None:
        self.lanes = lanes
        self.single = single
        self._number = ir.FloatType() if single else _DOUBLE
        self._vector = ir.VectorType(self._number, lanes)
        self._wide = ir.VectorType(_DOUBLE, lanes)
        self._whole = ir.IntType(32 if single else 64)  # as wide as a float
        self._whole_vector = ir.VectorType(self._whole, lanes)
        self._module = ir.Module(name)
        kind = ir.FunctionType(ir.VoidType(), [_POINTER] * len(pointers) + [_INDEX] * len(integers))
        function = ir.Function(self._module, kind, name)
        for argument in function.args[: len(pointers)]:
            argument.add_attribute("noalias")
        self.arguments: dict[str, Value] = dict(zip((*pointers, *integers), function.args, strict=True))
        self._pointers, self._integers = len(pointers), len(integers)
        self.build = ir.IRBuilder(function.append_basic_block())

    # Integers

    def index(self, value: int) -> Value:
        """Return an integer constant."""
        return ir.Constant(_INDEX, value)

    def plus(self, *terms: Value | int) -> Value:
        """Return the sum of integers."""
        values = [self.index(term) if isinstance(term, int) else term for term in terms]
        total = values[0]
        for value in values[1:]:
            total = self.build.add(total, value)
        return total

    def times(self, a: Value, b: Value | int) -> Value:
        """Return the product of two integers."""
        return self.build.mul(a, self.index(b) if isinstance(b, int) else b)

    def divided(self, a: Value, b: int) -> Value:
        """Return ⌊a / b⌋ of an integer a ≥ 0."""
        return self.build.udiv(a, self.index(b))

    def less(self, a: Value, b: Value) -> Value:
        """Return whether a < b, as signed integers."""
        return self.build.icmp_signed("<", a, b)

    def least(self, a: Value, b: Value) -> Value:
        """Return the lesser of two integers."""
        return self.build.select(self.less(a, b), a, b)

    @contextmanager
    def loop(self, start: Value, stop: Value, step: Value | int) -> Generator[Value]:
        """Run the block's code for start, start + step … below stop."""
        build = self.build
        before = build.block
        head, body, end = (build.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        count = build.phi(_INDEX)
        count.add_incoming(start, before)
        build.cbranch(self.less(count, stop), body, end)
        build.position_at_end(body)
        yield count
        following = self.plus(count, step)
        count.add_incoming(following, build.block)
        build.branch(head)
        build.position_at_end(end)

    # Memory

    def at(self, pointer: Value, place: Value, *, double: bool = False) -> Value:
        """Return a pointer to element ``place`` of an array of the code's floats, or of float64."""
        return self.build.gep(pointer, [place], source_etype=_DOUBLE if double else self._number)

    def load(self, pointer: Value) -> Value:
        """Load a vector."""
        return self.build.load(pointer, align=self._whole.width // 8, typ=self._vector)

    def store(self, vector: Value, pointer: Value) -> None:
        """Store a vector."""
        self.build.store(vector, pointer, align=self._whole.width // 8)

    def load_wide(self, pointer: Value) -> Value:
        """Load a vector of float64."""
        return self.build.load(pointer, align=8, typ=self._wide)

    def store_wide(self, vector: Value, pointer: Value) -> None:
        """Store a vector of float64."""
        self.build.store(vector, pointer, align=8)

    def load_one(self, pointer: Value, *, double: bool = False) -> Value:
        """Load a single float."""
        return self.build.load(pointer, typ=_DOUBLE if double else self._number)

    def variables(self, count: int) -> Value:
        """Return a pointer to a new local array of ``count`` vectors; to be called before any loop."""
        return self.build.alloca(self._vector, count)

    def vector_at(self, variables: Value, place: Value) -> Value:
        """Return a pointer to one of a local array's vectors."""
        return self.build.gep(variables, [place], source_etype=self._vector)

    # Floats

    def constant(self, value: float) -> Value:
        """Return a vector of equal floats."""
        return ir.Constant(self._vector, [value] * self.lanes)

    def one(self, value: float) -> Value:
        """Return a single float."""
        return ir.Constant(self._number, value)

    def spread(self, value: Value) -> Value:
        """Return a vector of a single float, or of an integer that fits one."""
        kind, build = self._vector, self.build
        if value.type == _INDEX:
            kind = self._whole_vector
            value = build.trunc(value, self._whole) if self.single else value
        undefined, first = ir.Constant(kind, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        places = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return build.shuffle_vector(build.insert_element(undefined, value, first), undefined, places)

    def counting(self, start: Value) -> Value:
        """Return the integers start, start + 1 … as a vector, to compare with others."""
        return self.build.add(self.spread(start), ir.Constant(self._whole_vector, list(range(self.lanes))))

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """Return a·b + c, rounded once."""
        return self._call("llvm.fma", self._vector, a, b, c)

    def root(self, vector: Value) -> Value:
        """Return the square roots."""
        return self._call("llvm.sqrt", self._vector, vector)

    def magnitude(self, vector: Value) -> Value:
        """Return the floats without their signs."""
        return self._call("llvm.fabs", self._vector, vector)

    def largest(self, a: Value, b: Value) -> Value:
        """Return the larger of each pair."""
        return self.build.select(self.build.fcmp_ordered(">", a, b), a, b)

    def smallest(self, a: Value, b: Value) -> Value:
        """Return the smaller of each pair."""
        return self.build.select(self.build.fcmp_ordered("<", a, b), a, b)

    def sum(self, vectors: Sequence[Value]) -> Value:
        """Return the sum of vectors, in halves."""
        if len(vectors) == 1:
            return vectors[0]
        half = len(vectors) // 2
        return self.build.fadd(self.sum(vectors[:half]), self.sum(vectors[half:]))

    def total(self, vector: Value) -> Value:
        """Return the sum of a vector's floats, in halves."""
        number = vector.type.element
        return self._call("llvm.vector.reduce.fadd", number, ir.Constant(number, -0.0), vector, flags=("reassoc",))

    def widened(self, vector: Value) -> Value:
        """Return a vector as float64."""
        return self.build.fpext(vector, self._wide) if self.single else vector

    def power_of_two(self, vector: Value, *, at_most_one: bool = False) -> Value:
        """Return 2^v to 1.1 units in the last place, held between the smallest normal number and half of the largest.

        Where v is known to be 0 or less, ``at_most_one`` saves an instruction.

        v = n + f with n whole and |f| ≤ ½: 2^f by a polynomial (:func:`_power_polynomial`), and n added to its
        exponent. n is found by adding 1.5 · 2^23 (2^52), at which floats are whole.
        """
        build = self.build
        bits = 23 if self.single else 52
        range_ = 126.0 if self.single else 1022.0
        v = self.largest(self.constant(-range_), vector)  # in this order NaN stays NaN
        if not at_most_one:
            v = self.smallest(self.constant(range_), v)
        shifted = build.fadd(v, self.constant(1.5 * 2.0**bits))
        f = build.fsub(v, build.fsub(shifted, self.constant(1.5 * 2.0**bits)))
        highest, *rest = _power_polynomial(6 if self.single else 11)
        power = self.constant(highest)
        for coefficient in rest:
            power = self.fma(power, f, self.constant(coefficient))
        exponent = build.shl(
            build.bitcast(shifted, self._whole_vector), ir.Constant(self._whole_vector, [bits] * self.lanes)
        )
        return build.bitcast(build.add(build.bitcast(power, self._whole_vector), exponent), self._vector)

    def cosine_and_sine(self, vector: Value) -> tuple[Value, Value]:
        """Return cos v and sin v within 2 units in the last place of 1 for |v| up to 10⁶; beyond, numbers in [-1, 1].

        v = n·π/2 + r with n whole and |r| hardly above π/4, π/2 in three parts, so that little is rounded (Cody and
        Waite, "Software Manual for the Elementary Functions", 1980); cos r and sin r by polynomials; n modulo 4 says
        which is which, and their signs. Float32 alone.
        """
        build = self.build
        shifted = self.fma(vector, self.constant(2 / math.pi), self.constant(1.5 * 2.0**23))
        n = build.fsub(shifted, self.constant(1.5 * 2.0**23))
        r = vector
        for part in _half_pi_parts():
            r = self.fma(n, self.constant(-part), r)
        r = self.smallest(self.constant(1.0), self.largest(self.constant(-1.0), r))  # in this order NaN stays NaN
        square = build.fmul(r, r)
        cosine, sine = (self.constant(terms[0]) for terms in _circle_polynomials())
        for high, low in zip(*(terms[1:] for terms in _circle_polynomials()), strict=True):
            cosine = self.fma(cosine, square, self.constant(high))
            sine = self.fma(sine, square, self.constant(low))
        sine = build.fmul(sine, r)
        bits = build.bitcast(shifted, self._whole_vector)
        odd = build.trunc(bits, ir.VectorType(ir.IntType(1), self.lanes))
        turned, upright = build.select(odd, sine, cosine), build.select(odd, cosine, sine)
        after = build.add(bits, self._whole_constant(1))
        return self._with_sign_of(turned, after), self._with_sign_of(upright, bits)

    def _with_sign_of(self, vector: Value, quarters: Value) -> Value:
        """Return floats with their signs turned where a number of quarter turns has its second bit set."""
        sign = self.build.shl(self.build.and_(quarters, self._whole_constant(2)), self._whole_constant(30))
        return self.build.bitcast(self.build.xor(self.build.bitcast(vector, self._whole_vector), sign), self._vector)

    def _whole_constant(self, value: int) -> Value:
        return ir.Constant(self._whole_vector, [value] * self.lanes)

    def _call(self, intrinsic: str, result: Value, *values: Value, flags: tuple[str, ...] = ()) -> Value:
        kind = values[-1].type
        name = f"{intrinsic}.v{kind.count}{'f64' if kind.element == _DOUBLE else 'f32'}"
        function = self._module.globals.get(name)
        if function is None:
            function = ir.Function(self._module, ir.FunctionType(result, [value.type for value in values]), name)
        return self.build.call(function, values, fastmath=flags)

    def compiled(self) -> Compiled:
        """End the function, and compile it for this processor."""
        self.build.ret_void()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(str(self._module))
        module.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
            opt=2,
            reloc="pic",
            codemodel="small",
        )
        tuning = llvm.create_pipeline_tuning_options(speed_level=2)
        tuning.loop_unrolling = False  # the bodies are long as they are, and take long to compile
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(module, passes)
        code = machine.emit_object(module)
        # JITLink: it keeps code and constants in one piece of memory, as the small code model needs them.
        session = llvm.create_lljit_compiler(machine, use_jit_link=True)
        name = self._module.name
        library = llvm.JITLibraryBuilder().add_object_img(code).export_symbol(name).link(session, name)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * self._pointers, *[ctypes.c_int64] * self._integers)
        return Compiled(kind(library[name]), (session, library))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled function.

    Attributes:
        call: takes addresses and integers; other threads run meanwhile.
        held: keeps its code in memory for as long as it may be called.
    """

    call: Any
    held: Any


@cache
def _power_polynomial(degree: int) -> tuple[float, ...]:
    """Return coefficients, highest first, of a polynomial near 2^f for |f| ≤ ½: within 5e-9 for degree 6, 3e-17 for 11.

    Of its Taylor series, taken to more terms than matter, the part of that degree in Chebyshev's polynomials: near to
    the best there is. For float32 degree 5 would do, to 1e-7, but sums of many values show that its error is not 0 on
    average.
    """
    series = [(math.log(2) / 2) ** k / math.factorial(k) for k in range(2 * degree)]
    found = cheb2poly(poly2cheb(series)[: degree + 1]) * 2.0 ** np.arange(degree + 1)
    return tuple(float(coefficient) for coefficient in reversed(found))


@cache
def _half_pi_parts() -> tuple[float, ...]:
    """Return π/2 in three parts: two of 12 bits, so that little is rounded, and the rest."""
    first = math.floor(math.pi / 2 * 2**11) / 2**11
    second = math.floor((math.pi / 2 - first) * 2**23) / 2**23
    return first, second, math.pi / 2 - first - second


@cache
def _circle_polynomials(terms: int = 5) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return coefficients, highest first, of polynomials in r² near cos r and sin(r)/r for |r| ≤ 1, within 1e-9.

    As those of :func:`_power_polynomial`: of their Taylor series, the part of that degree in Chebyshev's polynomials.
    """
    half = 0.5  # r² = half·(1 + t), |t| ≤ 1
    found: list[tuple[float, ...]] = []
    for shift in (0, 1):
        series = [(-1.0) ** k / math.factorial(2 * k + shift) for k in range(2 * terms)]
        in_t = Polynomial(series)(Polynomial([half, half]))
        kept = Polynomial(cheb2poly(poly2cheb(in_t.coef)[:terms]))
        coefficients = kept(Polynomial([-1.0, 1 / half])).coef
        found.append(tuple(float(coefficient) for coefficient in reversed(coefficients)))
    return found[0], found[1]
