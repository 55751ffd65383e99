"""Counts of what became of bookmarks, kept in Redis: whoever finishes one adds to them, the API shows them.

Workers have no HTTP of their own and may be on other hosts, so the counts are one hash (`KEY`): a field for every
counter and for every bucket and sum of a histogram. Durations are summed in whole microseconds.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis

from fuze_bench.errors import one_line
from fuze_bench.pipeline.bookmarks import Claim, Mode, Outcome, Processed, ProcessingError, Reason
from fuze_bench.pipeline.redis_server import quick_client
from fuze_bench.pipeline.settings import Settings

logger = logging.getLogger(__name__)

KEY = "fuze:metrics"
#: Upper bounds in seconds; what took longer is in a bucket without one.
SAVE_TO_STORED_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600)
STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

#: A Redis that hung may do what it was told although nobody waited for the answer, and is told again when it is back:
#: what is added carries a name, which Redis remembers for longer than that takes.
_ADD_ONCE = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', 300) then
    for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
"""
_SHORTEST_RETRY_S = 0.05


class Ended(NamedTuple):
    """What became of a claim that held to the end, and how long its stages took."""

    claim: Claim
    outcome: Outcome
    durations_ms: Mapping[str, float]


class Counts(Counter[str]):
    """Fields of the hash and what is to be added to each."""

    def add_ended(self, ended: Sequence[Ended], stored_at_s: float, mode: Mode) -> None:
        """Count the outcomes, which were stored at `stored_at_s` (wall clock), and their stages."""
        for claim, outcome, durations_ms in ended:
            if isinstance(outcome, Processed):
                self[f"processed|{claim.queue}|{mode}"] += 1
                waited_s = stored_at_s - claim.queued_at
                self._observe(f"save_to_stored|{claim.queue}|{mode}", waited_s, SAVE_TO_STORED_BUCKETS_S)
            elif isinstance(outcome, ProcessingError):
                self[f"failed|{outcome.reason}"] += 1
            else:
                self[f"retried|{outcome.error.reason}"] += 1
            for stage, spent_ms in durations_ms.items():
                self._observe(f"stage|{stage}", spent_ms / 1e3, STAGE_BUCKETS_S)

    def _observe(self, name: str, seconds: float, bounds_s: Sequence[float]) -> None:
        if seconds < 0:
            _say_once_that_the_clock_was_set(name, seconds)
            return
        place = bisect_left(bounds_s, seconds)
        self[f"{name}|{bounds_s[place] if place < len(bounds_s) else '+Inf'}"] += 1
        self[f"{name}|sum"] += round(seconds * 1e6)


class Measurements:
    """Adds to the counts in Redis; while it is away, keeps what is to be added (a number a field, so it is bounded).

    Only the call that finds Redis away waits for it, and not for longer than its timeout: from then on a thread asks
    whether it is back. A process that ends before that, as the one that a fork or spawn worker has for a job, takes
    along what it kept. Safe to use from threads, and after a fork.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start_lock = threading.Lock()
        self._start_here()

    def _start_here(self) -> None:
        """What belongs to one process: a fork neither uses its parent's connection nor adds its parent's counts."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._redis: redis.Redis | None = None
        self._waiting = Counts()
        self._sent: tuple[str, Counts] | None = None
        self._is_away = False
        self._closed = threading.Event()

    def ended(self, ended: Sequence[Ended], stored_at_s: float, mode: Mode) -> None:
        """Count what became of a batch, in one round trip."""
        counts = Counts()
        counts.add_ended(ended, stored_at_s, mode)
        self.add(counts)

    def failed(self, reason: Reason, number: int) -> None:
        """Count bookmarks that failed without having been processed to an end."""
        if number:
            self.add(Counts({f"failed|{reason}": number}))

    def add(self, counts: Counts) -> None:
        """Add to the counts, or keep them until Redis is back."""
        if not counts:
            return
        with self._start_lock:
            if self._pid != os.getpid():
                self._start_here()
        with self._lock:
            self._waiting.update(counts)
            if not self._is_away:
                self._flush()

    def close(self) -> None:
        """Stop waiting for a Redis that is away; what was kept for it is lost. Safe to call twice."""
        self._closed.set()

    def _flush(self) -> None:
        """Send what waits. The lock is held: who finishes meanwhile waits for the same answer, and not once more."""
        self._sent, self._waiting = (uuid.uuid4().hex, self._waiting), Counts()
        problem = self._send()
        if problem is not None:
            self._is_away = True
            logger.warning("measurements are kept until Redis takes them: %s", problem)
            threading.Thread(target=self._wait_for_return, name="measurements", daemon=True).start()

    def _send(self) -> str | None:
        """Add what is marked as sent, once however often it is tried; what went wrong, if anything did."""
        assert self._sent is not None
        name, counts = self._sent
        try:
            self._redis = self._redis or quick_client(self._settings)
            if self._redis is None:
                return "none is set or running"
            arguments = [part for field, number in counts.items() for part in (field, number)]
            self._redis.eval(_ADD_ONCE, 2, KEY, f"{KEY}:added:{name}", *arguments)
        except redis.RedisError as error:
            return one_line(error)
        self._sent = None
        return None

    def _wait_for_return(self) -> None:
        # As long as Redis is away, nobody but this thread sends; it does so without the lock.
        while not self._closed.wait(max(_SHORTEST_RETRY_S, self._settings.redis_retry_s)):
            while self._send() is None:
                with self._lock:
                    if not self._waiting:
                        self._is_away = False
                        return
                    self._sent, self._waiting = (uuid.uuid4().hex, self._waiting), Counts()


_clock_lock = threading.Lock()
_clock_was_set = False


def _say_once_that_the_clock_was_set(name: str, seconds: float) -> None:
    global _clock_was_set
    with _clock_lock:
        if _clock_was_set:
            return
        _clock_was_set = True
    logger.warning("%s took %.3f s: a clock was set; such durations are not counted", name, seconds)
