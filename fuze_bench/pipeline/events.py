"""What happens to bookmarks, one log line each, with the ids that tie the lines together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fuze_bench.pipeline.bookmarks import Bookmark, Claim, Mode, Processed, ProcessingError
from fuze_bench.pipeline.measurements import Ended

logger = logging.getLogger(__name__)


def ids(claim: Claim) -> dict[str, Any]:
    """What a line about this claim carries (`extra=`)."""
    return {**_about(claim.bookmark_id, claim), "attempt": claim.attempts}


def saved(bookmark: Bookmark, mode: Mode, *, was_duplicate: bool) -> None:
    """A save was committed, and seen to."""
    logger.info(
        "bookmark %d %s (%s, %s)",
        bookmark.id,
        "saved again" if was_duplicate else "saved",
        bookmark.queue,
        mode,
        extra={**_about(bookmark.id, bookmark), "mode": mode},
    )


def told(bookmarks: Sequence[Bookmark], what: str) -> None:
    """Somebody asked for something to be done with the bookmarks, which is done."""
    for bookmark in bookmarks:
        logger.info("bookmark %d %s", bookmark.id, what, extra=_about(bookmark.id, bookmark))


def claimed(claims: Sequence[Claim]) -> None:
    """Work on bookmarks begins."""
    for claim in claims:
        logger.info(
            "bookmark %d claimed (%s, attempt %d)",
            claim.bookmark_id,
            claim.queue,
            claim.attempts,
            extra=ids(claim),
        )


def ended(all_ended: Sequence[Ended]) -> None:
    """Work on bookmarks came to an end, which is stored."""
    for claim, outcome, durations_ms in all_ended:
        spent_ms = round(sum(durations_ms.values()), 1)
        extra = {**ids(claim), "duration_ms": spent_ms}
        if isinstance(outcome, Processed):
            logger.info("bookmark %d processed in %.0f ms", claim.bookmark_id, spent_ms, extra=extra)
        elif isinstance(outcome, ProcessingError):
            extra["reason"] = str(outcome.reason)
            logger.info("bookmark %d failed: %s", claim.bookmark_id, outcome, extra=extra)
        else:
            extra |= {"reason": str(outcome.error.reason), "retry_s": outcome.delay_s}
            logger.info(
                "bookmark %d to be tried again in %g s: %s",
                claim.bookmark_id,
                outcome.delay_s,
                outcome.error,
                extra=extra,
            )


def _about(bookmark_id: int, what: Bookmark | Claim) -> dict[str, Any]:
    return {"bookmark": bookmark_id, "job": what.job_id, "user": what.user_id, "queue": what.queue}
