"""Empty jobs a second: what a queue itself costs, with two worker processes and plain `rq.Queue`."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks import peer_queues
from fuze_bench.lab.benchmarks.empty_job import nothing
from fuze_bench.lab.benchmarks.peer_queues import ASIDE, PEERS
from fuze_bench.lab.benchmarks.side_by_side import Figures, Measure, Target, median_of
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.pipeline.redis_server import PrivateRedis, connect

UNIT = "jobs/s"
FASTEST = "the fastest of the others"
TARGETS = [
    Target("batch", "rq worker", 100),
    Target("batch", "simple"),
    Target("simple", "rq worker"),
    Target("batch", FASTEST, 2),
    *(Target("batch", name) for name in PEERS),
]

#: Whose versions are recorded.
PACKAGES = tuple(peer.package.replace("_", "-") for peer in PEERS.values())
#: The kinds of worker by their names here, each with the jobs it gets for a whole measurement: those that fork a process
#: for every job would take minutes for as many as the others.
_CONTENDERS = {"batch": ("batch", 20_000), "simple": ("simple", 2_000), "rq worker": ("fork", 400)}
_PEERS_JOBS = 20_000
_WORKERS = 2
_GROUP = 1_000
_WARM_UP = 20
_QUEUE = "default"
_LIMIT_S = 120.0


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it. Of other queues those that are installed."""
    ours = {
        name: partial(_rate, kind, max(_WARM_UP, int(jobs * scale)))
        for name, (kind, jobs) in _CONTENDERS.items()
    }
    peers = {
        name: partial(peer_queues.rate, peer, max(_WARM_UP, int(_PEERS_JOBS * scale)))
        for name, peer in PEERS.items()
        if peer.is_installed
    }
    return {**ours, **peers}


def derived(figures: Figures) -> dict[str, dict[int, float]]:
    """The fastest of the other queues, by their medians."""
    measured = [name for name in PEERS if name in figures]
    if not measured:
        return {}
    return {FASTEST: dict(figures[max(measured, key=lambda name: median_of(figures, name))])}


def sentences(figures: Figures) -> list[str]:
    """Which of the other queues took part."""
    absent = ", ".join(name for name in PEERS if name not in figures)
    return [f"Not installed, so not compared with: {absent}."] if absent else []


def _rate(kind: str, jobs: int) -> float:
    """Jobs a second, from the moment when all of them are there to the end of the last one; workers wait for it."""
    with (
        tempfile.TemporaryDirectory(prefix="fuze-") as folder,
        PrivateRedis(Path(folder) / "redis") as server,
        connect(server.url) as client,
    ):
        queue = Queue(_QUEUE, connection=client, serializer=JSONSerializer)
        enqueue(queue, jobs)
        client.rename(queue.key, ASIDE)
        with StockWorkers(kind, _WORKERS, [_QUEUE], server.url, Path(folder)):
            enqueue(queue, _WARM_UP)
            wait_until_done(client, queue, _WARM_UP)
            began_s = time.perf_counter()
            client.rename(ASIDE, queue.key)
            wait_until_done(client, queue, _WARM_UP + jobs)
            return jobs / (time.perf_counter() - began_s)


def enqueue(queue: Queue, number: int) -> None:
    """Put so many empty jobs on the queue."""
    for first in range(0, number, _GROUP):
        queue.enqueue_many([Queue.prepare_data(nothing) for _ in range(min(_GROUP, number - first))])


def wait_until_done(client: redis.Redis, queue: Queue, number: int) -> None:
    """Wait until so many of the queue's jobs have finished. Raises LabError if that takes too long."""
    finished = queue.finished_job_registry.key
    deadline_s = time.monotonic() + _LIMIT_S
    while client.zcard(finished) < number:
        if time.monotonic() > deadline_s:
            raise LabError(f"{number} empty jobs were not done within {_LIMIT_S:g} s")
        time.sleep(0.002)
