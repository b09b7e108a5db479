"""The Pallas kernel in Pallas's interpreter against its definition, and its lowering for CUDA. No GPU is needed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftline.components.errors import UsageError
from driftline.components.kernel.theory.families import KERNEL_NAMES, Family, Kernel, family
from driftline.components.kernel.tiles.gpu_pallas import BIN_ROWS, pallas_tile
from tests.support.tile_oracle import tile_oracle, tile_values

# Unoptimised: the interpreter's programs take far longer to compile than to run.
quick_pallas_tile = jax.jit(
    pallas_tile,
    static_argnames=("families", "bin_rows", "diagonal", "precision", "interpret"),
    compiler_options={"xla_backend_optimization_level": "0"},
)


def vectors(rows: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, d)).astype(np.float32)


def summed(x, y, kernels, valid_x, valid_y, *, bin_rows=16, diagonal=False, x64=True, **settings):
    with jax.enable_x64(x64):
        gammas = np.array([kernel.gamma for kernel in kernels])
        families = tuple(kernel.family for kernel in kernels)
        sums = quick_pallas_tile(
            jnp.asarray(x),
            jnp.asarray(y),
            jnp.asarray(gammas),
            valid_x,
            valid_y,
            families=families,
            bin_rows=bin_rows,
            diagonal=diagonal,
            interpret=True,
            **settings,
        )
        return tuple(np.asarray(part) for part in sums)


def assert_close(got, expected, tolerance):
    """Compare with tolerance relative to each kernel's largest sum."""
    for part, wanted in zip(got, expected, strict=True):
        assert part.shape == wanted.shape
        for one, other in zip(part, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def kernels_for(d: int) -> tuple[Kernel, ...]:
    return tuple(Kernel(name, 0.6 / d) for name in KERNEL_NAMES)


TOLERANCES = {"bf16x6": 3e-6, "bf16x3": 5e-5}


@pytest.mark.parametrize(
    ("d", "valid_x", "valid_y", "diagonal", "precision"),
    [
        (1, 256, 256, False, "bf16x6"),
        (2, 201, 255, True, "bf16x3"),
        (50, 1, 77, False, "bf16x3"),
        (100, 256, 130, True, "bf16x6"),
        (100, 256, 130, True, "bf16x3"),
        (200, 254, 256, False, "bf16x6"),
        (200, 254, 256, False, "bf16x3"),
    ],
)
def test_all_kernels_at_once_are_the_definition(d, valid_x, valid_y, diagonal, precision):
    x = vectors(256, d, d)
    y = x if diagonal else vectors(256, d, d + 1)
    got = summed(x, y, kernels_for(d), valid_x, valid_y, diagonal=diagonal, precision=precision)
    assert [part.dtype for part in got] == [np.float64, np.float64, np.float32]
    assert_close(got, tile_oracle(x, y, kernels_for(d), valid_x, valid_y, 16, diagonal), TOLERANCES[precision])


@pytest.mark.parametrize("name", KERNEL_NAMES)
def test_each_kernel_alone_is_the_definition(name):
    """One kernel alone runs in larger sub-tiles, the default precision in smaller ones."""
    x, y, kernels = vectors(512, 20, 3), vectors(256, 20, 4), (Kernel(name, 0.03),)
    got = summed(x, y, kernels, 300, 256, bin_rows=8, precision="bf16x3")
    assert_close(got, tile_oracle(x, y, kernels, 300, 256, 8, diagonal=False), 3e-5)
    got = summed(x, x[:256], kernels, 512, 201, bin_rows=8, diagonal=True)
    assert_close(got, tile_oracle(x, x[:256], kernels, 512, 201, 8, diagonal=True), 1e-6)


def test_strips_and_sub_tiles_come_together():
    x, y = vectors(512, 3, 5), vectors(768, 3, 6)  # three strips of 256
    kernels = (Kernel("rbf", 0.2), Kernel("imq", 1.0))
    assert_close(summed(x, y, kernels, 400, 700), tile_oracle(x, y, kernels, 400, 700, 16, diagonal=False), 1e-6)
    x, y = vectors(256, 3, 7), vectors(2048, 3, 8)  # two strips of 1,024
    assert_close(summed(x, y, kernels, 256, 2047), tile_oracle(x, y, kernels, 256, 2047, 16, diagonal=False), 1e-6)


@pytest.mark.parametrize("bin_rows", BIN_ROWS)
@pytest.mark.parametrize("kernels", [(Kernel("rbf", 0.1),), (Kernel("rbf", 0.1), Kernel("linear", 0.3))])
def test_bins_are_cells_and_add_up_to_rows_and_columns(bin_rows, kernels):
    x, y = vectors(256, 4, 9), vectors(512, 4, 10)
    got = rows, columns, bins = summed(x, y, kernels, 250, 509, bin_rows=bin_rows, precision="bf16x3")
    assert_close(got, tile_oracle(x, y, kernels, 250, 509, bin_rows, diagonal=False), 3e-5)
    scale = np.abs(rows).sum()
    by_rows = rows.reshape(len(kernels), -1, bin_rows).sum(axis=2)
    by_columns = columns.reshape(len(kernels), -1, bin_rows).sum(axis=2)
    np.testing.assert_allclose(bins.sum(axis=2, dtype=float), by_rows, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(bins.sum(axis=1, dtype=float), by_columns, rtol=0, atol=1e-6 * scale)


def test_extreme_gammas_neither_overflow_nor_vanish():
    x, y = vectors(256, 2, 11), vectors(256, 2, 12)
    y[:100] = x[:100]  # at distance 0 every kernel is 1, whatever γ
    for gamma, far in ((1e-300, 1.0), (1e-40, 1.0), (1e38, 0.0), (1e300, 0.0)):
        kernels = tuple(Kernel(name, gamma) for name in ("rbf", "laplace-l2", "laplace-l1", "imq", "rq"))
        rows, columns, bins = summed(x * 1e-3, y * 1e-3, kernels, 200, 150)
        # Cancellation leaves up to 1e-12 of a squared distance of 0 here, which γ = 1e38 makes large: only that all
        # stays between its bounds can be asked of it, and of γ = 1e-40 exactness.
        assert all(np.isfinite(part).all() for part in (rows, columns, bins))
        assert (rows[:, 200:] == 0).all()
        assert (columns[:, 150:] == 0).all()
        if far:
            np.testing.assert_allclose(rows[:, :200], 150, rtol=1e-6)
        else:
            assert (rows <= 100).all()


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e30])
def test_padding_counts_for_nothing_whatever_it_holds(rubbish):
    x, y, kernels = vectors(256, 3, 13), vectors(256, 3, 14), kernels_for(3)
    clean = summed(x, y, kernels, 100, 37)
    x[100:], y[37:] = rubbish, rubbish
    for part, same in zip(summed(x, y, kernels, 100, 37), clean, strict=True):
        np.testing.assert_array_equal(part, same)
    empty = summed(x, y, kernels, 0, 37)
    assert all((part == 0).all() for part in empty)


def test_a_new_family_needs_no_change_here():
    """Neither 0 at infinity nor in the table of quicker functions: its padding is masked, its own function is run."""

    def function(u):
        return 0.25 + jnp.exp(-u) * (1 - u)

    new = Family("new", "distance", function, 1.0, lambda _: 1.0, None)
    x, y = vectors(256, 3, 15), vectors(256, 3, 16)
    with jax.enable_x64(True):
        rows, _, _ = pallas_tile(
            jnp.asarray(x),
            jnp.asarray(y),
            jnp.array([0.3]),
            250,
            199,
            families=(new,),
            bin_rows=32,
            diagonal=False,
            interpret=True,
        )
    u = -np.log(tile_values(x[:250], y[:199], Kernel("rbf", 0.3)))
    values = 0.25 + np.exp(-u) * (1 - u)
    np.testing.assert_allclose(np.asarray(rows)[0, :250], values.sum(axis=1), atol=2e-4)
    assert (np.asarray(rows)[0, 250:] == 0).all()


def test_errors_of_a_distance_are_those_stated():
    """In bins of 8 × 8 of the kernel 1/(1 + u), whose slope is at most γ = 1: at most 64 errors of a distance."""
    x, y = vectors(256, 64, 17), vectors(256, 64, 18)
    x[:128] = y[:128] + 1e-3 * x[:128]  # near pairs, where rounding is all that is left
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))  # r = 1
    kernels = (Kernel("rq", 1.0),)
    exact = tile_oracle(x, y, kernels, 256, 256, 8, diagonal=False)[2]
    error = {
        precision: np.abs(summed(x, y, kernels, 256, 256, bin_rows=8, precision=precision)[2] - exact).max()
        for precision in ("bf16x6", "bf16x3")
    }
    assert error["bf16x6"] <= 64 * 2.0**-20
    assert error["bf16x3"] <= 64 * 2.0**-14
    assert error["bf16x3"] > 3 * error["bf16x6"]


def test_the_same_bits_every_time_and_for_any_padding_of_d():
    x, y, kernels = vectors(256, 10, 19), vectors(256, 10, 20), (Kernel("rbf", 0.05), Kernel("polynomial", 0.1))
    first = summed(x, y, kernels, 200, 256)
    again = summed(x, y, kernels, 200, 256)
    narrow = summed(x, y, kernels, 200, 256, x64=False)
    for part, same in zip(first, again, strict=True):
        assert part.tobytes() == same.tobytes()
    assert [part.dtype for part in narrow] == [np.float32] * 3
    assert first[2].tobytes() == narrow[2].tobytes()
    wide = summed(np.pad(x, ((0, 0), (0, 6))), np.pad(y, ((0, 0), (0, 6))), kernels, 200, 256)
    assert_close(wide, first, 3e-7)


def test_transposing_the_tile_swaps_rows_and_columns():
    x, y, kernels = vectors(256, 6, 21), vectors(512, 6, 22), (Kernel("laplace-l2", 0.1), Kernel("linear", 0.1))
    rows, columns, bins = summed(x, y, kernels, 256, 500)
    mirrored = summed(y, x, kernels, 500, 256)
    assert_close((columns, rows, bins.swapaxes(1, 2)), mirrored, 1e-6)


def lowered(names: tuple[str, ...], d: int, *, diagonal: bool, precision: str, bin_rows: int, x64: bool) -> str:
    with jax.enable_x64(x64):
        block = jax.ShapeDtypeStruct((2048, d), jnp.float32)
        valid = jax.ShapeDtypeStruct((), jnp.int32)
        traced = pallas_tile.trace(
            block,
            block,
            jax.ShapeDtypeStruct((len(names),), jnp.float32),
            valid,
            valid,
            families=tuple(family(name) for name in names),
            bin_rows=bin_rows,
            diagonal=diagonal,
            precision=precision,
        )
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("d", [2, 64, 384])
@pytest.mark.parametrize(
    "names",
    [*((name,) for name in KERNEL_NAMES), ("laplace-l1", "laplace-l1"), (*KERNEL_NAMES, "rbf", "rbf")],
)
def test_every_kernel_lowers_to_triton_without_a_gpu(names, d):
    for diagonal, precision, bin_rows, x64 in ((False, "bf16x3", 8, True), (True, "bf16x6", 64, False)):
        text = lowered(names, d, diagonal=diagonal, precision=precision, bin_rows=bin_rows, x64=x64)
        # One call of the compiler; the tile's 2,048 × 2,048 values appear nowhere outside it.
        assert text.count("stablehlo.custom_call @__gpu$xla.gpu.triton") == 1
        assert "2048x2048" not in text


def good(**changes):
    settings = {"families": (family("rbf"),), "bin_rows": 8, "diagonal": False, "interpret": True}
    x = changes.pop("x", np.zeros((256, 2), np.float32))
    y = changes.pop("y", np.zeros((256, 2), np.float32))
    gammas = changes.pop("gammas", np.ones(1, np.float32))
    return pallas_tile(x, y, gammas, 256, 256, **(settings | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((256, 3), np.float32)}, r"expected two float32 arrays \(rows, d\) with one d above 0"),
        ({"x": np.zeros((256, 2), np.int32)}, "got int32"),
        ({"x": np.zeros((256, 0), np.float32), "y": np.zeros((256, 0), np.float32)}, "with one d above 0"),
        ({"x": np.zeros((300, 2), np.float32)}, "multiple of 256 rows, got 300; pad them"),
        ({"y": np.zeros((0, 2), np.float32)}, "multiple of 256 rows, got 0"),
        ({"gammas": np.ones(2, np.float32)}, "got 1 families and gammas of shape"),
        ({"families": (), "gammas": np.ones(0, np.float32)}, "got 0 families"),
        ({"bin_rows": 12}, "bin_rows: expected one of 8, 16, 32, 64, got 12"),
        ({"precision": "tf32"}, "precision: expected one of bf16x6, bf16x3, got 'tf32'"),
    ],
)
def test_what_the_kernel_is_not_made_for_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        good(**changes)
