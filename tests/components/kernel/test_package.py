from __future__ import annotations

import doctest
import subprocess
import sys

from driftline.components import kernel


def test_the_example_runs_as_written():
    found = doctest.testmod(kernel)
    assert found.attempted > 5
    assert found.failed == 0


def test_every_public_name_is_there():
    for name in kernel.__all__:
        assert getattr(kernel, name).__doc__
    assert set(kernel.__all__) == set(kernel._HOMES)


def test_the_package_itself_loads_neither_numpy_nor_jax():
    code = "import sys, driftline.components.kernel; sys.exit(bool({'numpy', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
