"""A model's folder: whether it is safe to load and whole, and the identity of its content.

A model is loaded only from safetensors, never from pickle, and never with code of its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from driftline.components.errors import DataError, UsageError

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
_TORCH: Final = "torch."
_READ_BYTES: Final = 1 << 20
# BERT's own pooling head: no sentence-transformers module reads it, many models leave it out.
_UNUSED: Final = "pooler."

T = TypeVar("T")


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
    for module in _read_json(folder / "modules.json", name, list):
        if not isinstance(module, dict):
            raise DataError(f"model {name}: modules.json is not a list of modules; fetch the model again")
        entry = cast("dict[str, Any]", module)
        kind, place = str(entry.get("type", "")), folder / str(entry.get("path", ""))
        if not kind.startswith(_OWN_MODULES):
            raise DataError(
                f"model {name}: module {kind} is code outside sentence-transformers, which is never run; "
                "use a model made of sentence-transformers' own modules"
            )
        if list(place.glob("pytorch_model.bin")) and not list(place.glob("*.safetensors")):
            raise DataError(
                f"model {name}: {place.name}/pytorch_model.bin is a pickle; save the model with safetensors"
            )
        # sentence-transformers would put another function in its place, and go on with other vectors. (The
        # transformer's own config.json has short names here, gelu say, which are built in.)
        settings = _read_json(place / "config.json", name, dict) if kind.endswith(".Dense") else {}
        activation = str(settings.get("activation_function", _TORCH))
        if not activation.startswith(_TORCH):
            raise DataError(
                f"model {name}: {place.name} has the activation function {activation}, code outside PyTorch, which "
                "is never run; use a model with one of PyTorch's own"
            )
    config = _read_json(folder / "config.json", name, dict)
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


def check_prompt(folder: Path, name: str, prompt: str) -> None:
    """Raise UsageError unless the model comes with a prompt of this name; an empty name is the model's default.

    Args:
        folder: a sentence-transformers or transformers model.
        name: what the user called it, for the message.
        prompt: name of the prompt.
    """
    prompts = _read_json(folder / "config_sentence_transformers.json", name, dict).get("prompts") or {}
    if prompt and prompt not in prompts:
        known = ", ".join(sorted(prompts)) or "none"
        raise UsageError(f"prompt: model {name} has no prompt {prompt!r}; it has: {known}")


def check_weights(model: SentenceTransformer, folder: Path, name: str) -> None:
    """Raise DataError where a transformer's weights are not all in its folder.

    transformers fills a weight that a checkpoint lacks with random numbers and only warns: each process would then make
    other vectors of the same text.

    Args:
        model: the loaded model.
        folder: where it was loaded from.
        name: what the user called it, for the message.
    """
    transformer: Any = getattr(model[0], "auto_model", None)
    if not isinstance(transformer, PreTrainedModel):
        return
    prefix = f"{transformer.base_model_prefix}."
    stored = {key.removeprefix(prefix) for path in folder.glob("*.safetensors") for key in _keys(path)}
    expected = {key.removeprefix(prefix) for key in transformer.state_dict()}
    if any(not key.startswith(_UNUSED) for key in expected - stored):
        # Some architectures rename or tie weights as they load: only transformers itself can tell then.
        kind: Any = type(transformer)
        _, report = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
        missing = sorted(key for key in report["missing_keys"] if not key.removeprefix(prefix).startswith(_UNUSED))
        if missing:
            raise DataError(
                f"model {name}: {len(missing)} of its weights are not in its files, the first is {missing[0]}; they "
                "would be random numbers: fetch the model again, or mend its config.json"
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


def _read_json(path: Path, name: str, kind: type[T]) -> T:
    if not path.is_file():
        return kind()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"model {name}: {path.name} is not JSON ({error}); fetch the model again") from error
    if not isinstance(value, kind):
        raise DataError(
            f"model {name}: {path.name} holds a {type(value).__name__}, expected a {kind.__name__}; "
            "fetch the model again"
        )
    return value


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
