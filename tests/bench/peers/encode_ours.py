"""Driftline's encoder."""

from __future__ import annotations

import argparse
from typing import Any, cast

from encoding import Encode, serve

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning


def load(options: argparse.Namespace) -> Encode:
    """Load the model with its defaults, in the precision asked for."""
    settings = EncoderSettings(precision=cast(Any, options.precision))
    encoder = Encoder.load(options.model, "model", settings, tuning=Tuning(options.batch_tokens))
    return lambda texts: encoder.encode(texts).vectors


if __name__ == "__main__":
    serve(load)
