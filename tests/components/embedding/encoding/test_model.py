from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.model import check_model_folder, check_prompt, content_revision
from driftline.components.errors import DataError, UsageError
from tests.components.embedding.tiny_models import edit_json


def no_config(folder: Path) -> None:
    for name in ("config.json", "modules.json"):
        (folder / name).unlink()


def no_weights(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.unlink()


def pickle_only(folder: Path) -> None:
    no_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")


def dense_pickle_only(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save({}, folder / "2_Dense" / "pytorch_model.bin")


def foreign_module(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "custom_pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "custom_pooling.py").write_text("raise SystemExit('code of a model was run')\n")


REFUSED_AT_SIGHT: list[tuple[Callable[[Path], object], str]] = [
    (no_config, "neither modules.json nor config.json is there; give the folder that SentenceTransformer.save wrote"),
    (no_weights, "expected weights in safetensors, found no weights at all"),
    (pickle_only, "expected weights in safetensors, found only pytorch_model.bin, whose pickle format can run code"),
    (dense_pickle_only, "2_Dense/pytorch_model.bin is a pickle; save the model with safetensors"),
    (foreign_module, "module custom_pooling.Pooling is code outside sentence-transformers, which is never run"),
    (
        lambda folder: edit_json(folder / "config.json", auto_map={"AutoModel": "modeling_own.Own"}),
        r"it wants code of its own \(auto_map in config.json\), which is never run",
    ),
    (
        lambda folder: edit_json(folder / "2_Dense" / "config.json", activation_function="own.Activation"),
        "2_Dense has the activation function own.Activation, code outside PyTorch",
    ),
    (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer found"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": '), "config.json is not JSON"),
    (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"), "config.json is not JSON"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "config.json holds a list, expected a dict"),
    (lambda folder: (folder / "modules.json").write_text("["), "modules.json is not JSON"),
    (lambda folder: (folder / "modules.json").write_text("{}"), "modules.json holds a dict, expected a list"),
    (lambda folder: (folder / "modules.json").write_text('["a"]'), "modules.json is not a list of modules"),
]

REFUSED_ON_LOADING: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "header too large"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header too small"),
    (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "not fully covered",
    ),
    (lambda folder: (folder / "2_Dense" / "model.safetensors").write_bytes(b"no weights"), "deserializing"),
    (lambda folder: (folder / "1_Pooling" / "config.json").write_text("{"), "Expecting property name"),
    (lambda folder: (folder / "1_Pooling" / "config.json").write_text('{"odd": 1}'), "unexpected keyword"),
    (lambda folder: edit_json(folder / "1_Pooling" / "config.json", pooling_mode="best"), "Invalid pooling mode"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer"),
    (lambda folder: edit_json(folder / "config.json", hidden_size=32), "mismatched"),
    (lambda folder: edit_json(folder / "config.json", hidden_size="x"), "expected int, got str"),
    (lambda folder: edit_json(folder / "config.json", model_type="unheard-of"), "unheard-of"),
    (lambda folder: (folder / "modules.json").write_text("[]"), "at least one module"),
    (
        lambda folder: (folder / "modules.json").write_text('[{"path": "", "type": "sentence_transformers.odd.Odd"}]'),
        "No module named",
    ),
]


@pytest.mark.parametrize(("damage", "reason"), REFUSED_AT_SIGHT)
def test_a_folder_that_is_no_safe_model_is_refused_at_sight(copy: Path, damage: Callable[[Path], object], reason: str):
    check_model_folder(copy, "mine")
    damage(copy)
    with pytest.raises(DataError, match=rf"^model mine: {reason}[^\n]*$"):
        check_model_folder(copy, "mine")


@pytest.mark.parametrize(("damage", "reason"), REFUSED_AT_SIGHT[:7])
def test_loading_refuses_it_too(copy: Path, damage: Callable[[Path], object], reason: str):
    damage(copy)
    with pytest.raises(DataError, match=rf"^model mine: {reason}"):
        Encoder.load(copy, "mine")


@pytest.mark.parametrize(("damage", "reason"), REFUSED_ON_LOADING)
def test_a_damaged_model_is_refused_on_loading(copy: Path, damage: Callable[[Path], object], reason: str):
    damage(copy)
    with pytest.raises(DataError, match=rf"^model mine: could not be loaded \([^\n]*{reason}[^\n]*\); [^\n]*$"):
        Encoder.load(copy, "mine", device="cpu")


def test_a_transformer_whose_own_activation_function_has_a_short_name_is_accepted(copy: Path):
    edit_json(copy / "config.json", activation_function="gelu_new")
    check_model_folder(copy, "mine")


def test_a_plain_transformers_folder_is_accepted(models: Path):
    check_model_folder(models / "plain", "plain")


def test_a_pickle_beside_safetensors_is_left_alone(copy: Path):
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert Encoder.load(copy, "mine", device="cpu").encode(["a film"]).vectors.shape == (1, 8)


def test_prompts_are_known_without_loading_the_model(full: Path, models: Path):
    for prompt in ("", "query", "document"):
        check_prompt(full, "mine", prompt)
    check_prompt(models / "plain", "mine", "")
    with pytest.raises(UsageError, match=r"^prompt: model mine has no prompt 'Query'; it has: document, query$"):
        check_prompt(full, "mine", "Query")


def test_the_revision_is_that_of_the_content_not_of_the_place(full: Path, copy: Path, models: Path):
    revision = content_revision(full)
    assert content_revision(copy) == revision
    assert revision.startswith("sha256:")
    assert len(revision) == len("sha256:") + 16
    assert len({content_revision(folder) for folder in models.iterdir()}) == len(list(models.iterdir()))


@pytest.mark.parametrize(
    "place", ["model.safetensors", "2_Dense/model.safetensors", "tokenizer.json", "config_sentence_transformers.json"]
)
def test_one_byte_changes_the_revision(full: Path, copy: Path, place: str):
    content = bytearray((copy / place).read_bytes())
    content[-1] ^= 1
    (copy / place).write_bytes(content)
    assert content_revision(copy) != content_revision(full)


def test_a_file_s_name_and_place_belong_to_the_revision(full: Path, copy: Path):
    shutil.move(copy / "2_Dense" / "model.safetensors", copy / "1_Pooling" / "model.safetensors")
    assert content_revision(copy) != content_revision(full)


def test_what_does_not_decide_the_vectors_is_not_in_the_revision(full: Path, copy: Path):
    (copy / "README.md").write_text("about the model")
    (copy / "pytorch_model.bin").write_bytes(b"other weights")
    (copy / ".cache" / "hub").mkdir(parents=True)
    (copy / ".cache" / "hub" / "config.json").write_text("{}")
    (copy / ".hidden.json").write_text("{}")
    assert content_revision(copy) == content_revision(full)
