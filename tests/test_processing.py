"""One bookmark from claim to store: what is stored, what fails and why, and that doubles are harmless."""

from __future__ import annotations

import multiprocessing
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rq.timeouts import JobTimeoutException

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import (
    Bookmark,
    EmbeddingState,
    NewBookmark,
    ProcessingError,
    Reason,
    Status,
)
from fuze_bench.pipeline.process import Pipeline, install_pipeline, process_bookmark_content_task
from fuze_bench.pipeline.schema import bookmarks
from fuze_bench.pipeline.settings import Settings

PAGES = Path(__file__).parent / "pages"


@pytest.fixture
def pipeline(any_database: Settings) -> Iterator[Pipeline]:
    opened = Pipeline(replace(any_database, retry_intervals_s=()))
    yield opened
    opened.close()


def saved(pipeline: Pipeline, *urls: str, **more: object) -> list[int]:
    new = [NewBookmark(**{"user_id": 1, "url": url, "canonical_url": url, **more}) for url in urls]
    return [each.bookmark.id for each in pipeline.store.save(new)]


def found(pipeline: Pipeline, bookmark_id: int) -> Bookmark:
    bookmark = pipeline.store.get(bookmark_id)
    assert bookmark is not None
    return bookmark


def test_everything_that_is_found_is_stored(pipeline: Pipeline, origin: Origin) -> None:
    [bookmark_id] = saved(pipeline, f"{origin.url}/redirect/1")
    pipeline.process([bookmark_id])
    bookmark = found(pipeline, bookmark_id)
    assert bookmark.status is Status.PROCESSED
    assert bookmark.http_status == 200
    assert bookmark.final_url != bookmark.url
    assert bookmark.title
    assert bookmark.summary
    assert bookmark.keywords
    assert bookmark.language
    assert (bookmark.word_count or 0) > 50
    assert (bookmark.reading_time_s or 0) > 5
    assert len(bookmark.content_hash or "") == 64
    assert bookmark.embedding is EmbeddingState.OFF
    assert set(bookmark.durations_ms) == {"fetch", "extract", "analyse"}
    text, vector = pipeline.store.content(bookmark_id)
    assert len(text or "") > 200
    assert vector is None


def test_a_batch_fails_one_by_one(pipeline: Pipeline, origin: Origin) -> None:
    paths = ["/page/1", "/status/404", "/hostile/pdf", "/page/2", "/hostile/binary", "/hostile/reset"]
    ids = saved(pipeline, *(origin.url + path for path in paths))
    outcomes = pipeline.process(ids)
    reasons = [getattr(outcomes[i], "reason", None) for i in ids]
    assert reasons == [None, Reason.NOT_FOUND, Reason.NOT_HTML, None, Reason.NOT_HTML, Reason.BROKEN_ANSWER]
    assert [found(pipeline, i).status for i in ids] == [
        Status.FAILED if reason else Status.PROCESSED for reason in reasons
    ]


@pytest.mark.parametrize("title", ["Mine", None])
def test_a_failure_keeps_the_users_title_and_stores_nothing_of_the_page(
    title: str | None, pipeline: Pipeline, origin: Origin
) -> None:
    check = (PAGES / "human-check.html").read_bytes()
    error_page = (
        f"<title>Just no</title><article><h1>Just no</h1>{'<p>Just a longer text.</p>' * 20}</article>"
    )
    for name, body in (("check", check), ("error", error_page.encode())):
        url = origin.put(f"/put/{name}", body, status=403)
        [bookmark_id] = saved(pipeline, url, title=title)
        pipeline.process([bookmark_id])
        bookmark = found(pipeline, bookmark_id)
        outcome = (bookmark.status, bookmark.reason, bookmark.http_status)
        assert outcome == (Status.FAILED, Reason.FORBIDDEN, 403)
        assert bookmark.title == title
        assert bookmark.embedding is None
        assert pipeline.store.content(bookmark_id) == (None, None)
    assert not re.search("Just|JavaScript|human", repr(pipeline.store.rows(*bookmarks.columns.keys())))


def test_a_page_that_was_gone_and_came_back_is_read_at_the_next_save(
    pipeline: Pipeline, origin: Origin
) -> None:
    url = f"{origin.url}/put/changing"
    [bookmark_id] = saved(pipeline, url)
    pipeline.process([bookmark_id])
    assert found(pipeline, bookmark_id).reason is Reason.NOT_FOUND
    origin.put("/put/changing", b"<title>T</title><p>The words that are here since it came back.</p>")
    assert saved(pipeline, url) == [bookmark_id]
    pipeline.process([bookmark_id])
    bookmark = found(pipeline, bookmark_id)
    assert (bookmark.status, bookmark.reason, bookmark.error) == (Status.PROCESSED, None, None)
    assert bookmark.generation == 2


def test_twenty_deliveries_at_once_fetch_once(any_database: Settings, origin: Origin) -> None:
    """Ten threads here and ten in two forked processes, all handed the same bookmark at the same moment."""
    pipeline = Pipeline(any_database)
    [bookmark_id] = saved(pipeline, f"{origin.url}/slow/200/3")
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(20)
    children = [fork.Process(target=_deliver, args=(any_database, bookmark_id, barrier, 5)) for _ in range(2)]
    for child in children:
        child.start()
    _deliver(any_database, bookmark_id, barrier, 10)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    bookmark = found(pipeline, bookmark_id)
    assert (bookmark.status, bookmark.attempts) == (Status.PROCESSED, 1)
    assert origin.hits("/slow/200/3") == 1
    pipeline.close()


def _deliver(settings: Settings, bookmark_id: int, barrier: Barrier, threads: int) -> None:
    pipeline = Pipeline(settings)

    def deliver() -> None:
        barrier.wait(60)
        pipeline.process([bookmark_id])

    running = [threading.Thread(target=deliver) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    pipeline.close()


def test_of_two_processes_that_are_handed_a_job_one_does_it_and_one_says_so(
    any_database: Settings, origin: Origin
) -> None:
    """Fifty times; what is stored, durations included, is what the one that did it found."""
    jobs = 50
    pipeline = Pipeline(any_database)
    urls = [f"{origin.url}/slow/30/{n}" for n in range(jobs)]
    ids = saved(pipeline, *urls)
    fork = multiprocessing.get_context("fork")
    barrier, told = fork.Barrier(2), fork.SimpleQueue()
    children = [
        fork.Process(target=_run_jobs, args=(any_database, list(zip(ids, urls, strict=True)), barrier, told))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    reports = [told.get() for _ in children]
    for child in children:
        child.join(60)
    rows = pipeline.store.rows("status", "attempts", "durations_ms")
    for n, (one, other) in enumerate(zip(*reports, strict=True)):
        (did, spent_ms), (did_not, _) = sorted(
            (one, other), key=lambda report: report[0]["status"] != "processed"
        )
        assert did == {"bookmark_id": ids[n], "status": "processed", "words": did["words"]}
        assert did_not == {"bookmark_id": ids[n], "status": "already taken"}
        assert (rows[n]["status"], rows[n]["attempts"]) == (Status.PROCESSED, 1)
        assert rows[n]["durations_ms"]["fetch"] >= 30
        assert sum(rows[n]["durations_ms"].values()) <= spent_ms
        assert origin.hits(f"/slow/30/{n}") == 1
    pipeline.close()


def _run_jobs(settings: Settings, jobs: list[tuple[int, str]], barrier: Barrier, told: Any) -> None:
    """Tells what each job returned, and how long it took (ms)."""
    pipeline = Pipeline(settings)
    install_pipeline(pipeline)
    reports = []
    for bookmark_id, url in jobs:
        barrier.wait(60)
        start_s = time.monotonic()
        report = process_bookmark_content_task(bookmark_id, url, 1)
        reports.append((report, (time.monotonic() - start_s) * 1e3))
    told.put(reports)
    pipeline.close()


def test_a_lease_is_renewed_while_the_work_goes_on(any_database: Settings, origin: Origin) -> None:
    slow = Pipeline(replace(any_database, lease_s=2.0))
    [bookmark_id] = saved(slow, f"{origin.url}/slow/5000/1")
    worker = threading.Thread(target=slow.process, args=([bookmark_id],))
    worker.start()
    taken = 0
    while worker.is_alive():
        taken += len(slow.store.claim([bookmark_id], 2.0)) if origin.hits("/slow/5000/1") else 0
        time.sleep(0.05)
    worker.join()
    assert taken == 0
    assert found(slow, bookmark_id).status is Status.PROCESSED
    slow.close()


def test_told_to_stop_in_the_middle_it_gives_the_bookmark_back(pipeline: Pipeline, origin: Origin) -> None:
    class Told(BaseException):
        pass

    [bookmark_id] = saved(pipeline, f"{origin.url}/slow/20000/1")
    with _alarm(Told), pytest.raises(Told):
        pipeline.process([bookmark_id])
    assert found(pipeline, bookmark_id).status is Status.PENDING
    assert found(pipeline, bookmark_id).attempts == 0


def test_the_jobs_timeout_is_a_reason(pipeline: Pipeline, origin: Origin) -> None:
    [bookmark_id] = saved(pipeline, f"{origin.url}/slow/20000/1")
    with _alarm(JobTimeoutException):
        outcome = pipeline.process([bookmark_id])[bookmark_id]
    assert isinstance(outcome, ProcessingError)
    assert outcome.reason is Reason.TIMED_OUT
    assert found(pipeline, bookmark_id).status is Status.FAILED


class _alarm:  # noqa: N801 - reads as a statement
    """Raises an exception in the main thread while the block waits for the origin."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __enter__(self) -> None:
        def ring(_number: int, _frame: object) -> None:
            raise self._error

        self._before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.7)

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


def test_a_bug_in_a_stage_is_one_bookmarks_trouble(
    pipeline: Pipeline, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(body: bytes, *_rest: object) -> object:
        if b"boom" in body:
            raise ValueError("a bug")
        return real(body, *_rest)  # type: ignore[arg-type]

    from fuze_bench.pipeline import page_reader

    real = page_reader.extract_light
    monkeypatch.setattr(page_reader, "extract_light", broken)
    bad = origin.put("/put/bad", b"<p>boom</p>")
    ids = saved(pipeline, bad, f"{origin.url}/page/1")
    outcomes = pipeline.process(ids)
    assert getattr(outcomes[ids[0]], "reason", None) is Reason.INTERNAL_ERROR
    assert found(pipeline, ids[1]).status is Status.PROCESSED


@pytest.mark.xdist_group("model")
def test_no_model_no_vector_and_filled_in_when_it_is_there(data_dir: object, origin: Origin) -> None:
    """Text is stored although the model cannot be had; a process that has the model fills the vector in."""
    settings = Settings(data_dir=data_dir, fetch_allow=("127.0.0.1",))  # type: ignore[arg-type]
    lacking = Pipeline(replace(settings, embedding_model="/no/such/model"))
    ids = saved(lacking, f"{origin.url}/page/1", f"{origin.url}/page/2")
    lacking.process(ids)
    assert [found(lacking, i).embedding for i in ids] == [EmbeddingState.UNAVAILABLE] * 2
    assert [found(lacking, i).status for i in ids] == [Status.PROCESSED] * 2
    assert lacking.fill_in_embeddings() == 0
    having = Pipeline(settings, store=lacking.store)
    assert having.fill_in_embeddings() == 2
    for i in ids:
        text, vector = having.store.content(i)
        stored = np.frombuffer(vector or b"", dtype=np.float32)
        assert stored.shape == (384,)
        assert np.isclose(np.linalg.norm(stored), 1)
        assert stored @ having.embedder.embed([text or ""])[0] > 0.9999
        assert found(having, i).embedding_model == "all-MiniLM-L6-v2"
    new = saved(having, f"{origin.url}/page/3")
    having.process(new)
    assert found(having, new[0]).embedding is EmbeddingState.OK
    assert "embed" in found(having, new[0]).durations_ms
    having.close()
