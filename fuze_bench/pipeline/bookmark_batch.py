"""Many bookmarks at once for a batch worker: the pages of the next batch are fetched while this one is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rq.job import Retry

from fuze_bench.pipeline.batch_form import Call
from fuze_bench.pipeline.bookmarks import Outcome, ProcessingError, Status, TryAgain
from fuze_bench.pipeline.politeness import Turn

if TYPE_CHECKING:
    from fuze_bench.pipeline.process import Pipeline
    from fuze_bench.pipeline.work import Work

ANY_NUMBER = 1_000_000


@dataclass
class _Begun:
    pipeline: Pipeline
    bookmark_ids: list[int]
    turns: dict[int, Turn]
    work: Work


class BookmarkBatch:
    """The batch form of `process_bookmark_content_task`; for its parts see `batch_form`."""

    size = 8

    def begin(self, calls: Sequence[Call]) -> _Begun:
        """Claim those whose hosts may be asked now, and start to fetch them."""
        from fuze_bench.pipeline.process import current_pipeline

        pipeline = current_pipeline()
        urls = {bookmark_id: url for (bookmark_id, url, _), _ in calls}
        turns = {bookmark_id: pipeline.hosts.enter(url, bookmark_id) for bookmark_id, url in urls.items()}
        allowed = [bookmark_id for bookmark_id, turn in turns.items() if not turn.wait_s]
        work = pipeline.begin(
            allowed, when_fetched=lambda bookmark_id: pipeline.hosts.leave(turns[bookmark_id])
        )
        return _Begun(pipeline, [bookmark_id for (bookmark_id, _, _), _ in calls], turns, work)

    def is_ready(self, begun: _Begun) -> bool:
        """Whether all pages are there, or known not to come."""
        return all(fetch.done() for fetch in begun.work.fetches)

    def finish(self, begun: _Begun) -> list[Any]:
        """Extract, embed, analyse and store."""
        outcomes = begun.pipeline.finish(begun.work)
        return [
            come_back_after(turn.wait_s)
            if (turn := begun.turns[bookmark_id]).wait_s
            else ending(begun.pipeline, bookmark_id, outcomes[bookmark_id])
            for bookmark_id in begun.bookmark_ids
        ]


def ending(
    pipeline: Pipeline, bookmark_id: int, outcome: Outcome | None
) -> dict[str, Any] | Retry | ProcessingError:
    """How a bookmark's job ends: by a value, by being tried again, or by the error that it fails with."""
    if isinstance(outcome, ProcessingError):
        return outcome
    if isinstance(outcome, TryAgain):
        # How often is decided by the bookmark's row, so that a job which is lost and made again changes nothing.
        return _again_in(outcome.delay_s)
    if outcome is None:
        if (due_in_s := pipeline.due_in_s(bookmark_id)) is not None:
            # Another copy of this job was told when to come back, or the clock that said so is ahead of this one.
            return _again_in(due_in_s)
        return {"bookmark_id": bookmark_id, "status": "already taken"}
    return {"bookmark_id": bookmark_id, "status": str(Status.PROCESSED), "words": outcome.word_count}


def come_back_after(wait_s: float) -> Retry:
    """The job's host has been asked enough for now."""
    return Retry(max=ANY_NUMBER, interval=math.ceil(wait_s))


def _again_in(wait_s: float) -> Retry:
    # RQ cuts the moment down to a whole second: with one more it is not too early.
    return Retry(max=ANY_NUMBER, interval=math.ceil(wait_s) + 1)
