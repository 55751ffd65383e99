"""How many jobs a second the replay of a queue does: a plan asks for dozens of replays, and somebody waits for it."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from fuze_bench.lab.benchmarks.side_by_side import Measure, Target
from fuze_bench.lab.queueing.replay import replay

UNIT = "jobs/s"
_JOBS, _SERVERS, _LOAD = 200_000, 4, 0.9
_ENOUGH = "200,000 in a second"
#: Well under a second is half of one.
TARGETS = [
    Target("one queue", _ENOUGH, 2),
    Target("three queues, strict", _ENOUGH, 2),
    Target("three queues, random", _ENOUGH),
]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """Replays of random jobs on busy servers, and the rate that they are held against."""
    jobs = max(100, round(_JOBS * scale))
    return {
        _ENOUGH: lambda: float(_JOBS),
        "one queue": partial(_jobs_per_s, jobs, 1, "strict"),
        "three queues, strict": partial(_jobs_per_s, jobs, 3, "strict"),
        "three queues, random": partial(_jobs_per_s, jobs, 3, "random"),
    }


def _jobs_per_s(jobs: int, queues: int, strategy: str) -> float:
    rng = np.random.default_rng(1)
    arrivals_s = np.cumsum(rng.exponential(1.0, jobs))
    services_s = rng.exponential(_LOAD * _SERVERS, jobs)
    priorities = rng.integers(queues, size=jobs)
    begin_s = time.perf_counter()
    replay(arrivals_s, services_s, _SERVERS, priorities, strategy=strategy)
    return jobs / (time.perf_counter() - begin_s)
