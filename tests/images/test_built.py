"""The images themselves, built with buildah: their steps, and the streaming side as the manifests start it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.components import images
from tests.images.containers import ROOT, Container, built
from tests.manifests import trials
from tests.manifests.objects import BASE, Object, build
from tests.manifests.trials import TEXTS, await_ready, trial
from tests.support import brokers

pytestmark = [pytest.mark.images, pytest.mark.timeout(3600)]

MODEL = "/models/demo"


@pytest.fixture(scope="module")
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    with built(request.param) as made:
        yield made


every_image = pytest.mark.parametrize("container", sorted(images.DEFAULTS), indirect=True)
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


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return build(BASE)


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with trials.readme_broker() as address:
        yield address


@embed
class TestEmbedImage:
    """The streaming side's commands with the manifests' arguments, environment and probes, on a CPU."""

    @pytest.mark.parametrize("command", ["", "serve", "stream", "archive", "monitor", "dead-letters"])
    def test_its_commands_say_what_they_take(self, container: Container, command: str) -> None:
        done = container.python("-m", "driftline.serving", *command.split(), "--help")
        assert done.returncode == 0, done.stderr
        assert f"Usage: driftline {command}".strip() in done.stdout

    def test_the_server(self, container: Container, objects: list[Object], broker: str, model_folder: Path) -> None:
        one = trial(objects, "serve", BOOTSTRAP_SERVERS=broker, MODEL=f"embed={MODEL}")
        with container.running(one.arguments, one.environment, {model_folder: MODEL}) as process:
            await_ready(process, one)
            trials.send_events(one, objects, TEXTS)
            seen = trials.embedded(broker, TEXTS)
        assert process.returncode == 0
        trials.assert_vectors_of(model_folder, seen)

    def test_the_stream_worker(
        self, container: Container, objects: list[Object], broker: str, model_folder: Path
    ) -> None:
        texts = {f"streamed-{key}": text for key, text in TEXTS.items()}
        one = trial(objects, "stream", BOOTSTRAP_SERVERS=broker, MODEL=MODEL)
        with container.running(one.arguments, one.environment, {model_folder: MODEL}) as process:
            await_ready(process, one)
            trials.send_texts(broker, texts)
            seen = trials.embedded(broker, texts)
        assert process.returncode == 0
        trials.assert_vectors_of(model_folder, seen)

    def test_the_archive(self, container: Container, objects: list[Object], broker: str, tmp_path: Path) -> None:
        texts = {f"archived-{key}": text for key, text in TEXTS.items()}
        tmp_path.chmod(0o777)  # a volume that the image's user may write to
        one = trial(objects, "archive", BOOTSTRAP_SERVERS=broker, OUT="/archive", MAX_DELAY_S="0.1")
        arguments = [*one.arguments, "--index-dir=/tmp/index"]
        with container.running(arguments, one.environment, {tmp_path: "/archive"}) as process:
            await_ready(process, one)
            trials.send_embeddings(broker, texts)
            brokers.eventually(lambda: trials.archived(tmp_path).items() >= texts.items())
        assert process.returncode == 0

    def test_the_monitor(self, container: Container, objects: list[Object], broker: str, tmp_path: Path) -> None:
        trials.write_reference(tmp_path / "reference")
        tmp_path.chmod(0o777)
        places = {"REFERENCE": "/places/reference", "STATE": "/places/state"}
        one = trial(objects, "monitor", BOOTSTRAP_SERVERS=broker, **trials.QUICK_MONITOR, **places)
        with container.running(one.arguments, one.environment, {tmp_path: "/places"}) as process:
            await_ready(process, one)
        assert process.returncode == 0
