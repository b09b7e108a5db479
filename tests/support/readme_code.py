"""The Python in a README, made into a module, so that what a reader copies is what was tried."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

from kfp.dsl.graph_component import GraphComponent


def blocks(readme: Path) -> list[str]:
    """Return the blocks of Python in a README."""
    return re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run_blocks(readme: Path, folder: Path) -> dict[str, Any]:
    """Run a README's blocks one after the other, as one script, and return its names.

    KFP reads the components' source, so that it has to lie in a file.
    """
    script = folder / "readme.py"
    script.write_text("\n".join(blocks(readme)), encoding="utf-8")
    return runpy.run_path(str(script))


def pipelines(names: dict[str, Any]) -> dict[str, GraphComponent]:
    """Return the pipelines among a script's names."""
    return {name: value for name, value in names.items() if isinstance(value, GraphComponent)}
