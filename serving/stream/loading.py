"""The worker's model, named as the backfill names it, so that its vectors compare with a backfilled reference."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from driftline.components.embedding.backfill.plan import with_settings
from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.models import open_model
from driftline.components.embedding.encoding.settings import EncoderSettings
from driftline.components.embedding.encoding.tuning.tunings import measured_tuning
from driftline.serving.stream.encoding import Model


@contextmanager
def loaded_model(model: str, settings: EncoderSettings, profile: str, cache: Path | None) -> Generator[Model]:
    """Load a model for as long as the block lasts.

    Args:
        model: folder, gs:// prefix or name of a sentence-transformers model.
        settings: what decides its vectors.
        profile: what was measured to be the fastest, a file; empty for the defaults.
        cache: local folder in which models from gs:// are kept; None for a temporary copy.

    Raises:
        DataError: it is no model that can be loaded safely.
        StorageError: it could not be fetched.
        UsageError: it has no such prompt, or fewer dimensions than asked for.
    """
    with open_model(model, cache) as folder:
        tuning = measured_tuning(profile, folder.revision, settings.precision)
        encoder = Encoder.load(folder.path, model, settings, tuning=tuning)
        yield Model(encoder, folder.name, with_settings(folder.revision, settings))
