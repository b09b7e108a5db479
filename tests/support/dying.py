"""Processes that kill themselves at a chosen change of a store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from driftline.components.storage.objects import gcs, local

_WRITES = ("create", "remove", "remove_tree")


def die_at(operation: int) -> None:
    """Kill this process just before or just after its n-th change of a store, by turns."""
    done = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return _Dying(result, count) if hasattr(result, "__enter__") else count(result)

        return wrapped

    def count(result: Any = None) -> Any:
        nonlocal done
        done += 1
        if done == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    for store in (local.LocalStore, gcs.GcsStore):
        for name in _WRITES:
            setattr(store, name, counted(getattr(store, name)))


class _Dying:
    """A file being created: counts before it becomes visible, and after."""

    def __init__(self, inner: Any, count: Callable[[], Any]) -> None:
        self._inner = inner
        self._count = count

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        self._count()
        result = self._inner.__exit__(*error)
        self._count()
        return result
