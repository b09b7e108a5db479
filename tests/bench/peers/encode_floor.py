"""The matrix products of a model's linear layers alone, on the batches that Driftline cuts.

By PyTorch's own product, one stream a core, on random numbers; neither attention, nor norms, nor activations, nor
tokenising. The vectors that it returns are zeros.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from encoding import Encode, serve
from sentence_transformers import SentenceTransformer

from driftline.components.embedding.encoding.encoder import Encoder, cpu_threads
from driftline.components.embedding.encoding.text import cut_batches


def load(options: argparse.Namespace) -> Encode:
    """Load the model for its tokenizer and the shapes of its layers."""
    encoder = Encoder.load(options.model, "model")
    transformer: Any = SentenceTransformer(str(options.model), device="cpu")[0]
    # A pooler of BERT's kind sees a single token of each text, and sentence-transformers leaves its result out.
    layers = [
        (module.weight.shape, torch.zeros(len(module.bias)))
        for name, module in transformer.auto_model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    ]
    weights = [(torch.randn(shape), bias) for shape, bias in layers]
    widths = sorted({shape[1] for shape, _ in layers})
    threads = cpu_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def run(tokens: int) -> None:
        with torch.inference_mode():
            inputs = {width: torch.zeros(tokens, width) for width in widths}
            for weight, bias in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]], weight, bias)

    def encode(texts: list[str]) -> np.ndarray:
        lengths = encoder.prepare(texts).text_lengths()
        batches = cut_batches(lengths, encoder.batch_tokens // threads, padded=False, streams=threads)
        list(pool.map(run, [int(lengths[rows].sum()) for rows in batches]))
        return np.zeros((len(texts), encoder.dimension), np.float32)

    return encode


if __name__ == "__main__":
    serve(load)
