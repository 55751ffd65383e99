"""Whether a trial has come to rest with jobs missing: nothing waits or runs any more, and some have not ended."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A worker that has just taken a job stands for a moment in no list of RQ's: asked again after this, it does.
_ASK_AGAIN_S = 1.0


class Rest:
    """Asks `is_at_rest` while jobs remain and none has ended for a while; believes it at the second time in a row."""

    def __init__(self, is_at_rest: Callable[[], bool], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._is_at_rest, self._clock_s = is_at_rest, clock_s
        self._remaining: int | None = None
        self._asked_s = 0.0
        self._times = 0

    def is_reached(self, remaining: int) -> bool:
        """To be told again and again how many jobs have not ended yet."""
        now_s = self._clock_s()
        if remaining != self._remaining:
            self._remaining, self._asked_s, self._times = remaining, now_s, 0
        elif now_s - self._asked_s >= _ASK_AGAIN_S:
            self._asked_s = now_s
            self._times = self._times + 1 if self._is_at_rest() else 0
        return self._times >= 2
