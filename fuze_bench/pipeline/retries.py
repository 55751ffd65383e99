"""What a failure means: final at once, tried again after an interval, or put off as the site asked."""

from __future__ import annotations

import email.utils
import math
from datetime import UTC
from typing import TYPE_CHECKING

from fuze_bench.pipeline.bookmarks import ProcessingError, Reason, TryAgain
from fuze_bench.pipeline.settings import Settings

if TYPE_CHECKING:
    from fuze_bench.pipeline.bookmarks import Claim

#: Everything else is final: asking again would get the same answer.
RETRIED = frozenset(
    {
        Reason.TIMED_OUT,
        Reason.CONNECTION_FAILED,
        Reason.BROKEN_ANSWER,
        Reason.FORBIDDEN,
        Reason.BLOCKED,
        Reason.RATE_LIMITED,
        Reason.SERVER_ERROR,
        Reason.INTERNAL_ERROR,
    }
)
#: From one second to more than a day.
_MOST_DOUBLINGS = 17


def after_failure(
    error: ProcessingError, claim: Claim, now_s: float, settings: Settings
) -> ProcessingError | TryAgain:
    """The error itself if it ends the bookmark's processing, else when to try again.

    A site that says when to come back (429, or 503 with Retry-After) is obeyed, up to `retry_after_max_s`, and that
    uses up no try; but not for longer than `retry_for_s` since the bookmark was queued. So that no site has a page
    fetched many times, the wait is at least `retry_after_default_s`, doubled after each attempt.
    `now_s`: wall-clock seconds.
    """
    if error.reason not in RETRIED:
        return error
    if error.reason is Reason.RATE_LIMITED or error.retry_after_s is not None:
        if now_s - claim.queued_at >= settings.retry_for_s:
            return error
        least_s = settings.retry_after_default_s * 2 ** min(claim.attempts - 1, _MOST_DOUBLINGS)
        delay_s = min(max(error.retry_after_s or 0.0, least_s), settings.retry_after_max_s)
        return TryAgain(error=error, delay_s=delay_s, counts=False)
    if claim.tries >= len(settings.retry_intervals_s):
        return error
    return TryAgain(error=error, delay_s=settings.retry_intervals_s[claim.tries], counts=True)


def parse_retry_after(header: str | None, now_s: float) -> float | None:
    """Seconds from now that a Retry-After header asks for (RFC 9110, section 10.2.3: seconds or a date).

    None if there is none or it cannot be read; never negative.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_s
    return max(0.0, seconds) if math.isfinite(seconds) else None
