"""The locks: complete, free of this or that machine's settings, and within what pyproject.toml admits."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
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
ONE_FILE_LOCKS = ("images/build.lock", *IMAGE_LOCKS)
CUDA_LOCK = "requirements-cuda.lock"
OLDEST_KFP_LOCK = ".ci/oldest-kfp.lock"
ANY_MACHINE_LOCKS = (ROOT_LOCK, CUDA_LOCK, OLDEST_KFP_LOCK, ".ci/kubectl.lock")

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


@pytest.mark.parametrize("path", [*ONE_FILE_LOCKS, *ANY_MACHINE_LOCKS])
def test_every_package_has_its_hashes_and_nothing_else_is_in_a_lock(path: str) -> None:
    body = re.sub(r"\A(#[^\n]*\n)+", "", text_of(path))
    files = r"(?: \\\n    --hash=sha256:[0-9a-f]{64})" + ("" if path in ONE_FILE_LOCKS else "+")
    assert re.fullmatch(rf"(?:{PIN}{files}\n)+", body)


def test_the_cuda_libraries_are_apart_from_what_every_machine_needs() -> None:
    everywhere, cuda = versions(ROOT_LOCK), versions(CUDA_LOCK)
    assert everywhere["torch"] == "2.13.0"
    assert not [name for name in everywhere if re.match(r"nvidia|cuda|triton|jax-cuda", name)]
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "triton"} <= cuda.keys()
    assert all(re.match(r"nvidia|cuda|triton", name) for name in cuda)


def test_the_graph_layout_of_kubeflows_ui_is_locked_by_digest_and_names_no_place() -> None:
    locked = json.loads(text_of(".ci/dagre/package-lock.json"))["packages"]
    modules = {name: found for name, found in locked.items() if name}
    assert {"node_modules/dagre", "node_modules/graphlib"} <= modules.keys()
    assert all(found["integrity"].startswith("sha512-") and "resolved" not in found for found in modules.values())


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


@pytest.mark.parametrize("path", [ROOT_LOCK, OLDEST_KFP_LOCK, *ONE_FILE_LOCKS])
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
    locked = versions(path) | (versions(CUDA_LOCK) if path == ROOT_LOCK else {})
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

    def test_a_lock_reads_back_as_it_was_written(self) -> None:
        packages = [
            lock_script.Locked("alpha", "1.0", ("0" * 64,)),
            lock_script.Locked("beta-two", "2", ("1" * 64, "2" * 64)),
        ]
        text = lock_script.render("# a header == of ours\n", packages)
        assert text.startswith("# a header")
        assert lock_script.read_pins(text) == ["alpha==1.0", "beta-two==2"]
        assert text.count("--hash=sha256:") == 3

    @pytest.mark.parametrize(
        ("name", "usable"),
        [
            ("a-1.0-py3-none-any.whl", True),
            ("a-1.0-py2.py3-none-any.whl", True),
            ("a-1.0.tar.gz", True),
            ("a-1.0-cp311-cp311-manylinux_2_28_aarch64.whl", True),
            ("a-1.0-cp38-abi3-manylinux2014_x86_64.whl", True),
            ("a-1.0-cp311-cp311-macosx_11_0_arm64.whl", True),
            ("a-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", False),
            ("a-1.0-cp312-abi3-manylinux_2_28_x86_64.whl", False),
            ("a-1.0-cp311-cp311-win_amd64.whl", False),
            ("a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", False),
            ("a-1.0.1-py3-none-any.whl", False),
            ("a-1.0.win32.exe", False),
        ],
    )
    def test_a_file_is_locked_where_some_machine_can_use_it(self, name: str, usable: bool) -> None:
        assert lock_script.is_usable(name, "1.0") is usable
