"""Real models, very small: a BERT of hidden size 16 with random weights, and sentence-transformers modules on it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from sentence_transformers.sentence_transformer.modules.pooling import PoolingMode
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

HIDDEN = 16
MAX_TOKENS = 64

SCRIPTS = (
    "A plain English sentence, with punctuation!",
    "Ένα ελληνικό κείμενο για δοκιμή",  # noqa: RUF001
    "Текст на русском языке",
    "这是一个中文句子",
    "هذا نص باللغة العربية",
    "यह हिन्दी का एक वाक्य है",
    "한국어 문장 하나",
)
"""One text in each of seven scripts."""

_ALPHABET = sorted(set("".join(SCRIPTS).lower()) | set(map(chr, range(33, 127))) - {" "})
_PIECES = ["the", "film", "plot", "query", "document", "##s", "##ing", *_ALPHABET, *(f"##{c}" for c in _ALPHABET)]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_VOCABULARY = {piece: number for number, piece in enumerate(dict.fromkeys([*_SPECIAL, *_PIECES]))}


def save_transformer(folder: Path, seed: int = 0) -> Path:
    """Save a random BERT and its tokenizer, as transformers does: without sentence-transformers' modules."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,  # far from zero, so that different texts have different vectors
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordPiece(_VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, _VOCABULARY[name]) for name in ("[CLS]", "[SEP]")]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return folder


def save_other(folder: Path, kind: str, pooling: PoolingMode = "mean", seed: int = 0, **settings: Any) -> Path:
    """Save a random model of another architecture, with BERT's tokenizer."""
    with tempfile.TemporaryDirectory() as raw:
        save_transformer(Path(raw), seed)
        torch.manual_seed(seed)
        tokenizer = AutoTokenizer.from_pretrained(raw)
        common = {"vocab_size": len(_VOCABULARY), "initializer_range": 0.5, "pad_token_id": tokenizer.pad_token_id}
        if kind == "distilbert":
            shape = {
                "dim": HIDDEN,
                "n_layers": 2,
                "n_heads": 2,
                "hidden_dim": 32,
                "max_position_embeddings": MAX_TOKENS,
            }
        else:
            shape = {
                "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                "max_position_embeddings": MAX_TOKENS + 2,
            }  # fmt: skip
        config = AutoConfig.for_model(kind, **common, **shape, **settings)
        AutoModel.from_config(config).save_pretrained(raw)
        tokenizer.save_pretrained(raw)
        transformer = Transformer(raw)
    model = SentenceTransformer(modules=[transformer, Pooling(HIDDEN, pooling), Normalize()], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def save_model(
    folder: Path,
    *,
    pooling: PoolingMode = "mean",
    dense: int = 0,
    normalize: bool = False,
    prompts: dict[str, str] | None = None,
    default_prompt: str | None = None,
    seed: int = 0,
) -> Path:
    """Save a sentence-transformers model: BERT, pooling and, where asked for, a dense layer and normalisation."""
    with tempfile.TemporaryDirectory() as raw:
        transformer = Transformer(str(save_transformer(Path(raw), seed)))
    torch.manual_seed(seed + 1)
    modules: list[Any] = [transformer, Pooling(HIDDEN, pooling)]
    if dense:
        modules.append(Dense(HIDDEN, dense, activation_function=torch.nn.Tanh()))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=default_prompt)
    model.save(str(folder), create_model_card=False)
    return folder


def by_hand(folder: Path, texts: Sequence[str], *, pooling: str = "mean", prompt: str = "") -> np.ndarray:
    """Embed texts one at a time from a folder's files: transformers' model, then every further step written out.

    The dense layer's and the normalisation's presence is read off the folders that sentence-transformers wrote.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    vectors: list[np.ndarray] = []
    with torch.no_grad():
        for text in texts:
            tokens = tokenizer(prompt + text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
            states = model(**tokens).last_hidden_state[0].numpy().astype(np.float64)
            pooled = {"mean": states.mean(axis=0), "cls": states[0], "max": states.max(axis=0)}[pooling]
            vectors.append(pooled)
    result = np.stack(vectors)
    for layer in sorted(folder.glob("*_Dense")):
        weights = tensors(layer / "model.safetensors")
        result = np.tanh(result @ weights["linear.weight"].T + weights["linear.bias"])
    if list(folder.glob("*_Normalize")):
        result /= np.linalg.norm(result, axis=1, keepdims=True)
    return result


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file by its format: the header's length, the header, the numbers."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    body = content[8 + size :]
    found: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            found[name] = np.frombuffer(body[start:stop], "<f4").reshape(entry["shape"]).astype(np.float64)
    return found


def edit_json(path: Path, **changes: Any) -> None:
    """Change a few keys of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
