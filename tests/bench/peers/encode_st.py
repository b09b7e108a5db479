"""sentence-transformers' own `encode`, at its defaults."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import numpy as np
import torch
from encoding import Encode, Vectors, serve
from sentence_transformers import SentenceTransformer


def load(options: argparse.Namespace) -> Encode:
    """Load the model; bfloat16 is PyTorch's autocast, float16 the whole model's, as users have them."""
    model = SentenceTransformer(str(options.model), local_files_only=True)
    if options.precision == "float16":
        model.half()
    half = options.precision == "bfloat16"

    def encode(texts: list[str]) -> Vectors:
        with torch.autocast(model.device.type, torch.bfloat16) if half else nullcontext():
            return np.asarray(model.encode(texts, batch_size=options.batch_size, show_progress_bar=False), np.float32)

    return encode


if __name__ == "__main__":
    serve(load)
