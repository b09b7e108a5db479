"""The images themselves, built with buildah: their steps, and the streaming side as the manifests start it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline.components import images
from driftline.components.embedding.encoding.encoder import Encoder
from tests.images.containers import ROOT, Container, built
from tests.manifests.objects import BASE, build, environment, pod_of
from tests.support import brokers

pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]

TEXTS = ["An honest film, and a long one.", "A dog that talks.", "Rain."]
MODEL = "/models/demo"


@pytest.fixture(scope="module")
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    with built(request.param) as made:
        yield made


every_image = pytest.mark.parametrize("container", sorted(images.BY_NAME), indirect=True)
embed = pytest.mark.parametrize("container", ["embed"], indirect=True)


def step_modules(image: str) -> list[str]:
    """The modules that the image's components import when they run."""
    components = (ROOT / "components").glob("*/component.py")
    mine = [path for path in components if f"base_image={image.upper()}" in path.read_text(encoding="utf-8")]
    return sorted(f"driftline.components.{path.parent.name}.step" for path in mine)


@every_image
class TestEveryImage:
    def test_it_runs_its_steps_as_an_ordinary_user(self, container: Container) -> None:
        modules = step_modules(container.image)
        assert modules
        program = (
            "import importlib, importlib.metadata as metadata, json, os, pathlib, kfp.dsl.executor_main\n"
            f"for module in {modules!r}: importlib.import_module(module)\n"
            "pathlib.Path.home().joinpath('written').write_text('yes')\n"
            "print(json.dumps([os.getuid(), os.access('/opt/venv', os.W_OK), metadata.version('driftline')]))"
        )
        done = container.python("-c", program)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == [10001, False, images.VERSION]

    def test_it_can_install_nothing(self, container: Container) -> None:
        assert "No module named pip" in container.python("-m", "pip").stderr

    def test_it_writes_nowhere_but_where_the_manifests_mount_volumes(self, container: Container) -> None:
        program = (
            "import os\n"
            "for folder, names, _ in os.walk('/'):\n"
            "    names[:] = [name for name in names if not os.path.ismount(os.path.join(folder, name))]\n"
            "    if os.access(folder, os.W_OK): print(folder); names.clear()\n"
        )
        done = container.python("-c", program)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) - {"/var/tmp", "/run/lock"} == {"/home/driftline", "/tmp"}


@embed
class TestEmbedImage:
    """The commands, as the pods run them: with the manifests' arguments and environment, on CPU, at a broker of ours."""

    @pytest.fixture(scope="class")
    def broker(self) -> Iterator[str]:
        with brokers.noida_broker() as address:
            yield address

    @pytest.mark.parametrize("command", ["", "serve", "stream", "archive", "monitor", "dead-letters"])
    def test_its_commands_say_what_they_take(self, container: Container, command: str) -> None:
        done = container.python("-m", "driftline.serving", *command.split(), "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage: driftline " + command in done.stdout
