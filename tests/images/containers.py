"""Images built with buildah, and containers of them in which commands run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftline.components import images

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "localhost/test"

# Runs a command to its end, or until standard input ends, and then tells it to; ends with its status.
RUNNER = """
import os, subprocess, sys, threading
worker = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (os.read(0, 1), worker.terminate()), daemon=True).start()
sys.exit(worker.wait())
"""


@dataclass(frozen=True)
class Container:
    """A container of one of the images.

    Attributes:
        image: the image's short name.
        name: what buildah calls the container.
    """

    image: str
    name: str

    def command(
        self, arguments: Sequence[str], environment: Mapping[str, str], volumes: Mapping[Path, str]
    ) -> list[str]:
        """The command line that runs Python in the container, on the machine's own network."""
        settings = [f"--env={name}={value}" for name, value in environment.items()]
        mounts = [f"--volume={here}:{there}" for here, there in volumes.items()]
        return ["buildah", "run", "--network", "host", *settings, *mounts, self.name, "--", "python3", *arguments]

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the container, to its end."""
        return subprocess.run(self.command(arguments, {}, {}), capture_output=True, text=True, timeout=600, check=False)

    @contextmanager
    def running(
        self, arguments: Sequence[str], environment: Mapping[str, str], volumes: Mapping[Path, str]
    ) -> Generator[subprocess.Popen[bytes]]:
        """Run Python in the container for as long as the block lasts, and then tell it to end with SIGTERM.

        Yields:
            The process; once the block has ended, its status is the command's.
        """
        command = self.command(["-c", RUNNER, *arguments], environment, volumes)
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=180)
            finally:
                process.kill()


@contextmanager
def built(image: str) -> Generator[Container]:
    """Build an image with buildah, and remove it after.

    `BASE` and `BUILD_FLAGS` are read by images/build.sh, `BUILDAH_ISOLATION` by buildah.
    """
    settings = {"BUILDER": "buildah", "IMAGES": image, "REGISTRY": REGISTRY}
    subprocess.run(["sh", str(ROOT / "images" / "build.sh")], env={**os.environ, **settings}, check=True)
    tag = f"{REGISTRY}/{images.DEFAULTS[image]}"
    try:
        made = subprocess.run(["buildah", "from", tag], capture_output=True, text=True, check=True)
        container = Container(image, made.stdout.strip())
        try:
            yield container
        finally:
            subprocess.run(["buildah", "rm", container.name], check=True)
    finally:
        subprocess.run(["buildah", "rmi", tag], check=True)
