"""The same model exported to ONNX and run by onnxruntime, in the batches that Driftline would cut, padded.

Exported directly by PyTorch (optimum wants an older transformers); mean pooling and normalisation in NumPy, as the
benchmark's model has them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from encoding import Encode, Vectors, serve
from tokenizers import Tokenizer
from transformers import AutoModel

_ROOT = Path(__file__).resolve().parents[3]
_MAX_TOKENS = 256
_BATCH_TOKENS = 512


def _cut_batches() -> Any:
    """Import Driftline's batching from its source: the package is not installed here."""
    package = ModuleType("driftline")
    package.__path__ = [str(_ROOT)]
    sys.modules["driftline"] = package
    from driftline.components.embedding.encoding.text import cut_batches

    return cut_batches


class _Hidden(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _exported(folder: Path, path: Path) -> None:
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(1000, 2000, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # a padded row, so that the mask is part of the graph
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in (*names, "hidden")}
    torch.onnx.export(
        _Hidden(model), (ids, mask), str(path), input_names=names, output_names=["hidden"], dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip


def load(options: argparse.Namespace) -> Encode:
    """Export the model, and open it with all of onnxruntime's optimisations."""
    cut_batches = _cut_batches()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        _exported(options.model, path)
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)

    def encode(texts: list[str]) -> Vectors:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        vectors: Vectors | None = None
        for rows in cut_batches(lengths, options.batch_tokens or _BATCH_TOKENS, padded=True):
            width = int(lengths[rows].max())
            padded = np.zeros((len(rows), width), np.int64)
            for place, row in enumerate(rows):
                padded[place, : lengths[row]] = ids[row]
            mask = (np.arange(width) < lengths[rows][:, None]).astype(np.int64)
            [hidden] = session.run(None, {"input_ids": padded, "attention_mask": mask})
            pooled = (hidden * mask[..., None]).sum(axis=1) / lengths[rows][:, None]
            if vectors is None:
                vectors = np.empty((len(texts), pooled.shape[1]), np.float32)
            vectors[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        assert vectors is not None
        return vectors

    return encode


if __name__ == "__main__":
    serve(load)
