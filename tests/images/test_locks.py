"""The locks: complete, free of this or that machine's settings, and within what pyproject.toml admits."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOT_LOCK = "requirements.lock"
IMAGE_LOCKS = ("images/embed/requirements.lock", "images/kernels/requirements.lock")
HASHED_LOCKS = ("images/build.lock", *IMAGE_LOCKS)

PIN = r"[a-z0-9]+(?:-[a-z0-9]+)*==[0-9][0-9a-z.!]*"


def load_lock_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("images_lock", ROOT / "images" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


lock_script = load_lock_script()


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def versions(path: str) -> dict[str, str]:
    """Each locked package's version, read without the help of images/lock.py."""
    found: dict[str, str] = {}
    for line in text_of(path).splitlines():
        if re.match(PIN, line):
            name, _, version = line.removesuffix(" \\").partition("==")
            assert name not in found, f"{path} locks {name} twice"
            found[name] = version
    return found


@pytest.mark.parametrize("path", HASHED_LOCKS)
def test_every_package_of_an_image_has_a_hash_and_nothing_else_is_in_its_lock(path: str) -> None:
    body = re.sub(r"\A(#[^\n]*\n)+", "", text_of(path))
    assert re.fullmatch(rf"(?:{PIN} \\\n    --hash=sha256:[0-9a-f]{{64}}\n)+", body)


def test_the_root_lock_is_a_list_of_versions() -> None:
    text = text_of(ROOT_LOCK)
    body = re.sub(r"\A(#[^\n]*\n)+", "", text)
    assert re.fullmatch(rf"(?:{PIN}\n)+", body)
    assert "no hashes" in text
    assert "`make lock`" in text


def test_the_root_lock_leaves_the_cuda_libraries_to_torch() -> None:
    locked = versions(ROOT_LOCK)
    assert locked["torch"] == "2.13.0"
    assert not [name for name in locked if re.match(r"nvidia|cuda|triton|jax-cuda", name)]


@pytest.mark.parametrize(
    ("path", "present", "absent"),
    [
        (
            "images/embed/requirements.lock",
            {"torch", "nvidia-cudnn-cu13", "kserve", "kfp"},
            {"jax-cuda12-plugin", "pytest"},
        ),
        ("images/kernels/requirements.lock", {"jax-cuda12-plugin", "nvidia-cudnn-cu12", "kfp"}, {"torch", "pytest"}),
    ],
)
def test_an_image_locks_its_gpu_build_and_no_other(path: str, present: set[str], absent: set[str]) -> None:
    locked = set(versions(path))
    assert present <= locked
    assert not absent & locked


@pytest.mark.parametrize("path", [ROOT_LOCK, *HASHED_LOCKS])
def test_what_pyproject_asks_for_is_locked_at_a_version_it_admits(path: str) -> None:
    locked = versions(path)
    (lock,) = [lock for lock in lock_script.plan(PYPROJECT) if lock.path == path]
    asked = [Requirement(text) for text in lock.requirements]
    found = {one: locked.get(canonicalize_name(one.name)) for one in asked}
    assert found
    assert [f"{one}: {version}" for one, version in found.items() if version is None] == []
    assert [f"{one}: {version}" for one, version in found.items() if not one.specifier.contains(str(version))] == []


@pytest.mark.parametrize("path", IMAGE_LOCKS)
def test_the_images_run_the_versions_that_the_tests_run(path: str) -> None:
    tested, image = versions(ROOT_LOCK), versions(path)
    shared = tested.keys() & image.keys()
    assert {"numpy", "kfp", "pyarrow", "google-cloud-storage"} <= shared
    assert {name: image[name] for name in shared} == {name: tested[name] for name in shared}


@pytest.mark.parametrize("path", [ROOT_LOCK, *IMAGE_LOCKS])
def test_what_a_locked_package_requires_is_locked_too(path: str) -> None:
    """Read from the packages installed here, at the locked version."""
    locked = versions(path)
    checked = 0
    wrong: list[str] = []
    for name, version in locked.items():
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Version(package.version).public != version:
            continue
        checked += 1
        for text in package.requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if path == ROOT_LOCK and re.match(r"nvidia|cuda|triton", requirement.name):
                continue
            found = locked.get(canonicalize_name(requirement.name))
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{name} requires {text}; locked: {found}")
    assert wrong == []
    assert checked >= 30


class TestLockScript:
    def test_extras_that_name_extras_are_followed(self) -> None:
        project = {
            "name": "driftline",
            "dependencies": ["numpy>=2"],
            "optional-dependencies": {
                "a": ["alpha>=1", "shared"],
                "b": ["shared", "beta[fast]>=2"],
                "both": ["driftline[a,b]", "last"],
            },
        }
        assert lock_script.expand_extra(project, "both") == [
            "numpy>=2", "alpha>=1", "shared", "beta[fast]>=2", "last",
        ]  # fmt: skip

    def test_an_unknown_extra_is_named(self) -> None:
        project = {"name": "driftline", "dependencies": [], "optional-dependencies": {"a": [], "b": []}}
        with pytest.raises(lock_script.LockError, match=r"no extra 'c' .*a, b"):
            lock_script.expand_extra(project, "c")

    def test_a_missing_group_is_named(self) -> None:
        pyproject = {key: value for key, value in PYPROJECT.items() if key != "dependency-groups"}
        with pytest.raises(lock_script.LockError, match="no dependency group 'dev'"):
            lock_script.plan(pyproject)

    def test_what_pip_would_add_to_the_index_is_dropped_and_the_index_kept(self) -> None:
        environment = {
            "PATH": "bin", "PIP_INDEX_URL": "mirror", "PIP_FIND_LINKS": "wheels", "PIP_EXTRA_INDEX_URL": "more",
            "PIP_CONFIG_FILE": "mine",
        }  # fmt: skip
        seen = lock_script.pip_environment(environment)
        assert seen == {"PATH": "bin", "PIP_INDEX_URL": "mirror", "PIP_CONFIG_FILE": "/dev/null"}

    def test_the_first_pin_of_a_package_binds(self) -> None:
        assert lock_script.hold(["torch==2", "Jinja2==3", "torch==1", "jinja2==2"]) == ["torch==2", "Jinja2==3"]

    @pytest.mark.parametrize("hashed", [True, False])
    def test_a_lock_reads_back_as_it_was_written(self, hashed: bool) -> None:
        packages = [lock_script.Locked("alpha", "1.0", "0" * 64), lock_script.Locked("beta-two", "2", "1" * 64)]
        text = lock_script.render("# a header == of ours\n", packages, hashed=hashed)
        assert text.startswith("# a header")
        assert lock_script.read_pins(text) == ["alpha==1.0", "beta-two==2"]
        assert text.count("--hash=sha256:") == (2 if hashed else 0)

    def test_only_the_lock_without_hashes_leaves_out_cuda(self) -> None:
        packages = [lock_script.Locked(name, "1", "0" * 64) for name in ("nvidia-cublas", "torch", "triton")]
        assert lock_script.read_pins(lock_script.render("", packages, hashed=False)) == ["torch==1"]
        assert len(lock_script.read_pins(lock_script.render("", packages, hashed=True))) == 3
