"""Bookmarks a second by two worker processes, start-up left out, when the web site answers at once.

The same computation in a plain loop in two processes, without a queue, is what could be had at most.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.bookmark_recipe import process_bookmark
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Trial
from fuze_bench.lab.parts.services import running_origin
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import Settings

UNIT = "bookmarks/s"
OURS, OUR_LOOP, DOCUMENTED, RECIPE = "batch", "our loop", "documented loop", "naive recipe"
TARGETS = [
    Target(OURS, OUR_LOOP, at_least=0.95),
    Target(OURS, DOCUMENTED, at_least=1.5),
    Target(OURS, RECIPE, at_least=45),
]
_WORKERS = 2
_PAGES = 300
_RECIPES_PAGES = 8
_LIMIT_S = 600


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it."""
    pages = max(10, int(_PAGES * scale))
    return {
        OURS: partial(pipeline_per_s, "batch", pages),
        OUR_LOOP: partial(_loop_per_s, "ours", pages),
        DOCUMENTED: partial(_loop_per_s, "documented", pages),
        RECIPE: partial(_recipe_per_s, max(_WORKERS, int(_RECIPES_PAGES * scale))),
    }


def pipeline_per_s(kind: str, pages: int, latency_ms: float = 0.0) -> float:
    """Bookmarks a second by the pipeline: all saved at once, until the last is stored. Raises LabError if one failed."""
    experiment = Experiment(
        fixed={"kind": kind, "workers": _WORKERS, "origin_latency_ms": latency_ms},
        jobs=pages,
        blocks=1,
        baseline_copy=False,
    )
    [planned] = experiment.plan()
    with tempfile.TemporaryDirectory(prefix="fuze-") as name:
        folder, settings = Path(name), Settings(data_dir=Path(name))
        with (
            WorkerHost(settings, folder / "host.log") as host,
            Trial(planned, experiment, settings, folder / "trial", host) as trial,
        ):
            trial.wait_ready()
            trial.measure()
        row = trial.row()
    if row.problem is not None or row.failed or row.throughput_per_s is None:
        raise LabError(f"{kind}: {row.failed} of {pages} bookmarks failed: {row.problem or 'see the origin'}")
    return row.throughput_per_s


def _loop_per_s(which: str, pages: int, latency_ms: float = 0.0) -> float:
    with _origin(latency_ms) as origin, ExitStack() as parts:
        module = "fuze_bench.lab.benchmarks.bookmark_loop"
        loops = [
            parts.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module, which, origin, str(n), str(_WORKERS), str(pages)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for n in range(_WORKERS)
        ]
        _all_say("ready", loops)
        began_s = time.perf_counter()
        for loop in loops:
            assert loop.stdin is not None
            loop.stdin.write("\n")
            loop.stdin.flush()
        _all_say("done", loops)
        return pages / (time.perf_counter() - began_s)


def _all_say(word: str, loops: list[subprocess.Popen[str]]) -> None:
    for loop in loops:
        assert loop.stdout is not None
        if loop.stdout.readline().strip() != word:
            raise LabError("a loop over pages ended early: what it says of that is above")


def _recipe_per_s(pages: int) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="fuze-") as folder,
        PrivateRedis(Path(folder) / "redis") as server,
        connect(server.url) as client,
        _origin(0.0) as origin,
        StockWorkers("fork", _WORKERS, ["default"], server.url, Path(folder)),
    ):
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        began_s = time.perf_counter()
        jobs = [
            queue.enqueue(process_bookmark, f"{origin}/page/{n}", job_timeout=_LIMIT_S) for n in range(pages)
        ]
        while (ended := queue.finished_job_registry.count + queue.failed_job_registry.count) < len(jobs):
            time.sleep(0.02)
        spent_s = time.perf_counter() - began_s
        if queue.failed_job_registry.count:
            raise LabError(f"{queue.failed_job_registry.count} of {ended} jobs of the recipe failed")
        return pages / spent_s


@contextmanager
def _origin(latency_ms: float) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="fuze-") as folder,
        running_origin(Path(folder), latency_ms=latency_ms) as origin,
    ):
        yield origin.url
