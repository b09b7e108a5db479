"""Make the environment of the peers: `python tests/bench/peers/install.py`.

A virtual environment with what `peers-requirements.txt` pins, in the folder `.venv-peers` at the root, some 2 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
FOLDER = BENCH.parents[1] / ".venv-peers"


def main() -> None:
    """Create the environment, or bring it to the pinned versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*install, "--requirement", BENCH / "peers-requirements.txt"], check=True)
    print(folder)


if __name__ == "__main__":
    main()
