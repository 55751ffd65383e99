"""What becomes of a batch worker's claims when it and its child are killed at once: begun or not, Redis knows.

RQ's clean-up fails every job of a dead worker, which with RQ's workers is the one that it was running. A batch worker has
more in hand, most of it not begun. So it keeps two things in Redis beside RQ's own: a lease that ends soon after the
worker, and the serial number below which jobs may have begun. Any batch worker puts the rest of a dead one's claims
back on their queues; what had begun is left to RQ's clean-up.

No job runs twice by that: the child tells Redis before it begins one, and begins none that its worker's lease no longer
covers. Serial numbers are part of the execution's id, which is in RQ's registry of started jobs.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import redis

from fuze_bench.pipeline.batch_channel import Progress

#: Long enough for somebody to start a worker again.
_KNOWN_FOR_S = 7 * 86_400
_RENEWED_TIMES = 5
#: What the child tells Redis late, or a clock gains on another.
_MARGIN_S = 2.0
_RETRY_S = 0.1
#: Where jobs are shorter than this, Redis is told of some ahead. Telling costs some 20 µs.
_TOLD_EVERY_S = 0.002
_MOST_AHEAD = 16


#: Goes on while the machine sleeps, as macOS's monotonic one does.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def seconds_since_boot() -> float:
    return time.clock_gettime(_CLOCK)


class Lease:
    """The worker's side. Its methods raise redis.RedisError, and can then be called again."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._looked_s = -math.inf

    def when_due(self) -> None:
        """Before jobs are claimed and while some are in hand: renew the lease, and look for workers that are dead."""
        worker, now_s = self._worker, seconds_since_boot()
        if now_s - self._looked_s < worker.lease_s / _RENEWED_TIMES:
            return
        alive, begun = worker.in_hand.scripts.lease_keys
        if len(worker.in_hand) and not worker.connection.exists(alive):
            # Another worker may have put back what is not begun here: this one does not begin it.
            worker.in_hand.give_back(worker.withdraw())
        with worker.connection.pipeline(transaction=False) as pipeline:
            pipeline.set(alive, 1, px=int(1000 * worker.lease_s))
            pipeline.set(begun, worker.in_hand.next_serial, ex=_KNOWN_FOR_S, nx=True)
            pipeline.execute()
        worker.child.covered_until(now_s + worker.lease_s - min(_MARGIN_S, worker.lease_s / 4))
        if back := worker.in_hand.scripts.take_back([queue.name for queue in worker.queues]):
            worker.log.warning(
                "Worker %s: %d jobs that a dead worker had not begun are back", worker.name, back
            )
        self._looked_s = now_s

    def end(self) -> None:
        """The worker ends, with nothing in hand. Without Redis the lease ends by itself."""
        self._looked_s = -math.inf
        with contextlib.suppress(redis.RedisError):
            self._worker.connection.delete(*self._worker.in_hand.scripts.lease_keys)


class Announcements:
    """The child's side: what it begins, Redis knows before. It does not wait for Redis to answer."""

    def __init__(self, connection: redis.Redis, begun_key: str, progress: Progress) -> None:
        self._pool = connection.connection_pool
        self._key = begun_key
        self._progress = progress
        self._connection: Any = None
        self._unanswered = 0
        self._told = 0
        self._told_s = 0.0
        self._covered_until_s = 0.0
        self._ahead = 0

    def begin(self, first: int, end: int) -> None:
        """Returns when the jobs from `first` to before `end` may begin, or have been withdrawn meanwhile."""
        if end <= self._told and time.clock_gettime(_CLOCK) < self._covered_until_s:
            return  # as most short jobs do
        self._until(lambda: self._progress.covered_until > seconds_since_boot(), first)
        self._covered_until_s = self._progress.covered_until
        if end <= self._told:
            return
        now_s = time.monotonic()
        quick = now_s - self._told_s < _TOLD_EVERY_S
        self._ahead = min(2 * self._ahead + 1, _MOST_AHEAD) if quick else self._ahead // 2
        self._told_s = now_s
        self._until(lambda: self._tell(end + self._ahead), first)

    def _until(self, done: Callable[[], bool], first: int) -> None:
        while not done() and first >= self._progress.withdrawn_before:
            time.sleep(_RETRY_S)

    def _tell(self, before: int) -> bool:
        """False if Redis is away, or refuses to be written to."""
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            while self._unanswered and self._connection.can_read(timeout=0):
                self._unanswered -= 1
                self._connection.read_response()
            self._connection.send_command("SET", self._key, before, "EX", _KNOWN_FOR_S)
        except redis.RedisError:
            self._forget_connection()
            return False
        self._unanswered += 1
        self._told = before
        return True

    def _forget_connection(self) -> None:
        self._unanswered = self._told = 0
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None
