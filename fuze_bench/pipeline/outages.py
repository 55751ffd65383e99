"""What makes an RQ worker outlive its Redis: wait, register again, listen again, and still stop when it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import redis
from rq import worker_registration
from rq.exceptions import StopRequested
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.redis_server import check_usable, why_away
from fuze_bench.pipeline.scheduler import PipelineScheduler

#: The longest wait between two looks whether Redis is back.
_LONGEST_WAIT_S = 2.0
_FIRST_WAIT_S = 0.2
#: No command of a worker blocks for longer; RQ would give a Redis that hangs the better part of a minute.
_LONGEST_COMMAND_S = 3
_SCHEDULER_STOP_S = 1.5


class OutlivesRedis(BaseWorker):
    """Mixed into RQ's workers, which quit when Redis goes away at a moment that RQ does not expect it.

    `checking` is a client of its own that gives up soon: for asking whether Redis is back, and for last words.
    """

    max_connection_wait_time = _LONGEST_WAIT_S
    connection_timeout = _LONGEST_COMMAND_S
    recovery: Recovery
    checking: redis.Redis
    _broken_off: tuple[Sequence[str], int] = ((), 0)

    def check_for_suspension(self, burst: bool) -> None:
        self._through_outages(super().check_for_suspension, burst)

    def run_maintenance_tasks(self) -> None:
        self._through_outages(super().run_maintenance_tasks)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """As RQ's; a worker whom an emptied Redis has forgotten makes itself known again."""
        result = self._through_outages(super().dequeue_job_and_maintain_ttl, timeout, max_idle_time)
        if result is None and not self._through_outages(self.connection.hexists, self.key, "pid"):
            self._through_outages(self._register_again)
        return result

    def execute_job(self, job: Any, queue: Any) -> None:
        """As RQ's. If Redis is away when the job ends, what came of it is in the database, and that is what counts."""
        try:
            super().execute_job(job, queue)
        except redis.RedisError as error:
            self.executions.clear()
            self._wait_for_redis(error)
            self.recovery.send_again(job.id)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        self._through_outages(super().heartbeat, timeout, pipeline)

    def maintain_heartbeats(self, job: Any, execution: Any) -> None:
        """As RQ's, while a fork or an interpreter of its own runs the job: it must not be left alone."""
        try:
            super().maintain_heartbeats(job, execution)
        except redis.RedisError as error:
            self.log.warning("worker %s: Redis is away during a job (%s)", self.name, why_away(error))

    def set_shutdown_requested_date(self) -> None:
        # Called by the signal handler, in the middle of a job that is to be finished.
        try:
            self.checking.hset(self.key, "shutdown_requested_date", utcformat(now()))
        except redis.RedisError as error:
            self.log.warning("worker %s: Redis is away (%s)", self.name, why_away(error))

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """As RQ's; what the job in hand held is free at once, and this was not its fault."""
        broken_off = (self._in_work(), self.horse_pid)
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._broken_off = broken_off
            raise

    def _in_work(self) -> list[str]:
        """The ids of the jobs that are being done."""
        return [execution.job_id for execution in self.executions.values()]

    def teardown(self) -> None:
        """As RQ's; without Redis, what it knows of this worker runs out by itself."""
        if self.scheduler:
            self.stop_scheduler()
        try:
            self.checking.ping()
            if self.scheduler:
                self.scheduler.release_locks()  # of one that could not do it itself
            super().teardown()
        except redis.RedisError as error:
            self.log.warning("worker %s: ends while Redis is away (%s)", self.name, why_away(error))
        job_ids, pid = self._broken_off
        for job_id in job_ids:
            self.recovery.send_again(job_id, pid)

    def stop_scheduler(self) -> None:
        """As RQ's, which waits for ever for one that hangs."""
        process: Any = self.scheduler._process if self.scheduler else None
        if process is None:
            return
        if process.is_alive():
            process.terminate()
            process.join(_SCHEDULER_STOP_S)
        if process.is_alive():
            process.kill()
            process.join()

    def unsubscribe(self) -> None:
        """As RQ's, which now and then waits a second for a thread that missed its end: it is told before its last message."""
        if self.pubsub_thread:
            self.pubsub_thread.stop()
        super().unsubscribe()

    def _start_scheduler(self, burst: bool = False, logging_level: str | None = None, *_formats: str) -> None:
        """As RQ's, with a scheduler that outlives Redis."""
        self.scheduler = PipelineScheduler(
            self.queues,
            connection=self.connection,
            logging_level=logging_level or self.log.level,
            serializer=self.serializer,
        )
        self.scheduler.acquire_locks()
        if not self.scheduler.acquired_locks:
            return
        if not burst:
            self.scheduler.start()
            return
        try:
            self.scheduler.enqueue_scheduled_jobs()
        finally:
            self.scheduler.release_locks()

    def _pubsub_exception_handler(self, error: BaseException, *_pubsub: object) -> None:
        """Whatever happens, the thread that listens to commands lives on; redis-py subscribes again by itself."""
        if not isinstance(error, redis.RedisError):
            self.log.warning("worker %s: a command that cannot be obeyed: %r", self.name, error)
            return
        self.log.debug("worker %s: cannot listen to commands: %s", self.name, error)
        time.sleep(_FIRST_WAIT_S)

    def _through_outages(self, call: Callable[..., Any], *arguments: Any) -> Any:
        while True:
            try:
                return call(*arguments)
            except redis.RedisError as error:
                self._wait_for_redis(error)

    def _wait_for_redis(self, error: redis.RedisError) -> None:
        """Returns once Redis can be used again. Raises StopRequested when the worker is told to stop."""
        self.log.warning("worker %s: Redis is away (%s): waiting for it", self.name, why_away(error))
        wait_s = _FIRST_WAIT_S
        while True:
            if self._stop_requested:
                raise StopRequested
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            try:
                check_usable(self.checking)
                self._register_again()
                break
            except redis.RedisError:
                continue
        self.log.warning("worker %s: Redis is back", self.name)

    def _register_again(self) -> None:
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.expire(self.key, self.worker_ttl + 60)
            pipeline.execute()
