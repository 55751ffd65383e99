"""Memory of workers that share a model: what each further one adds, and all together against one.

A worker gives back what it does not need when it has had nothing to do for a second: what each adds is told of workers
that have just done their last page, and of workers at rest.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.parts.services import running_origin
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child

UNIT = "MB"
_WORKERS = 4
#: For each worker.
_PAGES = 50
_LIMIT_S = 600.0
_ONE, _ALL = "1 worker, PSS", f"{_WORKERS} workers, PSS"
_AT_REST_S = 2.0
_LARGEST, _ALLOWED = f"largest USS of {_WORKERS - 1} further workers", "60 MB"
_RESTING = f"{_LARGEST}, at rest"
TARGETS = [
    Target(_LARGEST, _ALLOWED, at_most=1),
    Target(_RESTING, _ALLOWED, at_most=1),
    Target(_ALL, _ONE, at_most=1.6),
]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it. PSS counts what processes share once for all of them, USS leaves it out."""
    pages = max(2, int(_PAGES * scale))
    return {_ONE: partial(_one, pages), _ALL: partial(_several, pages), _ALLOWED: lambda: 60.0}


def _one(pages: int) -> float:
    just_done, _ = _measure(1, pages)
    return just_done[0][0]


def _several(pages: int) -> dict[str, float]:
    just_done, at_rest = _measure(_WORKERS, pages)
    return {_ALL: just_done[0][0], _LARGEST: _largest_uss(just_done), _RESTING: _largest_uss(at_rest)}


def _largest_uss(memory_mb: list[tuple[float, float]]) -> float:
    """Of the workers but for the largest, which stands for the first."""
    uss = sorted(uss for _, uss in memory_mb[1:])
    return uss[-2] if len(uss) == _WORKERS else max(uss)


def _measure(workers: int, pages: int) -> list[list[tuple[float, float]]]:
    """When the last page is done, and at rest: (PSS, USS) in MB of all processes together, and then of each worker with
    its children, the largest last."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="fuze-")))
        server = parts.enter_context(PrivateRedis(folder / "redis"))
        origin = parts.enter_context(running_origin(folder, latency_ms=0))
        settings = replace(
            Settings(data_dir=folder, redis_url=server.url),
            fetch_allow=(urlsplit(origin.url).netloc,),
            host_fetches=0,
            host_interval_s=0.0,
        )
        service = parts.enter_context(BookmarkService(settings))
        argv = [sys.executable, "-m", "fuze_bench.cli", "worker", "--kind", "batch", "--count", str(workers)]
        environment = settings.environment(os.environ)
        child = parts.enter_context(
            Child("the workers", argv, folder / "workers.log", environment=environment)
        )
        number = workers * pages
        service.save([service.check(user_id=1, url=f"{origin.url}/page/{n}") for n in range(number)])
        deadline_s = time.monotonic() + _LIMIT_S
        while (counts := service.store.counts())["processed"] < number:
            if time.monotonic() > deadline_s or counts["failed"] or not child.is_alive():
                raise LabError(f"{counts} of {number} bookmarks: {child.log_tail(3)}")
            time.sleep(0.05)
        supervisor = psutil.Process(child.pid)
        just_done = _of_all(supervisor)
        time.sleep(_AT_REST_S)
        return [just_done, _of_all(supervisor)]


def _of_all(supervisor: psutil.Process) -> list[tuple[float, float]]:
    of_workers = [_memory_mb([worker, *worker.children(recursive=True)]) for worker in supervisor.children()]
    together = _memory_mb([supervisor, *supervisor.children(recursive=True)])
    return [together, *sorted(of_workers, key=lambda each: each[1])]


def _memory_mb(processes: list[psutil.Process]) -> tuple[float, float]:
    found = [process.memory_full_info() for process in processes]
    return sum(each.pss for each in found) / 1e6, sum(each.uss for each in found) / 1e6
