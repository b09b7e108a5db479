"""The pipeline that was named on a command line, and its parameters: from a file, or already in Kubeflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from driftline.components.errors import UsageError

if TYPE_CHECKING:
    from driftline.components.kubeflow.client import Kubeflow
    from driftline.pipelines.parameters import Parameter
    from driftline.pipelines.uploads import Pinned


class ChosenPipeline:
    """What was named, checked as far as it can be without asking anybody."""

    def __init__(self, named: str, version_name: str, typed: Sequence[str], params_file: str) -> None:
        """Read the files that were named.

        Args:
            named: a file, or a pipeline in Kubeflow.
            version_name: of the latter; empty for its latest.
            typed: NAME=VALUE each.
            params_file: file of parameters; empty for none.

        Raises:
            UsageError: a file cannot be read, or a parameter is not as the file declares it.
            DataError: a file is not what it should be.
        """
        from driftline.pipelines.parameters import read_parameters
        from driftline.pipelines.uploads import names_file, read_pipeline

        self._named, self._version_name = named, version_name
        self._typed = typed
        self._from_file = read_parameters(params_file) if params_file else {}
        self._file = read_pipeline(named) if names_file(named) else None
        if self._file is not None:
            if version_name:
                raise UsageError(f"version {version_name!r}: is for pipelines in Kubeflow; {named} is run as it is")
            self._checked(self._file.parameters)

    def pinned(self, kubeflow: Kubeflow, *, quiet: bool) -> tuple[Pinned, dict[str, Any]]:
        """Return the version to run, uploaded where it is missing, and the parameters to run it with.

        Args:
            kubeflow: where.
            quiet: whether to say nothing of the version.
        """
        from driftline.pipelines.uploads import ensure_uploaded, find_pinned

        if self._file is None:
            pinned = find_pinned(kubeflow, self._named, self._version_name)
            return pinned, self._checked(pinned.parameters)
        pinned, uploaded = ensure_uploaded(kubeflow, self._file, version("driftline"))
        if not quiet:
            state = "uploaded" if uploaded else "is there"
            click.echo(f"pipeline {pinned.pipeline}, version {pinned.version.name}: {state}")
        return pinned, self._checked(pinned.parameters)

    def _checked(self, declared: Mapping[str, Parameter]) -> dict[str, Any]:
        from driftline.pipelines.parameters import parameters_of

        return parameters_of(declared, self._typed, self._from_file)
