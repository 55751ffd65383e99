"""Pages read a second: the pipeline's title, text, language and date, against trafilatura's `bare_extraction`."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from statistics import fmean
from typing import Any

import trafilatura
import trafilatura.meta
import trafilatura.settings

from fuze_bench.lab.benchmarks.side_by_side import Agreement, Measure, Target
from fuze_bench.lab.parts.corpus import Page, load_corpus
from fuze_bench.pipeline.extract import Extracted
from fuze_bench.pipeline.page_reader import PageReader
from fuze_bench.pipeline.settings import Settings

UNIT = "pages/s"
OURS, THEIRS = "pipeline", "bare_extraction"
TARGETS = [Target(OURS, THEIRS, 1.8)]
SAME_AT_LEAST = OVERLAP_AT_LEAST = 0.98


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` leaves out pages."""
    pages = _pages(scale)
    return {OURS: partial(_our_rate, pages), THEIRS: partial(_their_rate, pages)}


def agreements(scale: float = 1.0) -> list[Agreement]:
    """On which share of the pages title and date are the same, and how many words of the texts are, page by page."""
    pages = _pages(scale)
    with closing(_reader()) as reader:
        pairs = [(_ours(reader, page), _theirs(page)) for page in pages]
    titles = fmean(ours.title == theirs.title for ours, theirs in pairs)
    dates = fmean(ours.published == theirs.date for ours, theirs in pairs)
    overlap = fmean(word_overlap(ours.text, theirs.text or "") for ours, theirs in pairs)
    return [
        Agreement("same title", THEIRS, titles, SAME_AT_LEAST),
        Agreement("same date", THEIRS, dates, SAME_AT_LEAST),
        Agreement("word overlap", THEIRS, overlap, OVERLAP_AT_LEAST),
    ]


def word_overlap(one: str, other: str) -> float:
    """Dice's coefficient over the words of two texts, each counted as often as it stands there; 1 if both are empty."""
    words = [Counter(re.findall(r"\w+", text)) for text in (one, other)]
    both = words[0].total() + words[1].total()
    return 2 * (words[0] & words[1]).total() / both if both else 1.0


def _our_rate(pages: list[Page]) -> float:
    with closing(_reader()) as reader:
        # The heaviest one: the process that reads such pages is there then.
        _ours(reader, max(pages, key=lambda page: len(page.body)))
        return _rate(partial(_ours, reader), pages)


def _their_rate(pages: list[Page]) -> float:
    _theirs(pages[0])
    return _rate(_theirs, pages)


def _rate(read: Callable[[Page], Any], pages: list[Page]) -> float:
    trafilatura.meta.reset_caches()  # what it remembers of the last round's dates
    began_s = time.perf_counter()
    for page in pages:
        read(page)
    return len(pages) / (time.perf_counter() - began_s)


def _ours(reader: PageReader, page: Page) -> Extracted:
    """As a worker does it."""
    return reader.read(page.body, page.content_type, _url(page))


def _theirs(page: Page) -> Any:
    """As its documentation shows it."""
    found = trafilatura.bare_extraction(page.body, url=_url(page), with_metadata=True)
    return found or trafilatura.settings.Document()


def _reader() -> PageReader:
    return PageReader(Settings().extract_timeout_s)


def _url(page: Page) -> str:
    return f"https://example.org/{page.path_name}"


def _pages(scale: float) -> list[Page]:
    """From all over the corpus."""
    pages = load_corpus()
    number = max(2, int(len(pages) * scale))
    return [pages[place * len(pages) // number] for place in range(number)]
