"""Pipelines from files to Kubeflow: uploaded once for each content, with a description, and pinned by their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import yaml

from driftline.components.errors import DataError, UsageError
from driftline.components.kubeflow.client import Kubeflow, Pipeline, Version
from driftline.components.kubeflow.refusals import RefusedError
from driftline.pipelines.parameters import Parameter, PlainLoader, brief, declared

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_DIGEST: Final = 12  # hexadecimal digits: of a pipeline's versions, no two share them
_NAME: Final = 128  # characters that the server's database has for a name
_QUERY: Final = 6000  # bytes of a version's description: it travels in the URL, of which gateways take 8 KiB


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """A compiled pipeline.

    Attributes:
        name: what Kubeflow is to call it.
        content: the file, both documents of it.
        description: the pipeline's own.
        parameters: what it declares.
    """

    name: str
    content: bytes
    description: str
    parameters: Mapping[str, Parameter]

    @property
    def digest(self) -> str:
        """The beginning of the content's SHA-256."""
        return hashlib.sha256(self.content).hexdigest()[:_DIGEST]

    def explained(self) -> str:
        """Return what to say of a version of it: its parameters, as Markdown, as fully as a URL has room."""
        for text in (brief(self.parameters), brief(self.parameters, meanings=False)):
            if len(quote(text)) <= _QUERY:
                return text
        return self.description[: _QUERY // 12]  # a character takes twelve bytes at most


@dataclass(frozen=True, slots=True)
class Pinned:
    """A version in Kubeflow that runs are to be of.

    Attributes:
        version: it.
        pipeline: its pipeline's name.
        parameters: what it declares.
    """

    version: Version
    pipeline: str
    parameters: Mapping[str, Parameter]


def names_file(given: str) -> bool:
    """Say whether what was typed names a file and not a pipeline in Kubeflow."""
    return given.endswith(_SUFFIXES) or "/" in given or Path(given).is_file()


def read_pipeline(path: str) -> PipelineFile:
    """Read a compiled pipeline.

    Raises:
        UsageError: it cannot be read.
        DataError: it is no compiled pipeline.
    """
    try:
        content = Path(path).read_bytes()
        documents = [one for one in yaml.load_all(content, PlainLoader) if one is not None]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a compiled pipeline's file, or a pipeline") from error
    except (yaml.YAMLError, UnicodeError) as error:
        reason = getattr(error, "problem", None) or "not UTF-8"
        raise DataError(f"{path}: is no YAML ({reason}); compile it anew") from error
    spec = cast("dict[str, Any]", documents[0]) if documents and isinstance(documents[0], dict) else {}
    info = cast("dict[str, Any]", spec.get("pipelineInfo") or {})
    try:
        parameters = declared(spec)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    name = str(info.get("name") or "")
    if not 0 < len(name) <= _NAME:
        raise DataError(f"{path}: expected pipelineInfo.name of 1 to {_NAME} characters, got {name!r}; compile it anew")
    return PipelineFile(name, content, str(info.get("description") or ""), parameters)


def ensure_uploaded(kubeflow: Kubeflow, file: PipelineFile, driftline: str) -> tuple[Pinned, bool]:
    """Return the version in Kubeflow that has a file's content, uploaded unless it is there.

    The pipeline is made empty, with its description, which stays; each version is named after Driftline's own version
    and the content, and tells its parameters: the UI shows both on one card. Whoever is killed half-way finds the rest
    to do the next time.

    Args:
        kubeflow: where.
        file: what.
        driftline: Driftline's version.

    Returns:
        The version, and whether it has been uploaded now.
    """
    pipeline = kubeflow.find_pipeline(file.name)
    found = None if pipeline is None else _with_content(kubeflow, pipeline, file)
    if found is not None:
        return Pinned(found, file.name, file.parameters), False
    if pipeline is None:
        pipeline = _created(kubeflow, file)
    name = f"{driftline.replace('+', '-')}-{file.digest}"
    try:
        version = kubeflow.upload_version(pipeline, name, file.explained(), file.content)
    except RefusedError as refused:
        found = _with_content(kubeflow, pipeline, file) if refused.status == HTTPStatus.CONFLICT else None
        if found is None:  # else somebody uploaded it a moment ago
            raise
        return Pinned(found, file.name, file.parameters), False
    return Pinned(version, file.name, file.parameters), True


def find_pinned(kubeflow: Kubeflow, name: str, version: str = "") -> Pinned:
    """Return a version of a pipeline that is in Kubeflow.

    Args:
        kubeflow: where.
        name: the pipeline's.
        version: the version's; empty for the latest.

    Raises:
        UsageError: there is none, or no telling which is the latest.
    """
    pipeline = kubeflow.find_pipeline(name)
    if pipeline is None:
        where = f" in the namespace {kubeflow.namespace}" if kubeflow.namespace else ""
        raise UsageError(
            f"pipeline {name!r}: Kubeflow has none of that name{where}; check the name and the namespace, or name a "
            "file"
        )
    if version:
        found = [one for one in kubeflow.versions(pipeline, containing=version) if one.name == version]
        if not found:
            raise UsageError(
                f"version {version!r}: the pipeline {name} has none of that name; leave it out for the latest"
            )
    else:
        found = kubeflow.versions(pipeline, latest=2)
        if not found:
            raise UsageError(f"pipeline {name!r}: has no version; name a file, which is then uploaded")
        if len(found) > 1 and found[0].created == found[1].created:
            both = " and ".join(one.name for one in found)
            raise UsageError(f"pipeline {name!r}: {both} were made in the same second; name one with --version")
    return Pinned(found[0], pipeline.name, declared(found[0].spec))


def _with_content(kubeflow: Kubeflow, pipeline: Pipeline, file: PipelineFile) -> Version | None:
    """Return the version that has the file's content, by the digest in its name: another Driftline's will do."""
    ending = f"-{file.digest}"
    return next((one for one in kubeflow.versions(pipeline, containing=ending) if one.name.endswith(ending)), None)


def _created(kubeflow: Kubeflow, file: PipelineFile) -> Pipeline:
    try:
        return kubeflow.create_pipeline(file.name, file.description)
    except RefusedError as refused:
        found = kubeflow.find_pipeline(file.name) if refused.status == HTTPStatus.CONFLICT else None
        if found is None:
            raise
        return found
