"""The compiled program against the definition: every family, edge and layout, and any number of threads."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from driftline.components.errors import DataError
from driftline.components.kernel.llvm_codegen import Registers, VectorCode
from driftline.components.kernel.theory import families
from driftline.components.kernel.theory.families import KERNEL_NAMES, Family, Kernel
from driftline.components.kernel.tiles import cpu, cpu_program, engine
from driftline.components.kernel.tiles.cpu import CpuBlock, CpuTiles
from driftline.components.kernel.tiles.cpu_functions import is_known, kernel_values
from tests.components.kernel.tiles.test_engine import centred, run, same_bits
from tests.support.tile_oracle import tile_oracle

KERNELS = tuple(Kernel(name, 0.1) for name in (*KERNEL_NAMES[::-1], "rbf"))  # a family twice, and not together
TOLERANCE = {"float64": 1e-12, "float32": 3e-6}


def host_block(tiles: CpuTiles, z: np.ndarray, labels: np.ndarray) -> CpuBlock:
    return CpuBlock(*tiles.vectors(z), labels)


def compare(rows_x, rows_y, *, size=256, bin_rows=4, precision="float64", diagonal=False, kernels=KERNELS, d=3):
    """Compare a tile of blocks of ``size`` rows, so many of them there, with its definition."""
    rng = np.random.default_rng([rows_x, rows_y, bin_rows])
    x, y = rng.normal(size=(2, size, d)).astype(precision)
    labels_x, labels_y = rng.integers(0, 2, size=(2, size // bin_rows, 21)).astype(np.int8)
    tiles = CpuTiles(kernels, 1.0, size, bin_rows, precision)
    one = host_block(tiles, x[:rows_x], labels_x)
    other = one if diagonal else host_block(tiles, y[:rows_y], labels_y)
    if diagonal:
        y, rows_y, labels_y = x, rows_x, labels_x
    got = tiles.sums(one, other, diagonal=diagonal)
    rows, columns, bins = tile_oracle(x, y, kernels, rows_x, rows_y, bin_rows, diagonal)
    within = np.einsum("ub,quv,vb->qb", labels_x.astype(float), bins, labels_y.astype(float), optimize=True)
    wanted = [rows, rows if diagonal else columns, within if diagonal else 2 * within]
    parts = [got[0], got[0] if diagonal else got[1], got[2]]
    for part, of in zip(parts, wanted, strict=True):
        assert part.dtype == np.float64
        for ours, theirs in zip(part, of, strict=True):
            atol = TOLERANCE[precision] * np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[precision], atol=atol)
    assert (got[0][:, rows_x:] == 0).all()


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("rows_x", "rows_y"), [(256, 256), (129, 255), (1, 256), (256, 1), (2, 3), (63, 17)])
def test_tiles_are_the_definition(rows_x, rows_y, diagonal, precision):
    compare(rows_x, rows_y, diagonal=diagonal, precision=precision)


@pytest.mark.parametrize("bin_rows", [1, 2, 8, 16, 32])
def test_bins_of_any_size_are_the_definition(bin_rows):
    kernels = (Kernel("rbf", 0.2), Kernel("linear", 0.2))
    compare(200, 77, bin_rows=bin_rows, kernels=kernels, precision="float32")
    compare(201, 201, bin_rows=bin_rows, kernels=kernels, diagonal=True)


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_each_kernel_alone_is_the_definition(name):
    for d in (1, 2, 40, 600):
        compare(140, 256, kernels=(Kernel(name, 0.7 / d),), precision="float32", d=d)


@pytest.mark.parametrize(
    "registers", [Registers(16, False), Registers(16, True), Registers(32, False), Registers(64, True)]
)
def test_registers_of_any_size_give_the_definition(monkeypatch, registers):
    """LLVM makes of vectors that this processor has not what it has."""
    monkeypatch.setattr(cpu_program, "host_registers", lambda: registers)
    kernels = (Kernel("laplace-l2", 0.2), Kernel("laplace-l1", 0.2), Kernel("polynomial", 0.2))
    for precision in ("float64", "float32"):
        compare(201, 255, kernels=kernels, precision=precision)
        compare(130, 130, kernels=kernels, precision=precision, diagonal=True, bin_rows=1)


@pytest.mark.parametrize(("diagonal", "rows_x", "rows_y"), [(False, 512, 300), (True, 512, 512), (True, 300, 300)])
def test_tiles_in_pieces_and_chunks_are_the_definition(monkeypatch, diagonal, rows_x, rows_y):
    kernels = (Kernel("rbf", 0.2), Kernel("linear", 0.2))
    monkeypatch.setattr(cpu, "LARGEST_PIECE", 128)
    compare(rows_x, rows_y, size=512, kernels=kernels, diagonal=diagonal)
    monkeypatch.setattr(cpu, "LARGEST_PIECE", 512)
    monkeypatch.setattr(cpu, "LARGEST_CHUNK", 64)
    compare(rows_x, rows_y, size=512, kernels=kernels, diagonal=diagonal)


def test_bins_that_would_take_much_memory_take_smaller_pieces(monkeypatch):
    monkeypatch.setattr(cpu, "BINS_BYTES", 1)
    tiles = CpuTiles(KERNELS, 1.0, 1024, 1, "float64")
    assert tiles.vectors(np.zeros((1024, 3)))[0].shape[0] == 1024 // cpu.SMALLEST_PIECE


def test_the_program_agrees_with_xla():
    z = centred(700, 450, 6)
    kernels = [Kernel(name, 0.2) for name in KERNEL_NAMES]
    for precision, tolerance in (("float64", 1e-12), ("float32", 2e-5)):
        ours = run(z, 700, kernels, precision=precision)
        xla = run(z, 700, kernels, precision=precision, native=False)
        for one, other in ((ours.rows, xla.rows), (ours.within, xla.within)):
            scale = np.abs(other).reshape(len(kernels), -1).max(axis=1).reshape(-1, *[1] * (one.ndim - 1))
            np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


def test_l1_distances_near_zero_keep_their_digits_far_from_the_centre():
    """A squared distance taken as a difference of norms loses them; a sum of differences does not."""
    z = 1e3 + np.arange(256.0)[:, None] * np.array([2.0**-13, 2.0**-12])  # exact in float32
    kernels = (Kernel("laplace-l1", 1.0),)
    tiles = CpuTiles(kernels, 1.0, 256, 1, "float32")
    block = host_block(tiles, z, np.zeros((256, 1), np.int8))
    rows, _, _ = tiles.sums(block, block, diagonal=True)
    expected, _, _ = tile_oracle(z, z, kernels, 256, 256, 1, diagonal=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, precision):
    z = np.random.default_rng(0).normal(size=(1900, 8))
    kernels = [Kernel("rbf", 0.05), Kernel("imq", 0.05)]
    one = run(z, 800, kernels, block=128, precision=precision)
    for cores in (1, 3, 16):
        monkeypatch.setattr(engine, "_cores", lambda cores=cores: cores)
        assert same_bits(one, run(z, 800, kernels, block=128, precision=precision))


def test_vectors_far_apart_have_kernels_near_zero():
    z = np.concatenate([np.full((150, 2), 1e6), np.full((170, 2), -1e6)])
    for precision in ("float64", "float32"):
        kernels = [Kernel("rbf", 1.0), Kernel("laplace-l2", 1.0), Kernel("laplace-l1", 1.0)]
        sums = run(z, 150, kernels, precision=precision)
        np.testing.assert_allclose(sums.rows[:, :150, 0], 149, rtol=1e-6)
        np.testing.assert_allclose(sums.rows[:, :150, 1], 0, atol=1e-30)


def test_a_failure_while_tiles_are_computed_is_raised():
    def blocks(index: int) -> np.ndarray:
        if index == 3:
            raise DataError("block 3: gone")
        return np.zeros((128, 2))

    with pytest.raises(DataError, match="block 3: gone"):
        run(np.zeros((640, 2)), 320, [Kernel("rbf", 1.0)], block=128, blocks=blocks)


def _foreign(u):
    return jnp.tanh(jnp.exp(-u))


@pytest.mark.parametrize(
    ("function", "known"), [(lambda u: 0.25 + jnp.exp(-u) * (1 - u) ** 2, True), (_foreign, False)]
)
def test_a_new_family_needs_no_change_here(monkeypatch, function, known):
    """One whose operations are known is compiled; any other is left to XLA."""
    new = Family("new", "distance", function, 1.0, lambda _: 2.0, None)
    monkeypatch.setitem(families._FAMILIES, "new", new)
    assert is_known(new) is known
    z = centred(150, 170, 3)
    sums = run(z, 150, [Kernel("new", 0.3)])
    squared = ((z[:, None] - z[None]) ** 2).sum(axis=2)
    gram = np.asarray(function(0.3 * squared), np.float64)
    np.fill_diagonal(gram, 0)
    np.testing.assert_allclose(sums.rows[0, :, 0], gram[:, :150].sum(axis=1), rtol=1e-6, atol=1e-5)


def elementwise(emit, values: np.ndarray) -> np.ndarray:
    """Run an elementwise function made of vector code; ``values`` must fill whole vectors of 4."""
    code = VectorCode("each", ("source", "target"), ("count",), single=values.dtype == np.float32, lanes=4)
    source, target = code.arguments["source"], code.arguments["target"]
    with code.loop(code.index(0), code.arguments["count"], 4) as k:
        code.store(emit(code, code.load(code.at(source, k))), code.at(target, k))
    compiled, result = code.compiled(), np.empty_like(values)
    compiled.call(values.ctypes.data, result.ctypes.data, len(values))
    return result


def test_cosines_and_sines_are_right_to_two_units_in_the_last_place_of_1():
    rng = np.random.default_rng(2)
    sizes = [0.5, 10.0, 1e3, 1e5, 1e6]
    values = np.concatenate([size * rng.uniform(-1, 1, 20_000) for size in sizes] + [np.arange(-4, 4) * np.pi / 4])
    values = values.astype(np.float32)
    for place, exact in ((0, np.cos), (1, np.sin)):
        got = elementwise(lambda code, v, place=place: code.cosine_and_sine(v)[place], values)
        assert np.abs(got - exact(values.astype(np.float64))).max() < 2 * np.finfo(np.float32).eps / 2
        beyond = np.array([1e7, -1e12, 3e38, -3e38], np.float32)
        assert np.abs(elementwise(lambda code, v, place=place: code.cosine_and_sine(v)[place], beyond)).max() <= 1
        odd = np.array([np.nan, np.inf, -np.inf, 0.0], np.float32)
        got = elementwise(lambda code, v, place=place: code.cosine_and_sine(v)[place], odd)
        np.testing.assert_array_equal(got, [np.nan] * 3 + [exact(0.0)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_are_right_to_a_unit_in_the_last_place(dtype):
    info = np.finfo(dtype)
    rng = np.random.default_rng(1)
    values = np.concatenate([np.linspace(-40, 40, 100_000), rng.uniform(info.minexp, info.maxexp - 2, 100_000)])
    values = values.astype(dtype)
    exact = np.exp2(values.astype(np.longdouble))
    for at_most_one in (False, True):
        asked = -np.abs(values) if at_most_one else values
        got = elementwise(lambda code, v, at_most_one=at_most_one: code.power_of_two(v, at_most_one=at_most_one), asked)
        wanted = np.exp2(asked.astype(np.longdouble)) if at_most_one else exact
        assert (np.abs(got - wanted) / wanted).max() < 1.1 * info.eps
    whole = np.arange(info.minexp, info.maxexp - 1).astype(dtype)
    whole = whole[: len(whole) // 4 * 4]
    np.testing.assert_array_equal(elementwise(VectorCode.power_of_two, whole), np.exp2(whole))
    ends = np.array([-np.inf, -1e30, 1e30, np.inf], dtype)
    low, high = info.tiny, 2.0 ** (info.maxexp - 2)
    np.testing.assert_array_equal(elementwise(VectorCode.power_of_two, ends), np.array([low, low, high, high], dtype))


OPERATIONS = {
    "arithmetic": lambda u: (u + 2) * (u - 3) / (u + 0.5),
    "roots": lambda u: jnp.sqrt(u) + 1 / jnp.sqrt(1 + u),
    "powers": lambda u: u**3 + (1 + u) ** -2 + jnp.square(u) + u**0,
    "limits": lambda u: jnp.maximum(u, 1.0) * jnp.minimum(-u, -0.5),
    "exponentials": lambda u: jnp.exp(u) + jnp.exp2(u) + jnp.exp(jnp.negative(-u)) + jnp.exp(-u),
    "identity": lambda u: u,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_functions_are_what_jax_makes_of_them(name):
    function = OPERATIONS[name]
    family = Family(name, "distance", function, 1.0, lambda _: 1.0, None)
    assert is_known(family)
    u = np.linspace(0, 5, 4096)
    got = elementwise(lambda code, v: kernel_values(code, family, code.constant(0.7), v), u)
    np.testing.assert_allclose(got, np.asarray(function(0.7 * u), np.float64), rtol=2e-6, atol=2e-6)
