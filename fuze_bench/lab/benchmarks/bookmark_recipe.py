"""The job as most people write it first, for `rq worker`: everything that it needs is loaded in the job."""

from __future__ import annotations


def process_bookmark(url: str) -> int:
    """Fetch, extract and embed a page; how many characters it has."""
    import requests
    import trafilatura
    from sentence_transformers import SentenceTransformer

    from fuze_bench.lab.benchmarks.bookmark_loop import model_folder

    page = requests.get(url, timeout=30).text
    text = trafilatura.extract(page) or ""
    SentenceTransformer(model_folder()).encode(text)
    return len(text)
