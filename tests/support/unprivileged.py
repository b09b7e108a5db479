"""A folder that is closed to whoever runs the tests, root too."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_NOBODY = 65534


@contextmanager
def closed_folder() -> Generator[Path]:
    """Give a folder that nothing can be written into; root, to whom nothing is closed, is nobody meanwhile."""
    with TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        closed = Path(parent) / "closed"
        closed.mkdir(mode=0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(_NOBODY)
        try:
            yield closed
        finally:
            if root:
                os.seteuid(0)
        assert list(closed.iterdir()) == []
