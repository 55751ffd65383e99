"""The process that puts retries back on their queues when they are due: RQ's scheduler, made to outlive its Redis."""

from __future__ import annotations

import time

import redis
from rq.scheduler import RQScheduler

from fuze_bench.pipeline.redis_server import why_away
from fuze_bench.processes import die_with_parent


class PipelineScheduler(RQScheduler):
    """RQ's own ends with a traceback when Redis goes away, and lives on, locks in hand, when its worker is killed."""

    def work(self) -> None:
        """Until SIGTERM, or the end of the worker that started it."""
        die_with_parent()
        self._install_signal_handlers()
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
            time.sleep(self.interval)
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
