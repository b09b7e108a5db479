"""What makes a folder a model that is safe to load, and the identity of its content.

A model is loaded only from safetensors, never from pickle, and never with code of its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from driftline.components.errors import DataError

_TOKENIZERS: Final = (
    "tokenizer.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_IDENTITY: Final = ("*.safetensors", "*.json", "*.txt", "*.model")
_OWN_MODULES: Final = "sentence_transformers."
_READ_BYTES: Final = 1 << 20


def check_model_folder(folder: Path, name: str) -> None:
    """Raise DataError, saying what to do, unless the folder holds a model that can be loaded safely.

    Args:
        folder: a sentence-transformers or transformers model.
        name: what the user called it, for the message.
    """
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise DataError(
            f"model {name}: neither modules.json nor config.json is there; give the folder that "
            "SentenceTransformer.save wrote, a gs:// prefix of it, or a model's name"
        )
    if not list(folder.rglob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.rglob(pattern))
        found = f"only {pickles[0]}, whose pickle format can run code" if pickles else "no weights at all"
        raise DataError(
            f"model {name}: expected weights in safetensors, found {found}; load the model where you trust it and "
            "save it with safe_serialization=True"
        )
    for module in _read_json(folder / "modules.json", name, default=[]):
        kind, place = str(module.get("type", "")), folder / str(module.get("path", ""))
        if not kind.startswith(_OWN_MODULES):
            raise DataError(
                f"model {name}: module {kind} is code outside sentence-transformers, which is never run; "
                "use a model made of sentence-transformers' own modules"
            )
        if list(place.glob("pytorch_model.bin")) and not list(place.glob("*.safetensors")):
            raise DataError(
                f"model {name}: {place.name}/pytorch_model.bin is a pickle; save the model with safetensors"
            )
    config = _read_json(folder / "config.json", name, default={})
    if config.get("auto_map"):
        raise DataError(
            f"model {name}: it wants code of its own (auto_map in config.json), which is never run; "
            "use a model whose architecture transformers has built in"
        )
    if config and not any(list(folder.rglob(tokenizer)) for tokenizer in _TOKENIZERS):
        raise DataError(
            f"model {name}: no tokenizer found (one of {', '.join(_TOKENIZERS)}); copy the tokenizer's files "
            "into the folder"
        )


def content_revision(folder: Path) -> str:
    """Return ``sha256:`` and 16 hexadecimal digits of the files that decide a model's vectors.

    The same model has the same revision wherever it is loaded from. Time: one read of the weights.
    """
    digest = hashlib.sha256()
    files = {path for pattern in _IDENTITY for path in folder.rglob(pattern)}
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or not path.is_file():
            continue
        digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def _read_json(path: Path, name: str, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"model {name}: {path.name} is not JSON ({error}); fetch the model again") from error
