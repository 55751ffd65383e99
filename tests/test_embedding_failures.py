"""A model that fails in the middle of its work: the text is stored, nobody else is taken along, nothing loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from rq.timeouts import JobTimeoutException

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import embed
from fuze_bench.pipeline.bookmarks import EmbeddingState, NewBookmark, Reason, Status
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.settings import Settings


class Fragile:
    """An embedder of two numbers that fails with `error` while a text holds "boom"."""

    state = EmbeddingState.OK
    model_name = "fragile"
    problem = None

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.error is not None and any("boom" in text for text in texts):
            raise self.error
        return np.ones((len(texts), 2), dtype=np.float32)


@pytest.fixture
def open_pipeline(data_dir: object) -> Iterator[Callable[[Exception], Pipeline]]:
    opened = []

    def open_one(error: Exception) -> Pipeline:
        settings = Settings(data_dir=data_dir, fetch_allow=("127.0.0.1",))  # type: ignore[arg-type]
        opened.append(Pipeline(replace(settings, retry_intervals_s=()), embedder=Fragile(error)))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def three(pipeline: Pipeline, origin: Origin) -> list[int]:
    """A page that the model can read, one that it cannot, and another that it can."""
    words = "Here are some words for the model to read, and there are enough of them. " * 5
    urls = [
        origin.put(f"/put/{name}", f"<title>T</title><p>{name} {words}</p>".encode())
        for name in ("a", "boom", "c")
    ]
    return [
        each.bookmark.id
        for url in urls
        for each in pipeline.store.save([NewBookmark(user_id=1, url=url, canonical_url=url)])
    ]


def embeddings(pipeline: Pipeline, ids: list[int]) -> list[EmbeddingState | None]:
    return [pipeline.store.get(i).embedding for i in ids]  # type: ignore[union-attr]


MIXED = [EmbeddingState.OK, EmbeddingState.UNAVAILABLE, EmbeddingState.OK]


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), ValueError("a broken model"), MemoryError()]
)
def test_a_text_that_the_model_fails_at_is_stored_and_takes_no_other_along(
    error: Exception, open_pipeline: Callable[[Exception], Pipeline], origin: Origin
) -> None:
    pipeline = open_pipeline(error)
    ids = three(pipeline, origin)
    pipeline.process(ids)
    found = [pipeline.store.get(i) for i in ids]
    assert [(each.status, each.attempts) for each in found if each] == [(Status.PROCESSED, 1)] * 3
    assert embeddings(pipeline, ids) == MIXED
    assert [each.embedding_model for each in found if each] == ["fragile", None, "fragile"]
    assert pipeline.store.content(ids[1])[1] is None


def test_filling_in_goes_past_a_text_that_the_model_fails_at(
    open_pipeline: Callable[[Exception], Pipeline], origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuze_bench.pipeline.process._FILL_IN_BATCH", 1)
    pipeline = open_pipeline(RuntimeError("out of memory"))
    ids = three(pipeline, origin)
    lacking = Pipeline(replace(pipeline.settings, embedding_model="/no/such/model"), store=pipeline.store)
    lacking.process(ids)
    assert embeddings(pipeline, ids) == [EmbeddingState.UNAVAILABLE] * 3
    assert pipeline.fill_in_embeddings() == 2
    assert embeddings(pipeline, ids) == MIXED
    assert pipeline.fill_in_embeddings() == 0
    pipeline.embedder.error = None  # type: ignore[attr-defined]
    assert pipeline.fill_in_embeddings() == 1
    assert embeddings(pipeline, ids) == [EmbeddingState.OK] * 3


def test_the_jobs_timeout_in_the_model_is_the_jobs(
    open_pipeline: Callable[[Exception], Pipeline], origin: Origin
) -> None:
    pipeline = open_pipeline(JobTimeoutException("too long"))
    ids = three(pipeline, origin)
    pipeline.process(ids[1:2])
    found = pipeline.store.get(ids[1])
    assert found is not None
    assert (found.status, found.reason) == (Status.FAILED, Reason.TIMED_OUT)
    assert pipeline.store.get(ids[0]).status is Status.PENDING  # type: ignore[union-attr]


def test_what_fails_between_the_stages_counts_as_a_try(
    open_pipeline: Callable[[Exception], Pipeline], origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bookmark that is given back uncounted would be fetched again and again."""
    pipeline = open_pipeline(RuntimeError())

    def broken(_items: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pipeline, "_fetch", broken)
    [bookmark_id] = three(pipeline, origin)[:1]
    pipeline.process([bookmark_id])
    found = pipeline.store.get(bookmark_id)
    assert found is not None
    assert (found.status, found.reason, found.attempts) == (Status.FAILED, Reason.INTERNAL_ERROR, 1)


def test_a_job_that_ran_out_of_time_says_nothing_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(_model: str) -> tuple[str, str]:
        raise JobTimeoutException("too long")

    monkeypatch.setattr(embed, "_locate", late)
    with pytest.raises(JobTimeoutException):
        embed.load_embedder(Settings())
