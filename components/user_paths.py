"""Where the `driftline` command keeps what it remembers between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$DRIFTLINE_CACHE`, or else `driftline` below the user's cache folder; it may not exist yet."""
    own = os.environ.get("DRIFTLINE_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "driftline"


def user_tunings() -> str:
    """Return the file in which `driftline bench encode` remembers what it measured."""
    return str(cache_folder() / "encoder-tunings.json")


def model_folder() -> str:
    """Return the folder in which models from gs:// are kept."""
    return str(cache_folder() / "models")
