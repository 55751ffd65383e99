"""Whether a long backlog makes a job cost more: a thousand empty jobs waiting against a hundred thousand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import psutil
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.lab.benchmarks.empty_jobs import enqueue, wait_until_done
from fuze_bench.lab.benchmarks.peer_queues import ASIDE
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.pipeline.redis_server import PrivateRedis, connect

UNIT = "jobs/s"
_FEW, _MANY = 1_000, 100_000
#: Of the short backlog, so that both measure for as long.
_ROUNDS = 20
_WORKERS = 2
_WARM_UP = 2_000


def _name(jobs: int, what: str) -> str:
    return f"{jobs:,} waiting: {what}"


_RATE, _MEMORY = "jobs", "memory a worker"
UNITS = {_name(jobs, _MEMORY): "MB" for jobs in (_FEW, _MANY)}
TARGETS = [
    Target(_name(_MANY, _RATE), _name(_FEW, _RATE), at_least=0.9),
    Target(_name(_MANY, _MEMORY), _name(_FEW, _MEMORY), at_most=1.1),
]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it: below 1, the long backlog is a shorter one."""
    rounds = max(2, int(_ROUNDS * scale))
    return {
        "few": partial(_measure, _FEW, _FEW, rounds),
        "many": partial(_measure, _MANY, max(_FEW, int(_MANY * scale)), 1),
    }


def _measure(shown: int, jobs: int, rounds: int) -> Mapping[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="fuze-") as folder,
        PrivateRedis(Path(folder) / "redis") as server,
        connect(server.url) as client,
        StockWorkers("batch", _WORKERS, ["default"], server.url, Path(folder)) as workers,
    ):
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        aside = Queue("default", connection=client, serializer=JSONSerializer)
        aside._key = ASIDE  # its jobs are those of the queue, and no worker looks there
        enqueue(queue, _WARM_UP)
        done = _WARM_UP
        wait_until_done(client, queue, done)
        spent_s = 0.0
        for _ in range(rounds):
            enqueue(aside, jobs)
            done += jobs
            began_s = time.perf_counter()
            client.rename(aside.key, queue.key)
            wait_until_done(client, queue, done)
            spent_s += time.perf_counter() - began_s
        processes = [psutil.Process(pid) for pid in workers.pids]
        processes += [child for process in processes for child in process.children(recursive=True)]
        pss_bytes = sum(process.memory_full_info().pss for process in processes)
        return {
            _name(shown, _RATE): jobs * rounds / spent_s,
            _name(shown, _MEMORY): pss_bytes / 1e6 / _WORKERS,
        }
