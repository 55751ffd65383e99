"""Which workers live, and what operators tell them through Redis: pause a queue, resume it, drain."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import redis
from rq import Worker
from rq.command import send_shutdown_command
from rq.serializers import JSONSerializer
from rq.utils import as_text

from fuze_bench.pipeline.settings import QUEUES
from fuze_bench.processes import is_running

_PAUSED = "fuze:paused"
_DRAINED = "fuze:drained"
_LOADING = "fuze:loading:"
_EMBEDDING = "fuze:embedding"
#: Of a worker that dies while it loads its model, it is for so long believed that it comes.
_LOADING_S = 60
#: Between a worker's last word on loading and its registration.
_REGISTERING_S = 2
_POLL_S = 0.2

#: Within this time every worker knows of a pause: one that idles wakes up this often.
PAUSE_TAKES_S = 2.5


def pause(client: redis.Redis, queue: str) -> bool:
    """Let no worker of ours take a job from the queue; False if it was paused before. A stock `rq worker` goes on."""
    return bool(client.sadd(_PAUSED, queue))


def resume(client: redis.Redis, queue: str) -> bool:
    """Let the workers take jobs from the queue again; False if it was not paused."""
    return bool(client.srem(_PAUSED, queue))


def paused_queues(client: redis.Redis) -> frozenset[str]:
    """Names of the queues that are paused."""
    return frozenset(as_text(name) for name in client.smembers(_PAUSED))


class _SeenWorker(Worker):
    """As Redis describes it; RQ would give every later connection of the client that looks a worker's own patience,
    minutes, which a Redis that hangs would then take from whoever saves.
    """

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        return connection


def living_workers(client: redis.Redis) -> list[Any]:
    """The RQ workers that Redis knows, without those of this host that were killed: it knows them for a while yet."""
    known = _SeenWorker.all(connection=client, serializer=JSONSerializer)
    return [worker for worker in known if worker.hostname != socket.gethostname() or _is_alive(worker)]


def workers_by_queue(workers: Iterable[Any]) -> dict[str, int]:
    """How many of the workers listen to each of the pipeline's queues."""
    counts = Counter(name for worker in workers for name in worker.queue_names())
    return {name: counts[name] for name in QUEUES}


def drain(client: redis.Redis, on_progress: Callable[[int, int], None]) -> int:
    """Have every worker finish what it has in hand, take nothing new, and end with exit code 0; how many there were.

    `on_progress` is told (ended, all) now and again. Interrupted, it leaves the workers ending. Those of other hosts
    that were killed count until Redis forgets them.
    """
    workers = living_workers(client)
    for worker in workers:
        # A second request would be taken as one to stop at once, and cut the job in hand short.
        if worker.shutdown_requested_date is None:
            send_shutdown_command(client, worker.name)
    client.set(_DRAINED, str(time.time()))
    while left := _still_there(client, workers):
        on_progress(len(workers) - left, len(workers))
        time.sleep(_POLL_S)
    return len(workers)


def _still_there(client: redis.Redis, workers: list[Any]) -> int:
    """How many of the workers have not ended yet. Raises redis.RedisError."""
    try:
        return len({worker.name for worker in workers} & {worker.name for worker in living_workers(client)})
    except redis.RedisError:
        # A private Redis ends with the worker that had started it: then their processes tell.
        if any(worker.hostname != socket.gethostname() for worker in workers):
            raise
        return sum(_is_alive(worker) for worker in workers)


def drained_at(client: redis.Redis) -> float | None:
    """When (seconds since 1970 UTC) the workers were told to drain; None if one has been started since."""
    found = client.get(_DRAINED)
    return None if found is None else float(found)


def note_loading(client: redis.Redis, queues: Iterable[str]) -> None:
    """A worker that will listen to the queues loads what it needs, which takes seconds."""
    for name in queues:
        client.set(_LOADING + name, "1", ex=_LOADING_S)


def loading_queues(client: redis.Redis) -> frozenset[str]:
    """Names of the queues that a worker will listen to which is still loading."""
    found = client.mget([_LOADING + name for name in QUEUES])
    return frozenset(name for name, value in zip(QUEUES, found, strict=True) if value is not None)


def note_start(client: redis.Redis, queues: Iterable[str]) -> None:
    """A worker starts, and has loaded what it needs: the workers are no longer drained."""
    client.delete(_DRAINED)
    for name in queues:
        client.expire(_LOADING + name, _REGISTERING_S)


def _is_alive(worker: Any) -> bool:
    return worker.pid is not None and is_running(worker.pid)


def note_embedding(client: redis.Redis, computes_in: str) -> None:
    """What the workers of this host have found to be best to compute vectors with."""
    client.hset(_EMBEDDING, socket.gethostname(), computes_in)


def noted_embedding(client: redis.Redis) -> str | None:
    """What the last worker of this host that had a model said of that; None if there was none."""
    found = client.hget(_EMBEDDING, socket.gethostname())
    return None if found is None else as_text(found)
