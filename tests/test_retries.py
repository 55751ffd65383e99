"""Failures by cause: final at once, tried again, or put off as the site asked; and retries that really happen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import cycle

import pytest
from conftest import StartWorker, wait_until
from hypothesis import example, given
from hypothesis import strategies as st
from rq import Queue
from rq.job import Retry
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Claim, NewBookmark, ProcessingError, Reason, Status, TryAgain
from fuze_bench.pipeline.process import Pipeline, install_pipeline, process_bookmark_content_task
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.retries import RETRIED, after_failure, parse_retry_after
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

NOW_S = 1_700_000_000.0
SETTINGS = Settings()


def decide(
    reason: Reason, *, tries: int = 0, attempts: int = 1, waited_s: float = 0.0, **more: float | None
) -> ProcessingError | TryAgain:
    claim = Claim(
        bookmark_id=1,
        url="u",
        user_id=1,
        token="t",
        generation=1,
        attempts=attempts,
        tries=tries,
        queue="default",
        queued_at=NOW_S - waited_s,
    )
    return after_failure(ProcessingError(reason, "detail", **more), claim, NOW_S, SETTINGS)


@pytest.mark.parametrize("reason", sorted(set(Reason) - RETRIED))
def test_final_at_once(reason: Reason) -> None:
    assert isinstance(decide(reason), ProcessingError)


@pytest.mark.parametrize("reason", sorted(RETRIED - {Reason.RATE_LIMITED}))
def test_tried_again_after_a_minute_and_after_five(reason: Reason) -> None:
    first, second, third = (decide(reason, tries=tries) for tries in range(3))
    assert isinstance(first, TryAgain)
    assert isinstance(second, TryAgain)
    assert (first.delay_s, first.counts) == (60, True)
    assert (second.delay_s, second.counts) == (300, True)
    assert isinstance(third, ProcessingError)


def test_what_is_final_is_what_the_documentation_says() -> None:
    assert {
        Reason.NOT_FOUND,
        Reason.UNAUTHORIZED,
        Reason.NOT_HTML,
        Reason.TOO_LARGE,
        Reason.TLS_FAILED,
    }.isdisjoint(RETRIED)


@pytest.mark.parametrize(
    ("reason", "asked_s", "delay_s"),
    [
        (Reason.RATE_LIMITED, 90.0, 90.0),
        (Reason.RATE_LIMITED, 7.0, SETTINGS.retry_after_default_s),
        (Reason.RATE_LIMITED, None, SETTINGS.retry_after_default_s),
        (Reason.RATE_LIMITED, 1e9, SETTINGS.retry_after_max_s),
        (Reason.SERVER_ERROR, 300.0, 300.0),
        (Reason.SERVER_ERROR, 0.0, SETTINGS.retry_after_default_s),
    ],
)
def test_a_site_that_puts_us_off_uses_up_no_try(
    reason: Reason, asked_s: float | None, delay_s: float
) -> None:
    for tries in (0, 2):
        outcome = decide(reason, tries=tries, retry_after_s=asked_s)
        assert isinstance(outcome, TryAgain)
        assert (outcome.delay_s, outcome.counts) == (delay_s, False)
    assert isinstance(
        decide(reason, waited_s=SETTINGS.retry_for_s + 1, retry_after_s=asked_s), ProcessingError
    )


@given(
    answers=st.lists(
        st.tuples(
            st.sampled_from([Reason.RATE_LIMITED, Reason.SERVER_ERROR]),
            st.one_of(st.none(), st.floats(min_value=0, max_value=1e9)),
        ),
        min_size=1,
    )
)
@example(answers=[(Reason.SERVER_ERROR, 0.0)])
@example(answers=[(Reason.RATE_LIMITED, None)])
def test_no_answers_make_it_ask_often(answers: list[tuple[Reason, float | None]]) -> None:
    """The site gives these answers over and over: a day is over, or the page has failed, after a few dozen."""
    waited_s, tries = 0.0, 0
    for attempts, (reason, asked_s) in zip(range(1, 41), cycle(answers), strict=False):
        outcome = decide(reason, tries=tries, attempts=attempts, waited_s=waited_s, retry_after_s=asked_s)
        if isinstance(outcome, ProcessingError):
            return
        waited_s += outcome.delay_s
        tries += outcome.counts
    pytest.fail(f"asked 40 times within {waited_s:g} s")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        (format_datetime(datetime.fromtimestamp(NOW_S + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW_S - 90, UTC), usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        (None, None),
        ("9" * 5_000, float("9" * 12)),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW_S) == seconds


@given(st.text())
def test_no_header_breaks_it(header: str) -> None:
    seconds = parse_retry_after(header, NOW_S)
    assert seconds is None or seconds >= 0


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    return replace(settings, retry_intervals_s=(1.0, 2.0))


@pytest.fixture
def saving(hasty: Settings) -> Iterator[BookmarkService]:
    with BookmarkService(hasty) as service:
        yield service


def save(service: BookmarkService, url: str) -> int:
    return service.save([service.check(user_id=1, url=url)])[0].bookmark.id


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_retries_happen(
    kind: str, saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """503, 503, 200, with a worker started as the README says: three attempts, done, nothing left scheduled."""
    bookmark_id = save(saving, f"{origin.url}/flaky/2/1")
    with start_worker(hasty, "--kind", kind):
        wait_until(lambda: origin.hits("/flaky/2/1") >= 1, what="the first try")
        wait_until(lambda: saving.store.get(bookmark_id).status is Status.PROCESSED, what="the third try")  # type: ignore[union-attr]
    found = saving.store.get(bookmark_id)
    assert found is not None
    assert (found.attempts, found.reason, found.error, found.retry_at) == (3, None, None, None)
    assert origin.hits("/flaky/2/1") == 3
    queue = Queue("default", connection=connect(hasty.redis_url or ""), serializer=JSONSerializer)
    assert len(ScheduledJobRegistry(queue=queue)) == 0
    assert queue.count == 0


def test_between_tries_it_waits_with_its_reason(
    saving: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    bookmark_id = save(saving, f"{origin.url}/status/500")
    with start_worker(settings, "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    found = saving.store.get(bookmark_id)
    assert found is not None
    assert (found.status, found.reason, found.http_status) == (Status.PENDING, Reason.SERVER_ERROR, 500)
    assert found.retry_at is not None
    assert 50 < found.retry_at - (found.started_at or 0) < 70
    state = saving.queue.job_state(found.job_id, saving.store)
    assert state is not None
    assert state.status == "scheduled"


def test_after_the_last_try_it_is_final(
    saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    bookmark_id = save(saving, f"{origin.url}/status/500")
    with start_worker(hasty):
        wait_until(lambda: saving.store.get(bookmark_id).status is Status.FAILED, what="the end")  # type: ignore[union-attr]
    assert origin.hits("/status/500") == 3
    assert saving.store.get(bookmark_id).attempts == 3  # type: ignore[union-attr]


def test_retries_happen_although_the_worker_that_schedules_is_killed(
    saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """kill -9 to the whole group of the worker that holds the scheduler's lock: another takes over within half a minute."""
    patient = replace(hasty, retry_intervals_s=(3.0, 1.0))
    bookmark_id = save(saving, f"{origin.url}/flaky/1/1")
    with start_worker(patient) as first:
        wait_until(lambda: origin.hits("/flaky/1/1") == 1, what="the first try")
        wait_until(
            lambda: saving.store.get(bookmark_id).status is Status.PENDING, what="the retry to be planned"
        )  # type: ignore[union-attr]
        with start_worker(patient), connect(hasty.redis_url or "") as client:
            os.killpg(first.pid, signal.SIGKILL)
            locks = client.keys("rq:scheduler-lock:*")
            assert locks
            assert all(0 < client.ttl(each) <= 15 for each in locks)
            client.delete(*locks)  # as if that time were over
            killed_s = time.monotonic()
            wait_until(
                lambda: saving.store.get(bookmark_id).status is Status.PROCESSED,  # type: ignore[union-attr]
                what="the second try",
            )
            assert time.monotonic() - killed_s < 20


def test_a_second_copy_of_a_job_waits_as_the_site_asked(settings: Settings, origin: Origin) -> None:
    """A site that said when to come back is not asked before, and the job goes on then."""
    pipeline = Pipeline(settings)
    url = f"{origin.url}/status/429"
    new = NewBookmark(user_id=1, url=url, canonical_url=url)
    bookmark_id = pipeline.store.save([new])[0].bookmark.id
    install_pipeline(pipeline)
    try:
        first, second = (process_bookmark_content_task(bookmark_id, url, 1) for _ in range(2))
    finally:
        install_pipeline(None)
        pipeline.close()
    assert isinstance(first, Retry)
    assert isinstance(second, Retry)
    assert first.intervals[0] - 5 < second.intervals[0] <= first.intervals[0]
    assert origin.hits("/status/429") == 1
