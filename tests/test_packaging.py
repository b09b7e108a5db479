"""The distribution: what it holds is what the folders hold, and a wheel of it works where the sources are not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = ("components", "pipelines", "serving")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders() -> set[str]:
    """Return the dotted names of all packages below the fixed top-level folders."""
    found = set()
    for top in TOPS:
        for init in (ROOT / top).rglob("__init__.py"):
            found.add("driftline." + ".".join(init.parent.relative_to(ROOT).parts))
    return found


def test_the_list_of_packages_is_the_folders():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders()
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {name.split(".")[1] for name in folders()} == {name.removeprefix("driftline.") for name in mapped}


def test_every_module_stands_in_a_package():
    modules = [path for top in TOPS for path in (ROOT / top).rglob("*.py")]
    assert [str(path) for path in modules if not (path.parent / "__init__.py").exists()] == []


def test_nothing_is_importable_as_components_or_pipelines():
    code = "import importlib.util as u; print([n for n in ('components', 'pipelines', 'serving') if u.find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=Path(sys.prefix)
    )
    assert done.stdout.strip() == "[]"


def test_images_carry_the_packages_version():
    from driftline.components.images import VERSION

    assert PROJECT["project"]["version"] == VERSION


@pytest.mark.slow
def test_a_wheel_holds_everything_and_works_alone(tmp_path):
    """Build a wheel, install it without dependencies in an empty environment, and use it with this one's libraries."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *TOPS):
        (source / name).symlink_to(ROOT / name)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        f"driftline/{path.relative_to(ROOT).as_posix()}"
        for top in TOPS
        for pattern in ("*.py", "*.j2", "*.css", "py.typed")
        for path in (ROOT / top).rglob(pattern)
    }
    expected |= {
        f"driftline/{path.relative_to(ROOT).as_posix()}"
        for pattern in ("components/*/metadata.yaml", "pipelines/yaml/*.yaml", "pipelines/yaml/*.md")
        for path in ROOT.glob(pattern)
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python3*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    libraries = Path(subprocess.run(
        [sys.executable, "-c", "import numpy; print(numpy.__path__[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()).parent  # fmt: skip
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import driftline.components.mmd as mmd, numpy as np\n"
        "from driftline.components.mmd.report import render\n"
        "assert sys.argv[2] in mmd.__file__, mmd.__file__\n"
        "print(mmd.two_sample_test(np.arange(9.0), np.arange(9.0) + 100).rejected)\n"
    )
    run = [str(home / "bin" / "python"), "-P", "-c", code, str(libraries), str(home)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
