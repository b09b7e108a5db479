"""Opening a model: from a folder, a gs:// prefix or a name on the Hugging Face hub to an encoder in memory."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model import check_model_folder, content_revision
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.tuning.tunings import measured_tuning
from driftline.components.errors import DataError, StorageError, one_line
from driftline.components.storage.objects.cache import remembered
from driftline.components.storage.objects.location import is_gcs, normalised
from driftline.components.storage.objects.store import cached_folder, exists

_WEIGHTS_AND_CONFIGURATION: Final = ("*.safetensors", "*.json", "*.txt", "*.model")
_REVISION: Final = re.compile(r"sha256:[0-9a-f]{16}")
# The name under which a cached copy's revision is kept: another one whenever content_revision changes.
_REVISION_NOTE: Final = "content-revision-1"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on the local disk, safe to load.

    Attributes:
        path: its folder.
        source: where it came from, as the user named it.
        name: its name in manifests, the last part of where it came from.
        revision: identity of its content.
    """

    path: Path
    source: str
    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class OpenedEncoder:
    """An encoder, and what its vectors are of.

    Attributes:
        encoder: the model in memory.
        name: the model's name in manifests.
        model_revision: identity of the model's content.
        settings: what decides the vectors.
    """

    encoder: Encoder
    name: str
    model_revision: str
    settings: EncoderSettings

    @property
    def revision(self) -> str:
        """The revision of the vectors, as datasets and topics carry it."""
        return self.settings.vector_revision(self.model_revision)


@contextmanager
def open_model(model: str, cache: Path | None = None) -> Generator[ModelFolder]:
    """Bring a model to the local disk, check that it is safe to load, and identify it.

    Args:
        model: a folder, a ``gs://`` prefix, or a name such as ``sentence-transformers/all-MiniLM-L6-v2``.
        cache: a local folder in which a model from gs:// is kept (see ``store.cached_folder``), with its revision, so
            that the next process on this machine neither downloads nor digests gigabytes again; None for a temporary
            copy, which is removed when the block ends.

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


def open_encoder(
    model: str | ModelFolder,
    settings: EncoderSettings | None = None,
    *,
    tunings: str = "",
    cache: Path | None = None,
    device: str | None = None,
) -> OpenedEncoder:
    """Load a model, tuned as was measured for this machine.

    Args:
        model: as :func:`open_model` takes it, or what that gave.
        settings: what decides the vectors; the model's own defaults where None.
        tunings: URI of the measured tunings; empty for the defaults.
        cache: see :func:`open_model`. A temporary copy is removed as soon as the model is in memory.
        device: a PyTorch device such as ``"cuda:0"``; None for the best there is.

    Raises:
        DataError: it is no model that can be loaded safely, or the file holds no tunings.
        StorageError: model or tunings could not be fetched.
        UsageError: the model has no such prompt, or fewer dimensions than asked for.
    """
    if isinstance(model, str):
        with open_model(model, cache) as folder:
            return open_encoder(folder, settings, tunings=tunings, device=device)
    settings = settings or EncoderSettings()
    tuning = measured_tuning(tunings, model.revision, settings.precision)
    encoder = Encoder.load(model.path, model.source, settings, tuning=tuning, device=device)
    return OpenedEncoder(encoder, model.name, model.revision, settings)


def _checked(path: Path, model: str, name: str, *, kept: bool = False) -> ModelFolder:
    check_model_folder(path, model)
    if name in ("", ".", ".."):
        name = path.resolve().name
    revision = remembered(path, _REVISION_NOTE, lambda: content_revision(path)) if kept else content_revision(path)
    if _REVISION.fullmatch(revision) is None:
        revision = content_revision(path)  # the note is damaged
    return ModelFolder(path, model, name, revision)


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
