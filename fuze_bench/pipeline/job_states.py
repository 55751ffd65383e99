"""What is known of a job, from its bookmark's row and from RQ."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from rq.job import Job

from fuze_bench.errors import InputError
from fuze_bench.pipeline.bookmarks import Bookmark, Mode, Status, parse_job_id
from fuze_bench.pipeline.store import Store

_JOB_STATUS = {
    Status.PENDING: "queued",
    Status.PROCESSING: "started",
    Status.PROCESSED: "finished",
    Status.FAILED: "failed",
}


class JobHandle(msgspec.Struct, frozen=True):
    """A job that was asked for: its id, its queue, and who will do it."""

    id: str
    queue: str
    mode: Mode


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job. Times are seconds since 1970 UTC; None: not yet, or not known."""

    id: str
    status: str
    queue: str
    created_at: float | None
    enqueued_at: float | None
    started_at: float | None
    ended_at: float | None
    attempts: int
    error: str | None
    result: Any


def state_of_row(job_id: str, bookmark: Bookmark, job: Job | None, result: Any) -> JobState:
    """What a bookmark's row and the job that is on it say together; the row knows better how far it is."""
    status = _JOB_STATUS[bookmark.status]
    if job is not None and bookmark.status is Status.PENDING:
        status = str(job.get_status(refresh=False).value)
    return JobState(
        id=job_id,
        status=status,
        queue=bookmark.queue,
        created_at=_seconds(job.created_at) if job else bookmark.created_at,
        enqueued_at=_seconds(job.enqueued_at) if job else None,
        started_at=bookmark.started_at,
        ended_at=bookmark.done_at,
        attempts=bookmark.attempts,
        error=bookmark.error,
        result=result,
    )


def state_of_job(job: Job, result: Any) -> JobState:
    """What RQ alone says of a job: its bookmark is gone, or another generation is at work."""
    return JobState(
        id=job.id,
        status=str(job.get_status(refresh=False).value),
        queue=job.origin,
        created_at=_seconds(job.created_at),
        enqueued_at=_seconds(job.enqueued_at),
        started_at=_seconds(job.started_at),
        ended_at=_seconds(job.ended_at),
        attempts=(job.number_of_retries or 0) + 1 if job.started_at else 0,
        error=None,
        result=result,
    )


def no_such_job(job_id: str, store: Store, user_id: int | None = None) -> InputError:
    """What to raise for a job that nobody knows; it names the one that came in its place. Raises StoreError."""
    key = parse_job_id(job_id)
    bookmark = None if key is None else store.get(key[0], user_id)
    if key is None or bookmark is None or bookmark.generation <= key[1]:
        problem = (
            f"there is no job {job_id[:50]!r}: take the id from the answer to a save, like bookmark-12-1"
        )
    else:
        problem = f"job {job_id} is over and forgotten: its bookmark was taken up again by {bookmark.job_id}"
    return InputError(problem, status=404)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
