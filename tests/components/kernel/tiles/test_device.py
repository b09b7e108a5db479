from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from driftline.components.errors import DriftlineError
from driftline.components.kernel.theory.families import KERNEL_NAMES, Kernel
from driftline.components.kernel.tiles import device, engine
from driftline.components.kernel.tiles.device import DeviceBlock, DeviceTiles
from driftline.components.kernel.tiles.gpu_pallas import pallas_tile
from driftline.components.kernel.tiles.xla import xla_tile
from tests.components.kernel.tiles.test_engine import centred, run, same_bits
from tests.support.tile_oracle import tile_oracle

KERNELS = tuple(Kernel(name, 0.1) for name in KERNEL_NAMES)


def block(z: np.ndarray, rows: int, size: int, labels: np.ndarray) -> DeviceBlock:
    padded = np.zeros((size, z.shape[1]), z.dtype)
    padded[:rows] = z[:rows]
    return DeviceBlock(jnp.asarray(padded), rows, jnp.asarray(labels))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("rows_x", "rows_y"), [(512, 512), (300, 129), (1, 512)])
@pytest.mark.parametrize("piece", [512, 128])
def test_tiles_in_pieces_are_the_definition(monkeypatch, diagonal, rows_x, rows_y, piece):
    monkeypatch.setattr(device, "PIECE_ROWS_OF_MANY", piece)
    rng = np.random.default_rng(rows_x + piece)
    labels = rng.integers(0, 2, size=(2, 128, 4)).astype(np.int8)
    z = rng.normal(size=(2, 512, 3))
    with jax.enable_x64(True):
        x = block(z[0], rows_x, 512, labels[0])
        y = x if diagonal else block(z[1], rows_y, 512, labels[1])
        got = DeviceTiles(KERNELS, 1.0, 512, 4, "float64").sums(x, y, diagonal=diagonal)
    got = [np.asarray(part) for part in got]
    vectors = z[0] if diagonal else z[1]
    rows, columns, bins = tile_oracle(z[0], vectors, KERNELS, rows_x, y.rows, 4, diagonal)
    np.testing.assert_allclose(got[0], rows, rtol=1e-10, atol=1e-9)
    if not diagonal:
        np.testing.assert_allclose(got[1], columns, rtol=1e-10, atol=1e-9)
    own, other = labels[0].astype(float), labels[0 if diagonal else 1].astype(float)
    within = np.einsum("ub,quv,vb->qb", own, bins, other)
    np.testing.assert_allclose(got[2], within if diagonal else 2 * within, rtol=1e-10, atol=1e-8)


SAMPLES = np.random.default_rng(3)
PIECES = SAMPLES.normal(size=(2, 256, 4)).astype(np.float32)
LABELS = SAMPLES.integers(0, 2, size=(32, 5)).astype(np.int8)


def sums_where_pallas_may_be_taken(monkeypatch, *, pallas=None, seconds=(1.0, 2.0), diagonal=False, log=None):
    """Return a tile's sums, those of XLA, and who computed the first.

    The kernel runs in Pallas's interpreter; ``pallas``, where given, is a fake that takes its place.
    ``seconds`` are what the clock says of a piece by the Pallas kernel and by XLA.
    """
    kernels = (Kernel("rbf", 0.2), Kernel("polynomial", 0.1))
    monkeypatch.setattr(device, "pallas_tile", partial(pallas_tile, interpret=True))
    if pallas is not None:
        monkeypatch.setattr(device, "_pallas_sums", pallas)
    clock = iter(seconds)
    monkeypatch.setattr(device, "_seconds", lambda run: next(clock))
    if log is not None:
        log.set_level("INFO", "driftline")
    with jax.enable_x64(True):
        x, y = (block(z, rows, 256, LABELS) for z, rows in zip(PIECES, (200, 256), strict=True))
        if diagonal:
            y = x
        tiles = DeviceTiles(kernels, 0.5, 256, 8, "float32", "bf16x6")
        assert tiles.computed_by == ""
        sums = tiles.sums(x, y, diagonal=diagonal)
        plain = DeviceTiles(kernels, 0.5, 256, 8, "float32").sums(x, y, diagonal=diagonal)
    return [np.asarray(part) for part in sums], [np.asarray(part) for part in plain], tiles.computed_by


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_pallas_kernel_that_agrees_and_is_faster_takes_the_place_of_xla(monkeypatch, caplog, diagonal):
    sums, plain, by = sums_where_pallas_may_be_taken(monkeypatch, diagonal=diagonal, log=caplog)
    assert by == "pallas"
    for place in (0, 2) if diagonal else (0, 1, 2):
        assert not np.array_equal(sums[place], plain[place])
        np.testing.assert_allclose(sums[place], plain[place], rtol=1e-5, atol=1e-5 * np.abs(plain[place]).max())
    assert "the Pallas kernel sums the tiles: 1 s a piece by the Pallas kernel, 2 s by XLA" in caplog.text


def _wrong(*arguments, diagonal, precision, **settings):
    rows, columns, within = device._xla_sums(*arguments, diagonal, **settings)
    return rows * 1.01, columns, within


def _nan(*arguments, diagonal, precision, **settings):
    rows, columns, within = device._xla_sums(*arguments, diagonal, **settings)
    return rows, columns, within * jnp.nan


def _broken(*_, **__):
    raise ValueError("no such instruction\non this device")


@pytest.mark.parametrize(
    ("pallas", "seconds", "said"),
    [
        (_wrong, (1.0, 2.0), "XLA sums the tiles: the Pallas kernel's sums differ by 0.01, above 0.001"),
        (_nan, (1.0, 2.0), "XLA sums the tiles: the Pallas kernel's sums differ by nan, above 0.001"),
        (_broken, (1.0, 2.0), "XLA sums the tiles: the Pallas kernel failed (no such instruction on this device)"),
        (None, (2.0, 1.0), "XLA sums the tiles: 2 s a piece by the Pallas kernel, 1 s by XLA"),
    ],
    ids=["disagrees", "is no number", "raises", "is slower"],
)
def test_a_pallas_kernel_that_is_not_fine_leaves_the_tiles_to_xla(monkeypatch, caplog, pallas, seconds, said):
    sums, plain, by = sums_where_pallas_may_be_taken(monkeypatch, pallas=pallas, seconds=seconds, log=caplog)
    assert by == "xla"
    assert [part.tobytes() for part in sums] == [part.tobytes() for part in plain]
    assert said in caplog.text


@pytest.mark.parametrize(("valid", "diagonal"), [(256, False), (256, True), (77, False), (77, True), (1, True)])
@pytest.mark.parametrize("bin_rows", [1, 2, 8, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_xla_tiles_are_the_definition(valid, diagonal, bin_rows, dtype, tolerance):
    rng = np.random.default_rng(bin_rows)
    x, y = rng.normal(size=(2, 256, 6)).astype(dtype)
    x[valid:] = 0
    y, valid_y = (x, valid) if diagonal else (y, 256)
    families = tuple(kernel.family for kernel in KERNELS)
    with jax.enable_x64(True):
        got = xla_tile(
            jnp.asarray(x), jnp.asarray(y), jnp.full(len(KERNELS), 0.1, dtype), valid, valid_y, diagonal,
            families=families, bin_rows=bin_rows,
        )  # fmt: skip
    expected = tile_oracle(x, y, KERNELS, valid, valid_y, bin_rows, diagonal=diagonal)
    for part, of in zip(got, expected, strict=True):
        atol = tolerance * max(np.abs(of).max(), 256.0)
        np.testing.assert_allclose(np.asarray(part), of, rtol=tolerance, atol=atol)


def exhausted_above(rows: int):
    """Return a stand-in for the compiled sums of a device whose memory holds no larger pieces."""
    real = device._xla_sums

    def summed(x, *rest, **settings):
        if len(x) > rows:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating")
        return real(x, *rest, **settings)

    return summed


def test_a_device_without_memory_takes_smaller_pieces_and_says_so(monkeypatch):
    z = centred(700, 400, 3)
    kernels = [Kernel("rbf", 0.2), Kernel("linear", 0.2)]
    whole = run(z, 700, kernels, block=1024, native=False)
    monkeypatch.setattr(device, "_xla_sums", exhausted_above(128))
    with pytest.warns(RuntimeWarning, match="ran out of memory with pieces of 256 rows; going on with 128"):
        small = run(z, 700, kernels, block=1024, native=False)
    np.testing.assert_allclose(small.within, whole.within, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(small.rows, whole.rows, rtol=1e-10, atol=1e-9)


def test_memory_that_runs_out_while_waiting_is_met_too(monkeypatch):
    z = centred(700, 400, 3)
    whole = run(z, 700, [Kernel("rbf", 0.2)], block=1024, native=False)
    real = np.asarray
    failing = [True]

    def asarray(value, *rest, **settings):
        if isinstance(value, jax.Array) and value.dtype == np.float64 and failing:
            failing.clear()
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(value, *rest, **settings)

    monkeypatch.setattr(engine.np, "asarray", asarray)
    with pytest.warns(RuntimeWarning, match="ran out of memory"):
        small = run(z, 700, [Kernel("rbf", 0.2)], block=1024, native=False)
    np.testing.assert_allclose(small.within, whole.within, rtol=1e-12)


def test_a_device_with_no_memory_at_all_says_what_to_do(monkeypatch):
    monkeypatch.setattr(device, "_xla_sums", exhausted_above(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DriftlineError, match="has not the memory for a tile's pieces of 128 rows with 1 kernels"):
            run(centred(700, 400, 3), 700, [Kernel("rbf", 0.2)], block=1024, native=False)


def test_other_errors_of_a_device_are_not_taken_for_want_of_memory(monkeypatch):
    def broken(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device fell off the bus")

    monkeypatch.setattr(device, "_xla_sums", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        run(centred(70, 40, 3), 70, [Kernel("rbf", 0.2)], native=False)


TWO_DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
assert len(jax.local_devices()) == int(sys.argv[1])
from driftline.components.kernel.theory.families import Kernel
from tests.components.kernel.tiles.test_engine import centred, run
for precision in ("float32", "float64"):
    sums = run(centred(1500, 900, 4), 1500, [Kernel("rbf", 0.1), Kernel("rq", 0.3)], precision=precision, native=False)
    print(sums.rows.tobytes().hex()[-4000:], sums.within.tobytes().hex())
"""


def test_two_devices_give_the_bits_of_one(request):
    def bits(devices: int) -> str:
        command = [sys.executable, "-c", TWO_DEVICES, str(devices)]
        environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert bits(1) == bits(2)


def test_results_do_not_change_from_run_to_run():
    z = centred(600, 500, 3)
    assert same_bits(run(z, 600, [Kernel("imq", 0.2)]), run(z, 600, [Kernel("imq", 0.2)]))
