"""The encoder: texts to vectors, by a sentence-transformers model and all of its modules."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.normalize import Normalize
from torch import Tensor
from transformers.utils import logging as transformers_logging

from driftline.components.embedding.encoding.forward.engine import DTYPES, Prompted, open_engine
from driftline.components.embedding.encoding.model import check_model_folder, check_prompt, check_weights
from driftline.components.embedding.encoding.settings import EncoderSettings, Tuning
from driftline.components.embedding.encoding.text import Encoding, Prepared, Tokens, cut_batches
from driftline.components.errors import DataError, DriftlineError, UsageError, one_line

LOGGER: Final = logging.getLogger(__name__)

# Tokens in a forward pass, measured: fewer leave a CPU's products waiting for what lies between them, more exceed its
# caches. On a GPU they fill the device.
_CPU_BATCH_TOKENS: Final = 2048
_GPU_BATCH_TOKENS: Final = 16_384

_WARM_LENGTHS: Final = (8, 32, 128)

# What the libraries raise over a damaged file: safetensors' error and that of configurations are no ValueErrors.
_LOAD_ERRORS: Final = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class Encoder:
    """A model in memory, ready to encode; loaded once, safe to call from several threads; on a GPU they take turns.

    Every module of the model is honoured: transformer, pooling of any kind, dense layers, normalisation, prompts.
    Nothing is done to a text but what the model's own tokenizer does. Texts are tokenised together, sorted by length
    and run in batches of so many tokens, without padding where the model's architecture allows.

    Attributes:
        dimension: length of a vector.
        normalized: whether vectors have length 1.
        max_tokens: tokens of a text that are looked at; 0 where the model knows no limit.
        precision: number type of the forward pass: `float32`, `bfloat16` or `float16`.
        device: PyTorch's name of where it runs.
        prompts: names of the model's prompts.
    """

    def __init__(self, model: SentenceTransformer, name: str, settings: EncoderSettings, tuning: Tuning) -> None:
        self._name = name
        self._settings = settings
        self._lock = threading.Lock()
        full = model.eval().get_embedding_dimension()
        if full is None:
            raise DataError(
                f"model {name}: it does not say how long its vectors are, so it makes none; is it an encoder?"
            )
        if settings.dimension > full:
            raise UsageError(f"dimension: model {name} has vectors of {full} numbers, got {settings.dimension}")
        self.dimension: int = settings.dimension or full
        self.normalized: bool = isinstance([*model][-1], Normalize)
        self.device: str = str(model.device)
        self.precision: str = resolved_precision(settings.precision, model.device)
        self._engine = open_engine(model, name, settings, DTYPES[self.precision], torch_compile=tuning.compile)
        self.max_tokens: int = self._engine.max_tokens
        self.prompts: tuple[str, ...] = tuple(sorted(model.prompts))
        default = model.prompts.get(model.default_prompt_name or "")
        self._prompt_texts = {"": default or "", **{key: text or "" for key, text in model.prompts.items()}}
        self._prompted: dict[str, Prompted] = {}
        self._streams: ThreadPoolExecutor | None = None
        self.tune(tuning)
        if self.device != "cpu" and self.max_tokens:
            self._warm()

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str,
        settings: EncoderSettings | None = None,
        *,
        tuning: Tuning | None = None,
        device: str | None = None,
    ) -> Self:
        """Load a model from a local folder.

        Args:
            folder: a sentence-transformers model, or a transformers one (its token vectors are then averaged).
            name: what the user called it, for messages.
            settings: what decides the vectors; the model's own defaults where None.
            tuning: what decides the speed on this machine.
            device: a PyTorch device such as ``"cuda:0"``; None for the best there is.

        Raises:
            DataError: the folder is no model that can be loaded safely.
            UsageError: the model has no such prompt, or fewer dimensions than asked for.
        """
        settings = settings or EncoderSettings()
        check_model_folder(folder, name)
        check_prompt(folder, name, settings.prompt)
        transformers_logging.disable_progress_bar()  # a bar over weights tears the step's own progress apart
        try:
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
            check_weights(model, folder, name)
            return cls(model, name, settings, tuning or Tuning())
        except DriftlineError:
            raise
        except _LOAD_ERRORS as error:
            reason = one_line(error)
            raise DataError(f"model {name}: could not be loaded ({reason}); fetch it again or save it anew") from error

    def tune(self, tuning: Tuning) -> None:
        """Change what decides the speed of the loaded model, save ``compile``, which stays as it was loaded."""
        on_cpu = self.device == "cpu"
        with self._lock:
            self._batch_tokens = tuning.batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS)
            self._stream_count = 1
            if self._streams is not None:
                self._streams.shutdown()
                self._streams = None
            if on_cpu:
                # Each thread runs a batch of its own, with its share of the CPU's threads.
                threads = tuning.threads or cpu_threads()
                self._stream_count = min(tuning.streams or threads, threads)
                self._streams = ThreadPoolExecutor(
                    self._stream_count,
                    "driftline-encode",
                    initializer=torch.set_num_threads,
                    initargs=(max(1, threads // self._stream_count),),
                )

    def encode(self, texts: Sequence[str]) -> Encoding:
        """Return the vectors of some texts.

        They depend on these texts, the settings, the tuning and the machine alone: the same call gives the same bits.

        Raises:
            DataError: the model gave a NaN or an infinite value, or one text alone exceeds the device's memory.
        """
        return self.finish(self.prepare(texts))

    def prepare(self, texts: Sequence[str], prompt: str | None = None) -> Prepared:
        """Tokenise texts: the part of encoding that waits for no forward pass, and may go on beside one.

        Args:
            texts: what will be encoded, together or in parts, see :func:`.prepared.joined`.
            prompt: name of one of the model's prompts, empty for its default; None for the one that the settings name.

        Raises:
            UsageError: the model has no such prompt.
        """
        if prompt is None or prompt == self._settings.prompt:
            return Prepared(texts, self._engine.tokenize(texts))
        if prompt not in self._prompted:
            if prompt not in self._prompt_texts:
                known = ", ".join(self.prompts) or "none"
                raise UsageError(f"prompt: model {self._name} has no prompt {prompt!r}; it has: {known}")
            self._prompted[prompt] = self._engine.prompted(self._prompt_texts[prompt])
        prompted = self._prompted[prompt]
        return Prepared(texts, prompted.tokenize(texts), prompted.prompt)

    def encode_chunks(self, chunks: Iterable[Sequence[str]]) -> Generator[Encoding]:
        """Encode chunk after chunk of texts.

        The next chunk is read and tokenised in another thread while one is encoded. A chunk's forward passes begin only
        when its encoding is asked for.

        Args:
            chunks: the texts of each chunk, read one chunk ahead.

        Yields:
            What :meth:`encode` gives of each chunk, to the bit.
        """
        source = iter(chunks)

        def prepare() -> Prepared | None:
            texts = next(source, None)
            return None if texts is None else self.prepare(texts)

        with ThreadPoolExecutor(1, thread_name_prefix="driftline-tokens") as reader:
            pending = reader.submit(prepare)
            while (prepared := pending.result()) is not None:
                pending = reader.submit(prepare)
                yield self.finish(prepared)

    @property
    def batch_tokens(self) -> int:
        """Tokens that run at a time, in the batches of all streams together."""
        return self._batch_tokens * self._stream_count

    def finish(self, prepared: Prepared) -> Encoding:
        """Return the vectors of texts that were made ready; as :meth:`encode` does, and with its errors."""
        texts, tokens = prepared.texts, prepared.tokens
        vectors = self._run(prepared)
        pooled = len(tokens.sequences) > len(texts)  # of texts in several segments
        if pooled:
            vectors = _pooled(vectors, tokens.texts, self._settings.segments)
        if pooled or vectors.shape[1] > self.dimension:
            vectors = shortened(vectors, self.dimension, normalized=self.normalized)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise DataError(
                f"model {self._name}: the vector of text {texts[int(np.argmin(finite))][:60]!r} holds NaN or infinite "
                "values; use the precision float32, or leave the text out"
            )
        return Encoding(vectors, int(tokens.lengths.sum()), tokens.truncated)

    def _run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Return a vector for each sequence, (sequences, full dimension) float32."""
        tokens = prepared.tokens
        packed = self._engine.forward.packed
        batches = cut_batches(tokens.lengths, self._batch_tokens, padded=not packed, streams=self._stream_count)
        if not batches:
            return np.zeros((0, self.dimension), np.float32)

        def run(rows: NDArray[np.int64]) -> Tensor:
            return self._batch(prepared, rows)

        with self._lock:
            if self._streams is None:
                # The results stay on the device until all are on their way: nothing waits in between.
                waited: Iterable[Tensor] = (torch.cat([run(rows) for rows in batches]).float().cpu(),)
            else:
                waited = self._streams.map(run, batches)
        # Outside of the lock: a stream that has nothing left of these takes on the next call's.
        vectors = torch.cat(list(waited)).float().numpy()
        ordered = np.empty_like(vectors)
        ordered[np.concatenate(batches)] = vectors
        return ordered

    def _warm(self) -> None:
        """Run full batches of the lengths to come.

        Memory is then laid out, kernels are chosen, and a batch that is too large for the device is found out before
        the first text waits for it.
        """
        for length in sorted({min(length, self.max_tokens) for length in (*_WARM_LENGTHS, self.max_tokens)}):
            count = max(1, self._batch_tokens // length)
            lengths = np.full(count, length, np.int64)
            tokens = Tokens([np.ones(length, np.int64)] * count, np.zeros(count, np.int64), lengths)
            self._batch(Prepared(["(warming up)"], tokens), np.arange(count))

    def _batch(self, prepared: Prepared, rows: NDArray[np.int64]) -> Tensor:
        """Run a batch; one that the device has no memory for in halves."""
        texts, tokens = prepared.texts, prepared.tokens
        try:
            return self._engine.forward([tokens.sequences[row] for row in rows], prepared.prompt)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(rows) == 1:
                text = texts[int(tokens.texts[rows[0]])]
                raise DataError(
                    f"model {self._name}: {self.device} has no memory for a single text of "
                    f"{tokens.lengths[rows[0]]} tokens, {text[:60]!r}; allow fewer tokens, or use a larger device"
                ) from error
        # Outside of the handler: the error's traceback would keep the batch's tensors alive.
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        half = len(rows) // 2
        size = int(tokens.lengths[rows].sum())
        if size // 2 < self._batch_tokens:
            self._batch_tokens = max(size // 2, 1)
            LOGGER.warning(
                "model %s: %s has no memory for a batch of %d tokens; going on with %d",
                self._name, self.device, size, self._batch_tokens,
            )  # fmt: skip
        return torch.cat([self._batch(prepared, part) for part in (rows[:half], rows[half:])])


@functools.cache
def cpu_threads() -> int:
    """Return the threads that PyTorch takes by itself; remembered, since an encoder's own threads change the answer."""
    return torch.get_num_threads()


def resolved_precision(precision: str, device: torch.device) -> str:
    """Return the number type that a precision means on a device: auto is float32 on a CPU, float16 elsewhere."""
    if precision != "auto":
        return precision
    return "float32" if device.type == "cpu" else "float16"


def shortened(vectors: NDArray[np.float32], dimension: int, *, normalized: bool) -> NDArray[np.float32]:
    """Return the leading numbers of vectors.

    Args:
        vectors: (n, d) float32; not changed where d is larger than `dimension`.
        dimension: numbers to keep, at most d.
        normalized: whether they are brought back to length 1.

    Returns:
        (n, dimension) float32.
    """
    front = np.ascontiguousarray(vectors[:, :dimension])
    if normalized:
        front /= np.maximum(np.linalg.norm(front, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return front


def _pooled(vectors: NDArray[np.float32], texts: NDArray[np.int64], how: str) -> NDArray[np.float32]:
    """Pool the vectors of each text's windows, (sequences, d) → (texts, d)."""
    first = np.flatnonzero(np.diff(texts, prepend=-1))
    if how == "max":
        return np.maximum.reduceat(vectors, first, axis=0)
    counts = np.diff(first, append=len(texts))
    return (np.add.reduceat(vectors, first, axis=0) / counts[:, None]).astype(np.float32)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
