"""Makes the locks again: `requirements.lock`, `images/build.lock` and each image's `requirements.lock`.

Run it as `make lock`, on Linux x86-64 with Python 3.11. It reads `pyproject.toml` (the extras, the `dev`
dependency group and the build's requirements), lets pip resolve them against PyPI without installing
anything, and writes what pip chose.

* The images' locks hold one SHA-256 a package: that of the wheel for CPython 3.11 on Linux x86-64 with
  glibc 2.28 or later or, for the few that PyPI has no wheel of, of the source archive.
* The root lock holds versions alone, and leaves torch's CUDA libraries out (see `CUDA_PREFIXES`).

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOG = logging.getLogger("lock")

# Held at one version, whatever newer one PyPI has.
PINS = (
    "torch==2.13.0",  # development, CI and the embed image run one torch, so that vectors agree between them
    "kfp==2.17.0",  # what compiles the pipelines also runs their steps
)

# torch's CUDA build asks for these; its CPU build does not. One root lock serves both, so they are left out
# of it, and on a machine where pip picks the CUDA build its own metadata pins them.
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")

# pip picks the first of these that a package has; each runs on glibc 2.28 or later (Debian 10, RHEL 8).
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)

# What pip would add to PyPI; a name dropped here cannot end in a lock.
DROPPED_SETTINGS = (
    "PIP_FIND_LINKS",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_CONSTRAINT",
    "PIP_REQUIREMENT",
    "PIP_PRE",
)

ROOT_HEADER = """\
# The versions for development, tests and CI: the `all` extra and the `dev` group of pyproject.toml,
# for Python 3.11 on Linux x86-64. Made by `make lock` (images/lock.py); do not edit.
#
# There are no hashes here, because torch's CPU and CUDA builds differ by machine: where pip finds
# the CUDA build, torch's own metadata pins the CUDA libraries, which are left out below.
# The images' locks, in images/, do hold hashes.
"""

HASHED_HEADER = """\
# {what}, for Python 3.11 on Linux x86-64.
# Made by `make lock` (images/lock.py); do not edit. Install with `pip install --require-hashes`.
"""


class LockError(Exception):
    """A lock cannot be made; the message is for the person who asked for it."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package as pip chose it: its normalised name, version, and its file's SHA-256 in hexadecimal."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock to make: its file from the repository's root, its header, what it starts from, its form."""

    path: str
    header: str
    requirements: tuple[str, ...]
    hashed: bool


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
        The root lock, the build's and one for each image, in that order.

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
        Lock("requirements.lock", ROOT_HEADER, (*expand_extra(project, "all"), *groups["dev"]), hashed=False),
        Lock(
            "images/build.lock",
            HASHED_HEADER.format(what="What builds Driftline's wheel inside an image build"),
            tuple(pyproject["build-system"]["requires"]),
            hashed=True,
        ),
        Lock(
            "images/embed/requirements.lock",
            HASHED_HEADER.format(what="The embed image: the `serving` extra and kfp, with torch's CUDA build"),
            (*expand_extra(project, "serving"), *kfp),
            hashed=True,
        ),
        Lock(
            "images/kernels/requirements.lock",
            HASHED_HEADER.format(what="The kernels image: the `gpu` extra and kfp, with JAX's CUDA 12 build"),
            (*expand_extra(project, "gpu"), *kfp),
            hashed=True,
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
        found.append(Locked(str(canonicalize_name(item["metadata"]["name"])), item["metadata"]["version"], sha256))
    return sorted(found, key=lambda package: package.name)


def resolve(lock: Lock, constraints: Sequence[str]) -> list[Locked]:
    """Resolves a lock's requirements to packages and, where it holds hashes, to the images' files.

    Args:
        lock: The lock to make.
        constraints: Versions to hold to.

    Returns:
        The chosen packages, by name. Without `hashed`, their SHA-256 is that of this machine's files.

    Raises:
        LockError: If pip finds no solution.
    """
    packages = run_pip([], lock.requirements, constraints)
    if not lock.hashed:
        return packages
    # Versions first, then files: this machine may take a wheel for a later glibc than a base image has, and
    # for a named platform, with some packages as source, pip wants --no-deps.
    options = ["--no-deps", "--python-version", "3.11", "--implementation", "cp"]
    for name in PLATFORMS:
        options += ["--platform", name]
    return run_pip(options, [f"{one.name}=={one.version}" for one in packages], [])


def render(header: str, packages: Sequence[Locked], *, hashed: bool) -> str:
    """Writes a lock's text, one package a line or, with hashes, two."""
    if hashed:
        body = [f"{one.name}=={one.version} \\\n    --hash=sha256:{one.sha256}\n" for one in packages]
    else:
        body = [f"{one.name}=={one.version}\n" for one in packages if not one.name.startswith(CUDA_PREFIXES)]
    return header + "".join(body)


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
            packages = resolve(lock, hold([*PINS, *tested, *kept]))
            text = render(lock.header, packages, hashed=lock.hashed)
            # The images run the versions that the tests ran: the root lock comes first and binds the others.
            tested = tested or read_pins(text)
            path.write_text(text, encoding="utf-8")
            LOG.info("%s: %d packages", lock.path, len(read_pins(text)))
    except LockError as error:
        LOG.error("lock: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
