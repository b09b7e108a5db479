"""The images' build: what the Dockerfiles hold, and what build.sh asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from driftline.components import images

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION: str = PYPROJECT["project"]["version"]
NAMES = ("embed", "kernels")

Instruction = tuple[str, str]
"""A Dockerfile's instruction: its keyword in capitals, and the rest on one line."""


def stages(name: str) -> list[list[Instruction]]:
    """An image's instructions by stage; those before the first FROM come first."""
    text = (ROOT / "images" / name / "Dockerfile").read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[list[Instruction]] = [[]]
    for line in re.sub(r"\\\n\s*", " ", kept).splitlines():
        if not line.strip():
            continue
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            found.append([])
        found[-1].append((keyword.upper(), rest))
    return found


def commands(name: str) -> list[str]:
    """Every shell command of an image's RUN instructions."""
    runs = [rest for stage in stages(name) for keyword, rest in stage if keyword == "RUN"]
    return [command.strip(" {};") for run in runs for command in re.split(r"&&|\|\|", run)]


def test_there_is_a_dockerfile_for_each_image_that_the_components_name() -> None:
    folders = {path.parent.name for path in (ROOT / "images").glob("*/Dockerfile")}
    assert folders == set(NAMES) == set(images.DEFAULTS)


@pytest.mark.parametrize("name", NAMES)
class TestDockerfile:
    def test_the_last_stage_runs_as_a_numbered_user_that_is_not_root(self, name: str) -> None:
        last = stages(name)[-1]
        assert last[-1][0] == "USER", "nothing may run as root after USER"
        assert [rest for keyword, rest in last if keyword == "USER"] == ["10001:10001"]

    def test_every_installation_is_hash_checked_or_of_our_own_wheel(self, name: str) -> None:
        installs = [command for command in commands(name) if re.search(r"pip\b.*\binstall\b", command)]
        checked = [command for command in installs if "--require-hashes" in command]
        ours = [
            command for command in installs if "--no-deps --no-index" in command and command.endswith("/dist/*.whl")
        ]
        assert len(checked) == 3
        assert len(ours) == 1
        assert len(installs) == len(checked) + len(ours)
        assert all("-r /locks/" in command and "--no-deps" in command for command in checked)

    def test_source_archives_are_built_by_the_locked_setuptools_alone(self, name: str) -> None:
        builds = [command for command in commands(name) if re.search(r"pip\b.* wheel |requirements\.lock$", command)]
        builds = [command for command in builds if not command.startswith("grep")]
        assert len(builds) == 2
        assert all("--no-build-isolation" in command for command in builds)

    def test_nothing_is_fetched_but_by_pip(self, name: str) -> None:
        assert "ADD" not in [keyword for stage in stages(name) for keyword, _ in stage]
        assert not re.search(r"https?:|\b(curl|wget|git|apt-get)\b", "\n".join(commands(name)))

    def test_stages_start_from_the_base_which_has_a_version(self, name: str) -> None:
        (_, base), *_ = stages(name)[0]
        assert re.fullmatch(r"BASE=python:3\.11-slim", base)
        starts = [rest.split()[0] for stage in stages(name) for keyword, rest in stage if keyword == "FROM"]
        assert starts == ["${BASE}", "dependencies", "${BASE}"]

    def test_the_last_stage_leaves_the_command_to_kubeflow(self, name: str) -> None:
        assert not {"ENTRYPOINT", "CMD"} & {keyword for keyword, _ in stages(name)[-1]}

    def test_labels_and_environment(self, name: str) -> None:
        last = dict(stages(name)[-1])
        assert f'org.opencontainers.image.title="driftline/{name}"' in last["LABEL"]
        assert 'org.opencontainers.image.version="${VERSION}"' in last["LABEL"]
        assert f'org.opencontainers.image.licenses="{PYPROJECT["project"]["license"]}"' in last["LABEL"]
        settings = last["ENV"].split()
        assert {"PYTHONSAFEPATH=1", "PYTHONUNBUFFERED=1", "HOME=/home/driftline"} <= set(settings)

    def test_it_takes_its_own_lock(self, name: str) -> None:
        (copied,) = [rest for keyword, rest in stages(name)[1] if keyword == "COPY"]
        assert copied == f"images/build.lock images/{name}/requirements.lock /locks/"


def test_the_build_context_holds_what_the_wheel_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    needed = {folder.split("/")[0] for folder in PYPROJECT["tool"]["setuptools"]["package-dir"].values()}
    needed |= {"pyproject.toml", PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"]}
    assert rules[0] == "*"
    assert {f"!{path}" for path in needed} <= set(rules)


def test_compiled_pipelines_name_the_tags_that_the_build_makes() -> None:
    assert {name: f"driftline/{name}:{VERSION}" for name in NAMES} == images.DEFAULTS


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with what build.sh calls, and a docker that writes down its arguments in `calls`."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for tool in ("sh", "sed", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    docker = folder / "docker"
    docker.write_text(f'#!{folder}/sh\nprintf "%s\\n" "$*" >> "{tmp_path}/calls"\n', encoding="utf-8")
    docker.chmod(0o755)
    return folder


def run_build(tools: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tools / "sh"), str(ROOT / "images" / "build.sh")], env={"PATH": str(tools), **settings},
        cwd=tools, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


class TestBuildScript:
    def test_it_builds_both_images_at_the_version_of_pyproject(self, tools: Path, tmp_path: Path) -> None:
        done = run_build(tools)
        assert done.returncode == 0, done.stderr
        asked, *builds = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
        assert asked == "info"
        assert builds == [
            f"build --platform linux/amd64 --file images/{name}/Dockerfile --tag driftline/{name}:{VERSION} "
            f"--build-arg VERSION={VERSION} ."
            for name in NAMES
        ]

    def test_registry_base_and_flags_are_passed_on(self, tools: Path, tmp_path: Path) -> None:
        done = run_build(
            tools, REGISTRY="registry.example.com/ml/", BASE="debian:12", IMAGES="kernels", BUILD_FLAGS="--no-cache -q",
            BUILDER="docker",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (call,) = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
        assert f"--tag registry.example.com/ml/driftline/kernels:{VERSION} " in call
        assert call.endswith("--build-arg BASE=debian:12 --no-cache -q .")
        assert done.stdout == f"built registry.example.com/ml/driftline/kernels:{VERSION}\n"

    def test_an_unknown_image_is_refused_before_anything_is_built(self, tools: Path, tmp_path: Path) -> None:
        done = run_build(tools, IMAGES="kernels nosuch", BUILDER="docker")
        assert done.returncode == 1
        assert "'nosuch'" in done.stderr
        assert not (tmp_path / "calls").exists()

    def test_no_builder_at_all_is_said(self, tools: Path) -> None:
        (tools / "docker").unlink()
        done = run_build(tools)
        assert done.returncode == 1
        assert "neither a running docker, nor podman, nor buildah" in done.stderr

    def test_a_failed_build_fails_the_script(self, tools: Path) -> None:
        (tools / "docker").write_text(f'#!{tools}/sh\n[ "$1" = info ]\n', encoding="utf-8")
        done = run_build(tools)
        assert done.returncode == 1
        assert "built" not in done.stdout
