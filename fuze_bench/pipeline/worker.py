"""The worker process: kinds, queues in priority order, preloaded model, scheduler, signals.

Run it as `fuze-bench worker` or `python -m fuze_bench.pipeline.worker`. It is RQ's own worker, set up for the
pipeline: a stock `rq worker` with the JSON serializer runs the same jobs.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from types import FrameType
from typing import Any

import redis
from rq import Queue
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer
from rq.worker import SimpleWorker, SpawnWorker, Worker, WorkerStatus

from fuze_bench import logs
from fuze_bench.errors import FuzeError, QueueUnavailableError, SettingsError
from fuze_bench.pipeline.bookmarks import EmbeddingState, ProcessingError, parse_job_id
from fuze_bench.pipeline.control import note_start, paused_queues
from fuze_bench.pipeline.embed import Embedder
from fuze_bench.pipeline.outages import OutlivesRedis
from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.redis_server import check_usable, connect, why_away
from fuze_bench.pipeline.settings import NO_MODEL, QUEUES, Kind, Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.task_queue import TaskQueue
from fuze_bench.pipeline.worker_names import take_over_name
from fuze_bench.processes import die_with_parent

logger = logging.getLogger(__name__)

#: A worker that idles wakes up this often to say that it lives and to look after the registries.
_MAINTENANCE_INTERVAL_S = 30
_IDLE_STEP_S = 2
_PAUSE_CHECK_S = 0.5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FILL_IN_JOB = "fill-in-embeddings"
_FILL_IN_TASK = "fuze_bench.pipeline.process.fill_in_embeddings_task"


class _PipelineWorker(OutlivesRedis):
    """Mixed into RQ's workers.

    What the pipeline logs of a failure is not said again with a traceback. And a signal that arrives after the worker
    has registered itself, but before RQ handles signals, stops it cleanly too: it would leave a worker in Redis that
    is not there, and a scheduler behind.
    """

    _paused: frozenset[str] = frozenset()
    _pause_checked_s = 0.0
    # RQ's:
    name: str
    queue_names: Any

    def handle_exception(self, job: Any, *exc_info: Any) -> None:
        if isinstance(exc_info[1], SystemExit):
            logger.info("job %s was broken off: told to stop at once", job.id)
        elif isinstance(exc_info[1], redis.RedisError):
            logger.warning("job %s: Redis was away when it ended (%s)", job.id, why_away(exc_info[1]))
        elif not isinstance(exc_info[1], ProcessingError):
            super().handle_exception(job, *exc_info)

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
            step_s = _IDLE_STEP_S if max_idle_time is None else min(_IDLE_STEP_S, max_idle_time - idle_s)
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

    def _shutdown(self) -> None:
        # RQ stops an idle worker by an exception from its signal handler. If the signal arrives while a finaliser
        # runs, Python drops that exception; the flag then stops the worker a moment later.
        self._stop_requested = True
        super()._shutdown()

    def handle_work_horse_killed(self, job: Any, retpid: int, ret_val: int, rusage: Any) -> None:
        """The fork that ran a job was killed: what it held is free at once, and is known to have killed it."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        note = f"signal {os.WTERMSIG(ret_val)}" if os.WIFSIGNALED(ret_val) else f"exit code {ret_val >> 8}"
        if note == f"signal {int(signal.SIGKILL)}":
            note += ": perhaps it used more memory than there is"
        self.recovery.note_death(retpid, note)

    def register_birth(self) -> None:
        take_over_name(self)
        super().register_birth()

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        def note(_number: int, _frame: FrameType | None) -> None:
            self._stop_requested = True

        for number in _STOP_SIGNALS:
            signal.signal(number, note)
        super().bootstrap(*args, **kwargs)
        logger.info("worker %s is ready. Listening on %s", self.name, ", ".join(self.queue_names()))


class PipelineSimpleWorker(_PipelineWorker, SimpleWorker):
    """Runs jobs in its own process."""


class PipelineForkWorker(_PipelineWorker, Worker):
    """Runs each job in a fork, which does not outlive the worker: its bookmark would be done twice."""

    def main_work_horse(self, job: Any, queue: Any) -> None:
        die_with_parent(signal.SIGKILL)
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
        die_with_parent(signal.SIGKILL)
        super().main_work_horse(job, queue)


_CLASSES: dict[Kind, Any] = {
    Kind.SIMPLE: PipelineSimpleWorker,
    Kind.FORK: PipelineForkWorker,
    Kind.SPAWN: PipelineSpawnWorker,
}


def job_fields(job_id: str, queue: str) -> dict[str, Any]:
    """What every line that is logged during a job carries."""
    key = parse_job_id(job_id)
    return {"job": job_id, "queue": queue, **({"bookmark": key[0]} if key else {})}


def run_workers(
    settings: Settings,
    *,
    queues: Sequence[str] = QUEUES,
    count: int = 1,
    kind: Kind = Kind.SIMPLE,
    burst: bool = False,
    name: str | None = None,
    embedder: Embedder | None = None,
) -> int:
    """Run `count` workers until they are told to stop (or, with `burst`, until the queues are empty); an exit code.

    The model is loaded once, before the first job (unless `embedder` brings it), and shared by forks. SIGTERM and
    SIGINT let the jobs in hand finish; a second one stops at once. Raises SettingsError and QueueUnavailableError
    before anything is started.
    """
    if count < 1:
        raise SettingsError(f"count={count}: at least one worker")
    if not queues:
        raise SettingsError(f"no queue to listen to: name one of {', '.join(QUEUES)}")
    if settings.redis_url is None:
        raise QueueUnavailableError("no Redis: set REDIS_URL, or start one with `fuze-bench up`")
    _check_redis(settings.redis_url)
    _prepare(settings, kind, embedder)
    base = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if count == 1:
        return _work(settings, queues, kind, burst, base)
    return _Supervisor(settings, queues, kind, burst, base).run(count)


def _check_redis(url: str) -> None:
    try:
        with connect(url, connect_timeout_s=5, timeout_s=5) as client:
            check_usable(client)
    except redis.RedisError as error:
        raise QueueUnavailableError(f"Redis cannot be used ({why_away(error)}): check REDIS_URL") from None


def _prepare(settings: Settings, kind: Kind, embedder: Embedder | None) -> None:
    if kind is Kind.SPAWN:
        # Its jobs run in interpreters of their own, which take their settings from the environment, and no others.
        here = settings.environment(os.environ)
        os.environ.clear()
        os.environ.update(here)
        return
    from fuze_bench.pipeline.process import Pipeline, install_pipeline

    pipeline = Pipeline(settings, embedder=embedder)
    loads = embedder is None and settings.embedding_model != NO_MODEL
    if loads:
        logger.info("loading the model (%s)", settings.embedding_model)
    start_s = time.monotonic()
    pipeline.preload()
    if loads:
        logger.info("model %s after %.1f s", pipeline.embedder.state, time.monotonic() - start_s)
    install_pipeline(pipeline)


def _work(settings: Settings, queues: Sequence[str], kind: Kind, burst: bool, name: str) -> int:
    """One worker, in this process."""
    assert settings.redis_url is not None
    logs.name_worker(name)
    connection = connect(
        settings.redis_url, connect_timeout_s=5, timeout_s=_IDLE_STEP_S + settings.redis_timeout_s
    )
    store = Store(settings)
    try:
        worker = _CLASSES[kind](
            [Queue(queue, connection=connection, serializer=JSONSerializer) for queue in queues],
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=settings.worker_ttl_s,
            maintenance_interval=_MAINTENANCE_INTERVAL_S,
            default_result_ttl=settings.result_ttl_s,
        )
        worker.log_result_lifespan = False
        worker.recovery = Recovery(settings, store, TaskQueue(settings))
        worker.checking = connect(settings.redis_url, connect_timeout_s=1, timeout_s=1)
        note_start(connection)
        _ask_for_missing_embeddings(connection, kind)
        worker.work(burst=burst, with_scheduler=True, logging_level=_level_name())
    except ValueError as error:
        if "active worker" not in str(error):
            raise
        raise SettingsError(
            f"a worker named {name!r} is known to Redis: choose another name, or wait a minute if it was killed"
        ) from None
    except redis.RedisError as error:
        raise QueueUnavailableError(f"Redis cannot be used ({why_away(error)}): check REDIS_URL") from None
    return 0 if burst or worker._stop_requested else 1


def _ask_for_missing_embeddings(connection: redis.Redis, kind: Kind) -> None:
    """Texts that were stored while the model could not be had get their vectors now that this worker has it."""
    if kind is Kind.SPAWN:
        return
    from fuze_bench.pipeline.process import current_pipeline

    pipeline = current_pipeline()
    if pipeline.embedder.state is EmbeddingState.OK and pipeline.store.texts_without_vector(1):
        # One job for all workers that start: the same id replaces the one that waits.
        low = Queue("low", connection=connection, serializer=JSONSerializer)
        if _FILL_IN_JOB not in low.get_job_ids():
            low.enqueue(_FILL_IN_TASK, job_id=_FILL_IN_JOB, job_timeout=600)


def _level_name() -> str:
    return logging.getLevelName(logging.getLogger().getEffectiveLevel())


class _Supervisor:
    """Several workers as forks of one process that loaded the model: start, pass signals on, replace, reap."""

    def __init__(self, settings: Settings, queues: Sequence[str], kind: Kind, burst: bool, base: str) -> None:
        self._arguments = (settings, queues, kind, burst)
        self._burst = burst
        self._base = base
        self._names: dict[int, str] = {}
        self._stopping = False
        self._exit_code = 0

    def run(self, count: int) -> int:
        for number in _STOP_SIGNALS:
            signal.signal(number, self._pass_on)
        for index in range(count):
            if not self._stopping:
                self._start(f"{self._base}-{index + 1}")
        while self._names:
            try:
                pid, status = os.wait()
            except InterruptedError:
                continue
            self._ended(pid, os.waitstatus_to_exitcode(status))
        return self._exit_code

    def _ended(self, pid: int, code: int) -> None:
        name = self._names.pop(pid, None)
        if name is None:
            return
        if code == 0:
            return  # told to stop, or with nothing left to do
        if self._stopping:
            self._exit_code = 1
            return
        # A worker that was killed is replaced, under a new name: Redis still knows the old one for a while.
        logger.error("worker %s ended with code %d: starting another", name, code)
        time.sleep(1)
        if not self._stopping:
            self._start(f"{self._base}-{uuid.uuid4().hex[:6]}")

    def _start(self, name: str) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that arrives in the middle of this is held back until parent and child know what to do with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        pid = os.fork()
        if pid:
            self._names[pid] = name
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            return
        code = 1
        try:
            for number in _STOP_SIGNALS:
                signal.signal(number, _end_quietly)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            die_with_parent()
            code = _work(*self._arguments, name)
        except SystemExit as stop:  # told twice to stop
            code = stop.code if isinstance(stop.code, int) else 0
        except FuzeError as error:
            logger.error("worker %s ended: %s", name, error)
        except Exception:
            logger.exception("worker %s ended", name)
        finally:
            logging.shutdown()
            os._exit(code)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for pid in list(self._names):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _end_quietly(_number: int, _frame: FrameType | None) -> None:
    """A worker that has not registered itself yet has nothing to finish; an exception could be lost in a finaliser."""
    os._exit(0)


if __name__ == "__main__":
    from fuze_bench.pipeline.worker_command import main

    sys.exit(main())
