"""The worker process: kinds, queues in priority order, preloaded model, scheduler, signals.

Run it as `fuze-bench worker` or `python -m fuze_bench.pipeline.worker`. It is RQ's own worker, set up for the
pipeline: a stock `rq worker` with the JSON serializer runs the same jobs.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from functools import partial

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench import logs
from fuze_bench.errors import QueueUnavailableError, SettingsError
from fuze_bench.pipeline.bookmarks import EmbeddingState
from fuze_bench.pipeline.control import note_embedding, note_loading, note_start
from fuze_bench.pipeline.embed import Embedder, sharing_cores
from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.redis_server import cannot_be_used, check_usable, connect
from fuze_bench.pipeline.rq_workers import CLASSES, IDLE_STEP_S
from fuze_bench.pipeline.settings import DEFAULT_KIND, NO_MODEL, QUEUES, Kind, Settings, Strategy
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.supervisor import Supervisor
from fuze_bench.pipeline.task_queue import TaskQueue
from fuze_bench.processes import keep_one_heap

logger = logging.getLogger(__name__)

#: How often a worker sees to the registries, and to whether its queues have a scheduler.
_MAINTENANCE_INTERVAL_S = 10
#: A batch worker looks after it twice a second.
_SHORTEST_LEASE_S = 2.0


def run_workers(
    settings: Settings,
    *,
    queues: Sequence[str] = QUEUES,
    count: int = 1,
    kind: Kind = DEFAULT_KIND,
    strategy: Strategy = Strategy.STRICT,
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
    _announce(settings.redis_url, queues)
    settings = sharing_cores(settings, count)
    keep_one_heap()
    _prepare(settings, kind, embedder)
    base = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if count == 1:
        return _work(settings, queues, kind, strategy, burst, base)
    return Supervisor(partial(_work, settings, queues, kind, strategy, burst), base).run(count)


def _announce(url: str, queues: Sequence[str]) -> None:
    """Tell a Redis that can be used that workers are on their way. Raises QueueUnavailableError."""
    try:
        with connect(url, connect_timeout_s=5, timeout_s=5) as client:
            check_usable(client)
            note_loading(client, queues)
    except redis.RedisError as error:
        raise cannot_be_used(error) from None


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
    pipeline.embedder.settle()
    if loads:
        logger.info("model %s after %.1f s", pipeline.embedder.state, time.monotonic() - start_s)
    install_pipeline(pipeline)


def _work(
    settings: Settings, queues: Sequence[str], kind: Kind, strategy: Strategy, burst: bool, name: str
) -> int:
    """One worker, in this process."""
    assert settings.redis_url is not None
    logs.name_worker(name)
    connection = connect(
        settings.redis_url, connect_timeout_s=5, timeout_s=IDLE_STEP_S + settings.redis_timeout_s
    )
    store = Store(settings)
    try:
        worker = CLASSES[kind](
            [Queue(each, connection=connection, serializer=JSONSerializer) for each in queues],
            name=name,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=settings.worker_ttl_s,
            maintenance_interval=_MAINTENANCE_INTERVAL_S,
            default_result_ttl=settings.result_ttl_s,
        )
        worker.log_result_lifespan = False
        queue = TaskQueue(settings)
        worker.recovery = Recovery(settings, store, queue)
        worker.lease_s = max(_SHORTEST_LEASE_S, settings.lease_s)  # of what a batch worker has claimed
        worker.checking = connect(settings.redis_url, connect_timeout_s=1, timeout_s=1)
        note_start(connection, queues)
        if kind is not Kind.SPAWN:
            _tell_of_vectors(queue, connection)
        worker.work(
            burst=burst,
            with_scheduler=True,
            logging_level=_level_name(),
            dequeue_strategy=strategy.as_rq_says,
        )
    except ValueError as error:
        if "active worker" not in str(error):
            raise
        raise SettingsError(
            f"a worker named {name!r} is known to Redis: choose another name, or wait a minute if it was killed"
        ) from None
    except redis.RedisError as error:
        raise cannot_be_used(error) from None
    return 0 if burst or worker._stop_requested else 1


def _tell_of_vectors(queue: TaskQueue, connection: redis.Redis) -> None:
    """Say what they are computed with; texts stored while the model could not be had get theirs now that it is here."""
    from fuze_bench.pipeline.process import current_pipeline

    pipeline = current_pipeline()
    if pipeline.embedder.numbers is not None:
        note_embedding(connection, str(pipeline.embedder.numbers))
    if pipeline.embedder.state is EmbeddingState.OK and pipeline.store.texts_without_vector(0, 1):
        queue.ask_for_vectors()


def _level_name() -> str:
    return logging.getLevelName(logging.getLogger().getEffectiveLevel())


if __name__ == "__main__":
    from fuze_bench.pipeline.worker_command import main

    sys.exit(main())
