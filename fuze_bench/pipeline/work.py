"""Bookmarks on their way through the stages: what each has got so far, and what holds a batch of them together."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field

from fuze_bench.pipeline.analyse import Analysis
from fuze_bench.pipeline.bookmarks import Claim, EmbeddingState, Outcome, Processed, ProcessingError
from fuze_bench.pipeline.extract import Extracted
from fuze_bench.pipeline.fetch import FetchedPage
from fuze_bench.timing import StageTimer


@dataclass
class Item:
    """A claimed bookmark on its way through the stages; `error` ends it, what the stages found comes before."""

    claim: Claim
    timer: StageTimer
    error: ProcessingError | None = None
    page: FetchedPage | None = None
    extracted: Extracted | None = None
    analysis: Analysis | None = None
    vector: bytes | None = None
    embedding: EmbeddingState = EmbeddingState.OFF
    model_name: str | None = None

    def outcome(self) -> Outcome:
        if self.error is not None:
            return self.error
        assert self.page is not None
        assert self.extracted is not None
        assert self.analysis is not None
        return Processed(
            final_url=self.page.final_url,
            http_status=self.page.http_status,
            title=self.extracted.title,
            text=self.extracted.text,
            language=self.extracted.language,
            published=self.extracted.published,
            summary=self.analysis.summary,
            keywords=self.analysis.keywords,
            word_count=self.analysis.word_count,
            reading_time_s=self.analysis.reading_time_s,
            content_hash=hashlib.sha256(self.extracted.text.encode()).hexdigest(),
            embedding=self.embedding,
            embedding_model=self.model_name,
            vector=self.vector,
        )


@dataclass
class Work:
    """Bookmarks on their way: what is known of each so far, those claimed, their leases, and the fetches that run."""

    outcomes: dict[int, Outcome | None]
    items: list[Item] = field(default_factory=list)
    leases: ExitStack = field(default_factory=ExitStack)
    fetches: list[Future[None]] = field(default_factory=list)
