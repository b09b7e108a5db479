"""Makes the locks again: `requirements.lock` and `requirements-cuda.lock`, `.ci/oldest-kfp.lock`, and the images'.

Run it as `make lock`, on Linux x86-64 with Python 3.11. It reads `pyproject.toml` (the extras, the `dev`
dependency group and the build's requirements), lets pip resolve them against PyPI without installing
anything, and writes what pip chose.

* The images' locks hold one SHA-256 a package: that of the wheel for CPython 3.11 on Linux x86-64 with
  glibc 2.28 or later or, for the few that PyPI has no wheel of, of the source archive.
* The others are for any machine: they hold the SHA-256 of each of a version's files that CPython 3.11 can use on
  Linux (x86-64, ARM) or macOS. torch's CUDA libraries are a file of their own (see `CUDA_PREFIXES`).

A lock that exists is kept: its versions are handed to pip as constraints, so that only what pyproject.toml
changed moves. `--upgrade` starts afresh. The root lock is made first and binds the images' locks, so that
they run the versions that the tests ran. pip's configuration files and further places to look for wheels
are not read, because what they add is not on PyPI; `PIP_INDEX_URL` is, so that a mirror of PyPI serves as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LOG = logging.getLogger("lock")

# Held at one version, whatever newer one PyPI has.
PINS = (
    "torch==2.13.0",  # development, CI and the embed image run one torch, so that vectors agree between them
    "kfp==2.17.0",  # what compiles the pipelines also runs their steps
)

# torch's build for Linux asks for these, that for macOS does not: they have a lock of their own, which `make` installs
# where the installed torch asks for them.
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")

# pip picks the first of these that a package has; each runs on glibc 2.28 or later (Debian 10, RHEL 8).
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)

OLDEST_KFP = ("kfp==2.14.6", "kfp-kubernetes==2.14.6", "pydantic", "google-crc32c")

# What pip would add to PyPI; a name dropped here cannot end in a lock.
DROPPED_SETTINGS = (
    "PIP_FIND_LINKS",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_CONSTRAINT",
    "PIP_REQUIREMENT",
    "PIP_PRE",
)

ANY_MACHINE_HEADER = """\
# {what}, for Python 3.11.
# Made by `make lock` (images/lock.py) on Linux x86-64; do not edit.
# Install with `pip install --require-hashes --no-deps`.
"""

HASHED_HEADER = """\
# {what}, for Python 3.11 on Linux x86-64.
# Made by `make lock` (images/lock.py); do not edit. Install with `pip install --require-hashes`.
"""


class LockError(Exception):
    """A lock cannot be made; the message is for the person who asked for it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package as pip chose it: its normalised name, version, and its files' SHA-256 in hexadecimal."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock to make.

    Attributes:
        path: its file, from the repository's root.
        header: the comment that it begins with.
        requirements: what it starts from.
        any_machine: whether it holds the files for all machines, not for the images' alone.
        apart: a second file, for the packages of `CUDA_PREFIXES`; None where they stay.
        own_versions: whether it is bound by no other lock.
    """

    path: str
    header: str
    requirements: tuple[str, ...]
    any_machine: bool = False
    apart: tuple[str, str] | None = None
    own_versions: bool = False


def expand_extra(project: Mapping[str, Any], extra: str) -> list[str]:
    """Lists an extra's requirements, following its references to the project's other extras.

    Args:
        project: The `[project]` table of pyproject.toml.
        extra: The extra's name.

    Returns:
        Requirement strings, the project's own dependencies first, each once and in order.

    Raises:
        LockError: If the project has no such extra.
    """
    extras: Mapping[str, list[str]] = project["optional-dependencies"]
    if extra not in extras:
        raise LockError(f"pyproject.toml has no extra {extra!r} (it has {', '.join(sorted(extras))})")
    found: list[str] = list(project["dependencies"])
    for text in extras[extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != canonicalize_name(project["name"]):
            found.append(text)
            continue
        for inner in sorted(requirement.extras):
            found.extend(expand_extra(project, inner))
    return list(dict.fromkeys(found))


def plan(pyproject: Mapping[str, Any]) -> list[Lock]:
    """Lists the locks to make, and what each starts from.

    Args:
        pyproject: The parsed pyproject.toml.

    Returns:
        The root lock, the oldest kfp's, the build's and one for each image, in that order.

    Raises:
        LockError: If pyproject.toml lacks an extra or the dependency group `dev`.
    """
    project = pyproject["project"]
    groups: Mapping[str, list[str]] = pyproject.get("dependency-groups", {})
    if "dev" not in groups:
        raise LockError(
            "pyproject.toml has no dependency group 'dev'; list the development tools in [dependency-groups]"
        )
    # KFP's executor runs inside the images, so kfp belongs there; the rest of the `pipelines` extra does not.
    kfp = [text for text in expand_extra(project, "pipelines") if Requirement(text).name == "kfp"]
    return [
        Lock(
            "requirements.lock",
            ANY_MACHINE_HEADER.format(what="Development, tests and CI: the `all` extra and the `dev` group"),
            (*expand_extra(project, "all"), *groups["dev"]),
            any_machine=True,
            apart=(
                "requirements-cuda.lock",
                ANY_MACHINE_HEADER.format(what="The CUDA libraries that torch's build for Linux asks for"),
            ),
        ),
        Lock(
            ".ci/oldest-kfp.lock",
            ANY_MACHINE_HEADER.format(what="The oldest SDK of Kubeflow Pipelines that is supported, for CI"),
            OLDEST_KFP,
            any_machine=True,
            own_versions=True,
        ),
        Lock(
            "images/build.lock",
            HASHED_HEADER.format(what="What builds Driftline's wheel inside an image build"),
            tuple(pyproject["build-system"]["requires"]),
        ),
        Lock(
            "images/embed/requirements.lock",
            HASHED_HEADER.format(what="The embed image: the `serving` extra and kfp, with torch's CUDA build"),
            (*expand_extra(project, "serving"), *kfp),
        ),
        Lock(
            "images/kernels/requirements.lock",
            HASHED_HEADER.format(what="The kernels image: the `gpu` extra and kfp, with JAX's CUDA 12 build"),
            (*expand_extra(project, "gpu"), *kfp),
        ),
    ]


def read_pins(text: str) -> list[str]:
    """Lists a lock's `name==version` parts, without hashes and comments."""
    lines = (line.strip() for line in text.splitlines())
    return [line.removesuffix("\\").strip() for line in lines if line and line[0].isalnum()]


def hold(pins: Sequence[str]) -> list[str]:
    """Keeps the first pin of each package, so that what is named earlier binds."""
    first: dict[str, str] = {}
    for pin in pins:
        first.setdefault(canonicalize_name(pin.partition("==")[0]), pin)
    return list(first.values())


def pip_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which pip sees one index and no configuration file."""
    kept = {name: value for name, value in environment.items() if name not in DROPPED_SETTINGS}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def run_pip(options: Sequence[str], requirements: Sequence[str], constraints: Sequence[str]) -> list[Locked]:
    """Asks pip what it would install; installs nothing.

    Args:
        options: Further options of `pip install`.
        requirements: What to install.
        constraints: Versions to hold to.

    Returns:
        The chosen packages, by name.

    Raises:
        LockError: If pip finds no solution.
    """
    with tempfile.TemporaryDirectory(prefix="driftline-lock-") as folder:
        wanted, held, report = (Path(folder, name) for name in ("wanted.txt", "held.txt", "report.json"))
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        held.write_text("\n".join(constraints), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-input",
        ]
        command += ["--target", str(Path(folder, "nothing")), "--report", str(report), *options]
        command += ["--requirement", str(wanted), "--constraint", str(held)]
        if subprocess.run(command, env=pip_environment(os.environ), check=False).returncode != 0:
            raise LockError("pip found no solution (its message is above); try `make lock UPGRADE=1`")
        chosen = json.loads(report.read_text(encoding="utf-8"))["install"]
    found: list[Locked] = []
    for item in chosen:
        sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
        found.append(Locked(str(canonicalize_name(item["metadata"]["name"])), item["metadata"]["version"], (sha256,)))
    return sorted(found, key=lambda package: package.name)


def resolve(lock: Lock, constraints: Sequence[str]) -> list[Locked]:
    """Resolves a lock's requirements to packages with the hashes of the files that may be installed.

    Args:
        lock: The lock to make.
        constraints: Versions to hold to.

    Returns:
        The chosen packages, by name.

    Raises:
        LockError: If pip finds no solution, or the index does not tell a version's files.
    """
    packages = run_pip([], lock.requirements, constraints)
    if lock.any_machine:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(with_all_hashes, packages))
    # Versions first, then files: this machine may take a wheel for a later glibc than a base image has, and
    # for a named platform, with some packages as source, pip wants --no-deps.
    options = ["--no-deps", "--python-version", "3.11", "--implementation", "cp"]
    for name in PLATFORMS:
        options += ["--platform", name]
    return run_pip(options, [f"{one.name}=={one.version}" for one in packages], [])


def with_all_hashes(package: Locked) -> Locked:
    """Returns a package with the hashes of each of its version's files that some machine's CPython 3.11 can use.

    Raises:
        LockError: If the index does not list the file that pip chose.
    """
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    request = Request(f"{index}/{package.name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    hashes = {file["hashes"]["sha256"] for file in files if is_usable(file["filename"], package.version)}
    if not hashes.issuperset(package.hashes):
        raise LockError(f"{package.name} {package.version}: {index} does not list the file that pip chose")
    return replace(package, hashes=tuple(sorted(hashes)))


def is_usable(filename: str, version: str) -> bool:
    """Says whether a file is of a version, and source or a wheel that CPython 3.11 takes on Linux or macOS."""
    try:
        if filename.endswith(".whl"):
            _, found, _, tags = parse_wheel_filename(filename)
            return found == Version(version) and any(map(runs, tags))
        return parse_sdist_filename(filename)[1] == Version(version)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return False


def runs(tag: Tag) -> bool:
    """Says whether CPython 3.11 takes wheels of a tag on Linux with glibc (x86-64, ARM) or on macOS."""
    stable = tag.abi == "abi3" and tag.interpreter in {f"cp3{minor}" for minor in range(2, 12)}
    python = stable or tag.interpreter in {"py3", "cp311", "py311"}
    linux = tag.platform.startswith(("manylinux", "linux")) and tag.platform.endswith(("x86_64", "aarch64"))
    return python and (tag.platform == "any" or linux or tag.platform.startswith("macosx"))


def render(header: str, packages: Sequence[Locked]) -> str:
    """Writes a lock's text: a package, then a line for each of its hashes."""
    return header + "".join(
        " \\\n    --hash=sha256:".join((f"{one.name}=={one.version}", *one.hashes)) + "\n" for one in packages
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the locks; the command's entry point.

    Args:
        arguments: The command line, or None for the process's own.

    Returns:
        The exit status: 0 when every lock was written, 1 when one could not be made.
    """
    parser = argparse.ArgumentParser(description="Make the locks from pyproject.toml.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions, not those of the locks")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if sys.version_info[:2] != (3, 11) or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise LockError(
                "run this with Python 3.11 on Linux x86-64: pip reads the markers of requirements as of here"
            )
        locks = plan(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
        tested: list[str] = []
        for lock in locks:
            path = ROOT / lock.path
            kept = read_pins(path.read_text(encoding="utf-8")) if path.exists() and not options.upgrade else []
            bound = [] if lock.own_versions else [*PINS, *tested]
            packages = resolve(lock, hold([*bound, *kept]))
            texts = {path: render(lock.header, packages)}
            if lock.apart is not None:
                second, header = lock.apart
                cuda = [package for package in packages if package.name.startswith(CUDA_PREFIXES)]
                rest = [package for package in packages if package not in cuda]
                texts = {path: render(lock.header, rest), ROOT / second: render(header, cuda)}
            # The images run the versions that the tests ran: the root lock comes first and binds the others.
            tested = tested or read_pins(texts[path])
            for place, text in texts.items():
                place.write_text(text, encoding="utf-8")
                LOG.info("%s: %d packages", place.relative_to(ROOT), len(read_pins(text)))
    except LockError as error:
        LOG.error("lock: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
