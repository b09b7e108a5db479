"""Where a model comes from: a folder, a gs:// prefix or a name on the Hugging Face hub; all end in a local folder."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from driftline.components.embedding.encoding.model_folder import check_model_folder, content_revision
from driftline.components.errors import DataError, StorageError, one_line
from driftline.components.storage.objects.cache import remembered
from driftline.components.storage.objects.location import is_gcs, normalised
from driftline.components.storage.objects.store import cached_folder, exists

_WEIGHTS_AND_CONFIGURATION = ("*.safetensors", "*.json", "*.txt", "*.model")
_REVISION = re.compile(r"sha256:[0-9a-f]{16}")
# The name under which a cached copy's revision is kept: another one whenever content_revision changes.
_REVISION_NOTE = "content-revision-1"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on the local disk.

    Attributes:
        path: its folder.
        name: its name in manifests, the last part of where it came from.
        revision: identity of its content.
    """

    path: Path
    name: str
    revision: str


@contextmanager
def open_model(model: str, cache: Path | None = None) -> Generator[ModelFolder]:
    """Bring a model to the local disk, check that it is safe to load, and say what it is.

    Args:
        model: a folder, a ``gs://`` prefix, or a name such as ``sentence-transformers/all-MiniLM-L6-v2``.
        cache: a local folder in which a model from gs:// is kept (see ``store.cached_folder``), with its revision, so
            that the next process on this machine neither downloads nor digests gigabytes again; None for a temporary
            copy.

    Raises:
        DataError: it is no model that can be loaded safely.
        StorageError: it could not be fetched.
        UsageError: it is empty, or a URI that is neither gs:// nor file://.
    """
    place = normalised(model)
    name = place.rstrip("/").rsplit("/", 1)[-1]
    if is_gcs(place) or exists(place):
        with cached_folder(place, cache) as path:
            yield _checked(path, model, name, kept=is_gcs(place) and cache is not None)
    else:
        yield _checked(_from_hub(model), model, name)


def _checked(path: Path, model: str, name: str, *, kept: bool = False) -> ModelFolder:
    check_model_folder(path, model)
    if name in ("", ".", ".."):
        name = path.resolve().name
    revision = remembered(path, _REVISION_NOTE, lambda: content_revision(path)) if kept else content_revision(path)
    if _REVISION.fullmatch(revision) is None:
        revision = content_revision(path)  # the note is damaged
    return ModelFolder(path, name, revision)


def _from_hub(model: str) -> Path:
    try:
        return Path(snapshot_download(model, allow_patterns=list(_WEIGHTS_AND_CONFIGURATION)))
    except HFValidationError as error:
        raise DataError(f"model {model}: there is no such folder, and it is no model's name either") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = one_line(error)
        raise StorageError(
            f"model {model}: there is no such folder, and it could not be fetched by that name ({reason}); "
            "give a folder or gs:// prefix that holds it"
        ) from error
