"""Whether a model's files hold all of its weights.

transformers fills a weight that a checkpoint lacks with random numbers and only warns: each process would then make
other vectors of the same text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from driftline.components.errors import DataError

_UNUSED: Final = (
    "pooler."  # BERT's own pooling head: no sentence-transformers module reads it, many models leave it out
)


def check_weights(model: SentenceTransformer, folder: Path, name: str) -> None:
    """Raise DataError where a transformer's weights are not all in its folder.

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


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
