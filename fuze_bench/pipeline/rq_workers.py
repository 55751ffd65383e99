"""The pipeline's kinds of RQ worker: simple, fork and spawn, each with pausing, recovery and quiet failures."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

import redis
from rq.exceptions import StopRequested
from rq.worker import SimpleWorker, SpawnWorker, Worker, WorkerStatus

from fuze_bench import logs
from fuze_bench.pipeline.batch_scripts import Claim
from fuze_bench.pipeline.batch_worker import BatchWorker
from fuze_bench.pipeline.bookmarks import ProcessingError, parse_job_id
from fuze_bench.pipeline.control import paused_queues
from fuze_bench.pipeline.outages import OutlivesRedis
from fuze_bench.pipeline.redis_server import why_away
from fuze_bench.pipeline.settings import Kind
from fuze_bench.pipeline.worker_names import take_over_name
from fuze_bench.processes import STOP_SIGNALS, die_with_parent

logger = logging.getLogger(__name__)

#: A worker that idles wakes up this often to say that it lives and to look after the registries.
IDLE_STEP_S = 2
_PAUSE_CHECK_S = 0.5
_EXCUSE_STEP_S = 0.2


class _PipelineWorker(OutlivesRedis):
    """Mixed into RQ's workers.

    What the pipeline logs of a failure is not said again with a traceback. And a signal that arrives after the worker
    has registered itself, but before RQ handles signals, stops it cleanly too: it would leave a worker in Redis that
    is not there, and a scheduler behind.
    """

    _paused: frozenset[str] = frozenset()
    _pause_checked_s = 0.0
    _horse_end: tuple[int | None, int | None, Any] = (None, None, None)
    # RQ's:
    name: str
    queue_names: Any

    def handle_exception(self, job: Any, *exc_info: Any) -> None:
        if isinstance(exc_info[1], SystemExit):
            logger.info("job %s was broken off: told to stop at once", job.id)
        elif isinstance(exc_info[1], redis.RedisError):
            logger.warning("job %s: Redis was away when it ended (%s)", job.id, why_away(exc_info[1]))
        elif not isinstance(exc_info[1], ProcessingError):
            with logs.during(job_fields(job.id, job.origin)):  # a batch worker is at many jobs
                super().handle_exception(job, *exc_info)

    def handle_job_failure(self, job: Any, *arguments: Any, **named: Any) -> None:
        """As RQ's. Who stops a job by RQ's command, which kills its process, does not want it begun again."""
        was_stopped = self._stopped_job_id == job.id
        super().handle_job_failure(job, *arguments, **named)
        if was_stopped:
            self.recovery.cancel(job.id)

    def execute_job(self, job: Any, queue: Any) -> None:
        with logs.during(job_fields(job.id, queue.name)):
            super().execute_job(job, queue)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """As RQ's, but an idle worker comes up for air every few seconds, and looks for what fell out of the queue."""
        idle_s = 0
        while True:
            self._leave_out_paused()
            if self._stop_requested:
                raise StopRequested
            self.recovery.when_due()
            step_s = IDLE_STEP_S if max_idle_time is None else min(IDLE_STEP_S, max_idle_time - idle_s)
            if self._ordered_queues:
                result = super().dequeue_job_and_maintain_ttl(timeout, step_s)
            else:
                result = None
                self._sit_out(step_s)
            idle_s += step_s
            if (
                result is not None
                or timeout is None
                or (max_idle_time is not None and idle_s >= max_idle_time)
            ):
                return result

    def _leave_out_paused(self) -> None:
        """Listen to the queues that are not paused; while Redis is away, to those of before."""
        now_s = time.monotonic()
        if now_s - self._pause_checked_s < _PAUSE_CHECK_S:
            return
        self._pause_checked_s = now_s
        try:
            paused = paused_queues(self.connection)
        except redis.RedisError as error:
            logger.info("worker: it is not known which queues are paused: %s", why_away(error))
            return
        if paused != self._paused:
            self._paused = paused
            self._ordered_queues = [queue for queue in self.queues if queue.name not in paused]
            logger.info("worker: paused queues: %s", ", ".join(sorted(paused)) or "none")

    def _sit_out(self, step_s: float) -> None:
        """Every queue is paused: stay known as alive, and wait."""
        self._through_outages(self.set_state, WorkerStatus.IDLE)
        self.heartbeat()
        time.sleep(step_s)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """As RQ's, which stops an idle worker by an exception. Python prints and drops that where a finaliser runs."""
        try:
            super().request_stop(signum, frame)
        except StopRequested:
            while frame is not None:
                if frame.f_code.co_name == "__del__":
                    return  # the flag stops the worker a moment later
                frame = frame.f_back
            raise

    def _shutdown(self) -> None:
        self._stop_requested = True
        if self.executions:
            # Whoever stops us may lose patience. Not here: the signal may have come in the middle of a transaction.
            threading.Thread(target=self._excuse_job_in_hand, name="excuse", daemon=True).start()
        super()._shutdown()

    def _excuse_job_in_hand(self) -> None:
        """Until it is stored: an interpreter of its own needs seconds to come to its claim."""
        while self.executions and not self.recovery.excuse(self.horse_pid or os.getpid()):
            time.sleep(_EXCUSE_STEP_S)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        self._horse_end = super().wait_for_horse()
        return self._horse_end

    def handle_work_horse_killed(
        self, job: Any, retpid: int | None, ret_val: int | None, rusage: Any
    ) -> None:
        """The fork that ran a job was killed: what it held is free at once, and is known to have killed it."""
        if retpid is None:
            # RQ does not say how a fork ended that it killed itself, a minute after the job's time was over.
            retpid, ret_val, rusage = self._horse_end
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        if retpid is not None and ret_val is not None:
            self._note_death(retpid, ret_val)
        # else somebody else has waited for it: its lease runs out

    def _note_death(self, retpid: int, ret_val: int, of: Sequence[int] | None = None) -> None:
        if self._stop_requested:
            return  # it was killed with the worker, which is none of its doing
        note = f"signal {os.WTERMSIG(ret_val)}" if os.WIFSIGNALED(ret_val) else f"exit code {ret_val >> 8}"
        if note == f"signal {int(signal.SIGKILL)}":
            note += ": perhaps it used more memory than there is, or hung"
        self.recovery.note_death(retpid, note, of)

    def register_birth(self) -> None:
        take_over_name(self)
        super().register_birth()

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        def note(_number: int, _frame: FrameType | None) -> None:
            self._stop_requested = True

        for number in STOP_SIGNALS:
            signal.signal(number, note)
        super().bootstrap(*args, **kwargs)
        logger.info("worker %s is ready. Listening on %s", self.name, ", ".join(self.queue_names()))


class PipelineSimpleWorker(_PipelineWorker, SimpleWorker):
    """Runs jobs in its own process."""


class PipelineForkWorker(_PipelineWorker, Worker):
    """Runs each job in a fork, which does not outlive the worker: its bookmark would be done twice."""

    def main_work_horse(self, job: Any, queue: Any) -> None:
        die_with_parent(signal.SIGKILL, self.pid)
        super().main_work_horse(job, queue)


class PipelineSpawnWorker(_PipelineWorker, SpawnWorker):
    """Runs each job in a fresh interpreter, which takes Redis's address from its environment."""

    def fork_work_horse(self, job: Any, queue: Any) -> None:
        """As RQ's, but nothing secret stands in the new process's command line, where every user could read it."""
        environment = {
            **os.environ,
            "RQ_WORKER_ID": self.name,
            "RQ_JOB_ID": job.id,
            "RQ_EXECUTION_ID": str(getattr(self.execution, "id", "")),
        }
        argv = [sys.executable, "-m", "fuze_bench.pipeline.spawned_job", self.name, job.id, queue.name]
        self._horse_pid = os.posix_spawn(sys.executable, argv, environment, setpgroup=0)

    def main_work_horse(self, job: Any, queue: Any) -> None:
        die_with_parent(signal.SIGKILL, self.pid)
        super().main_work_horse(job, queue)


class PipelineBatchWorker(_PipelineWorker, BatchWorker):
    """Runs jobs a batch at a time in a long-lived child, which has the parent's loaded model."""

    def execute_job(self, batch: Any, queue: Any) -> None:
        # Past what the other kinds do around one job, and through what they do when Redis is away.
        BatchWorker.execute_job(self, batch, queue)

    def between_batches(self) -> None:
        self._leave_out_paused()
        self.recovery.when_due()

    def during(self, claim: Claim) -> AbstractContextManager[None]:
        return logs.during(job_fields(claim.job_id, claim.queue))

    def wait_for_redis(self, error: redis.RedisError) -> None:
        self._wait_for_redis(error)

    def ended_without_redis(self, claim: Claim) -> None:
        """What came of it is in the database, and that is what counts."""
        self.recovery.send_again(claim.job_id)

    def child_died(self, pid: int, status: int, was_stopped: bool, begun: Sequence[Claim]) -> None:
        super().child_died(pid, status, was_stopped, begun)
        if was_stopped:
            self.recovery.give_back(pid)  # of its neighbours nobody wants to be rid
        else:
            keys = [parse_job_id(claim.job_id) for claim in begun]
            self._note_death(pid, status, [key[0] for key in keys if key])

    def _in_work(self) -> list[str]:
        return [claim.job_id for claim in self.begun()]


#: The worker class of each kind.
CLASSES: dict[Kind, Any] = {
    Kind.SIMPLE: PipelineSimpleWorker,
    Kind.FORK: PipelineForkWorker,
    Kind.SPAWN: PipelineSpawnWorker,
    Kind.BATCH: PipelineBatchWorker,
}


def job_fields(job_id: str, queue: str) -> dict[str, Any]:
    """What every line that is logged during a job carries."""
    key = parse_job_id(job_id)
    return {"job": job_id, "queue": queue, **({"bookmark": key[0]} if key else {})}
