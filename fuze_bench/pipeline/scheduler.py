"""The process that puts retries back on their queues when they are due: RQ's scheduler, made to outlive its Redis."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Any

import redis
from rq.scheduler import RQScheduler

from fuze_bench.pipeline.redis_server import why_away
from fuze_bench.processes import STOP_SIGNALS, die_with_parent

#: How long the locks of one that was killed keep the others from its queues; they are renewed every second.
_LOCK_S = 15
_STEP_S = 1.0
#: What RQ adds to its interval for the life of its locks, and of what it says of itself.
_RQ_ADDS_S = 60


class PipelineScheduler(RQScheduler):
    """RQ's own ends with a traceback when Redis goes away, and lives on, locks in hand, when its worker is killed.

    It also sleeps on when it is told to stop, and one that is killed leaves its queues without a scheduler for a minute.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.interval = _LOCK_S - _RQ_ADDS_S
        self._worker = os.getpid()
        self._told = os.pipe()
        os.set_blocking(self._told[1], False)

    def start(self) -> Any:
        """As RQ's; a signal that comes before the new process knows what to do with it waits until it does."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """As RQ's, at once: what is written here ends the wait."""
        super().request_stop(signum, frame)
        with contextlib.suppress(BlockingIOError):  # told so often that the pipe is full
            os.write(self._told[1], b"!")

    def work(self) -> None:
        """Until SIGTERM, or the end of the worker that started it."""
        self._install_signal_handlers()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        die_with_parent(parent=self._worker)
        is_new, is_away = True, False
        while not self._stop_requested:
            try:
                if is_new or is_away:
                    self.register_birth()
                self._once(again=is_away)
                is_new, is_away = False, False
            except redis.RedisError as error:
                if not is_away:
                    self.log.warning("scheduler: Redis is away (%s)", why_away(error))
                is_away = True
            select.select([self._told[0]], [], [], _STEP_S)
        try:
            self.stop()
        except redis.RedisError as error:
            self.log.warning(
                "scheduler: its locks run out by themselves: Redis is away (%s)", why_away(error)
            )

    def _once(self, *, again: bool) -> None:
        if again or self.should_reacquire_locks:
            self.acquire_locks()
        self.heartbeat()
        self.enqueue_scheduled_jobs()
