"""Models that are served, with real ones: where they come from, what they say of themselves, the vectors they give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from driftline.components.embedding.encoding.encoder import Encoder
from driftline.components.embedding.encoding.opening import open_model
from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
from driftline.components.embedding.encoding.tuning.tunings import (
    EncoderTunings,
    MeasuredTuning,
    best_device,
    device_name,
    write_tunings,
)
from driftline.components.errors import DataError, UsageError
from driftline.components.storage.objects.store import join, write_bytes
from driftline.serving.errors import UnavailableError
from driftline.serving.models.host import ServedModels
from driftline.serving.models.served import ServedModel
from driftline.serving.models.spec import ModelSettings, ModelSpec
from tests.components.embedding.tiny_models import MAX_TOKENS, SCRIPTS, save_model

TEXTS = [
    *SCRIPTS,
    "the film",
    "the plot of the film",
    "film " * 100,
    "x",
    *(f"film {n} the plot" * n for n in range(9)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a dense layer, normalisation and prompts, to be read only."""
    place = tmp_path_factory.mktemp("models") / "tiny"
    return save_model(place, dense=8, normalize=True, prompts={"query": "query: ", "document": "document film "})


def encoder(folder: Path, **settings: Any) -> Encoder:
    return Encoder.load(folder, "tiny", EncoderSettings(**settings), device="cpu")


@asynccontextmanager
async def serving(*models: str, **settings: Any) -> AsyncGenerator[Sequence[ServedModel]]:
    host = ServedModels([ModelSpec.parse(model) for model in models], ModelSettings(**settings), CollectorRegistry())
    try:
        await host.load()
        yield host.models
    finally:
        await host.drain(10)


@pytest.mark.parametrize("settings", [{}, {"segments": "mean"}, {"dimension": 5, "prompt": "query"}])
def test_requests_in_common_batches_have_the_encoder_s_own_vectors(folder: Path, settings: dict[str, Any]):
    async def main() -> None:
        async with serving(str(folder), encoder=EncoderSettings(**settings)) as [model]:
            groups = [TEXTS[start : start + size] for size in (1, 2, 5) for start in range(0, len(TEXTS), size)]
            found = await asyncio.gather(*map(model.embed, groups))
        plain = encoder(folder, **settings)
        for one, group in zip(found, groups, strict=True):
            expected = plain.encode(group)
            np.testing.assert_allclose(one.vectors, expected.vectors, atol=1e-6)
            assert (one.tokens, one.truncated) == (expected.tokens, expected.truncated)

    asyncio.run(main())


def test_a_prompt_and_dimensions_by_request_give_what_an_encoder_with_these_settings_gives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    loads: list[str] = []
    plain = Encoder.load.__func__

    def counted(cls: type[Encoder], place: Path, *given: Any, **named: Any) -> Encoder:
        loads.append(str(place))
        return plain(cls, place, *given, **named)

    async def main() -> dict[tuple[str, int], np.ndarray]:
        async with serving(str(folder)) as [model]:
            assert model.prompts == ("document", "query")
            asked = [(prompt, size) for prompt in ("", "query", "document") for size in (0, 3, 8)]
            calls = (model.embed(TEXTS, prompt=prompt, dimensions=size) for prompt, size in asked)
            found = await asyncio.gather(*calls)
            for prompt, size in asked:
                settings = EncoderSettings(prompt=prompt, dimension=size if size < 8 else 0)
                assert model.revision_of(prompt=prompt, dimensions=size) == settings.vector_revision(model.revision)
            with pytest.raises(
                UsageError, match=r"^prompt: model tiny has no prompt 'title'; it has: document, query$"
            ):
                await model.embed(TEXTS, prompt="title")
            for size in (9, -1):
                with pytest.raises(UsageError, match=rf"^dimensions: model tiny has vectors of 8 numbers, got {size}$"):
                    await model.embed(TEXTS, dimensions=size)
        return {key: one.vectors for key, one in zip(asked, found, strict=True)}

    monkeypatch.setattr(Encoder, "load", classmethod(counted))
    found = asyncio.run(main())
    assert len(loads) == 1  # whatever was asked for, the weights are there once
    for (prompt, size), vectors in found.items():
        expected = encoder(folder, prompt=prompt, dimension=size).encode(TEXTS).vectors
        assert vectors.shape == expected.shape
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_model_says_what_it_is_as_datasets_carry_it(folder: Path):
    async def main() -> None:
        settings = EncoderSettings(prompt="document", max_tokens=20)
        async with serving(f"mine={folder}", encoder=settings) as [model]:
            with open_model(str(folder)) as known:
                assert (model.name, model.model) == ("mine", known.name)
                assert model.revision == f"{known.revision};prompt=document;max_tokens=20"
            assert (model.dimension, model.max_tokens) == (8, 20)
            assert model.unready() is None
            assert model.stuck() is None
        assert model.unready() == "is shutting down"
        with pytest.raises(UnavailableError):
            await model.embed(["late"])

    asyncio.run(main())


def test_a_model_comes_from_the_object_store_through_a_cache(folder: Path, gcs_bucket: str, tmp_path: Path):
    async def main() -> None:
        uri = f"{gcs_bucket}/models/tiny"
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            write_bytes(join(uri, *file.relative_to(folder).parts), file.read_bytes())
        for _ in range(2):
            async with serving(uri, cache=str(tmp_path / "cache")) as [model]:
                found = await model.embed(TEXTS)
                with open_model(str(folder)) as known:
                    assert (model.name, model.revision) == ("tiny", known.revision)
            np.testing.assert_allclose(found.vectors, encoder(folder).encode(TEXTS).vectors, atol=1e-6)
        assert list((tmp_path / "cache").rglob("model.safetensors"))

    asyncio.run(main())


def test_the_tuning_that_was_measured_for_this_machine_is_used(folder: Path, tmp_path: Path):
    with open_model(str(folder)) as known:
        tuning = Tuning(batch_tokens=96, streams=1, threads=1)
        entry = MeasuredTuning(device_name(best_device()), known.revision, "float32", tuning, 1.0, 1.0)
    tunings = str(tmp_path / "tunings.json")
    write_tunings(tunings, EncoderTunings().with_entry(entry))
    registry = CollectorRegistry()

    async def main() -> None:
        settings = ModelSettings(EncoderSettings(precision="float32"), tunings=tunings)
        host = ServedModels([ModelSpec.parse(str(folder))], settings, registry)
        await host.load()
        await host.models[0].embed(["film"] * 64)  # three tokens each
        await host.drain(10)

    asyncio.run(main())
    batches = registry.get_sample_value("driftline_batch_tokens_count", {"model": "tiny"})
    assert batches == 2


def test_several_models_are_served_side_by_side(folder: Path, tmp_path: Path):
    other = save_model(tmp_path / "other", seed=7)

    async def main() -> None:
        async with serving(str(folder), f"second={other}") as models:
            found = await asyncio.gather(*(model.embed(TEXTS) for model in models))
        for one, place in zip(found, (folder, other), strict=True):
            np.testing.assert_allclose(one.vectors, encoder(place).encode(TEXTS).vectors, atol=1e-6)

    asyncio.run(main())


def test_a_model_that_is_not_loaded_says_so(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()

    async def main() -> None:
        specs = [ModelSpec.parse(str(folder)), ModelSpec.parse(str(tmp_path / "empty"))]
        host = ServedModels(specs, ModelSettings(), CollectorRegistry())
        first, second = host.models
        assert [model.unready() for model in host.models] == ["is being loaded"] * 2
        assert (first.model, first.revision, first.dimension, first.max_tokens) == ("", "", 0, 0)
        with pytest.raises(UnavailableError, match=r"^model tiny: is being loaded$"):
            await first.embed(["early"])
        with pytest.raises(DataError, match=r"^model .*empty: neither modules\.json nor config\.json is there"):
            await host.load()
        assert first.unready() is None  # it is there all the same
        assert first.max_tokens == MAX_TOKENS
        assert str(second.unready()).startswith("could not be loaded: model ")
        assert second.stuck() is None
        await host.drain(10)

    asyncio.run(main())


def test_models_must_have_names_of_their_own():
    for models, message in (((), "name at least one"), (("a/m", "b/m"), r"^model m: two models have this name")):
        with pytest.raises(UsageError, match=message):
            ServedModels([ModelSpec.parse(model) for model in models], ModelSettings(), CollectorRegistry())
