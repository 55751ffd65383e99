"""What a worker needs beside its jobs, from recorded starts and ends: between two jobs, and to pick one up; pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fuze_bench.errors import LabError


@dataclass(frozen=True)
class WorkerOverhead:
    """Means in seconds, and of how many jobs; None where no job was of that sort."""

    between_s: float | None
    """From a worker's end of a job to its next start, while that next job was waiting already."""
    between_jobs: int
    pickup_s: float | None
    """From a job's arrival to its start on a worker that was idle by then."""
    pickup_jobs: int


def worker_overhead(
    arrivals_s: ArrayLike, starts_s: ArrayLike, ends_s: ArrayLike, workers: int
) -> WorkerOverhead:
    """Estimate the overhead from one trial's jobs (seconds of one clock; warm-up left out).

    Which worker ran a job need not be known: jobs are matched, in order of their starts, to the worker that has been
    free longest. Gaps may then be paired wrongly, their sum and so their mean are right. Counted is from the moment on
    when every worker had a recorded job in hand: before, some may have been busy with jobs of the warm-up.

    Raises LabError for stamps out of order, or more jobs at once than there were workers.
    """
    arrivals, starts, ends = (np.asarray(each, dtype=np.float64) for each in (arrivals_s, starts_s, ends_s))
    if not arrivals.shape == starts.shape == ends.shape:
        raise LabError(f"{arrivals.size} arrivals, {starts.size} starts and {ends.size} ends: give one a job")
    if not ((arrivals <= starts) & (starts <= ends)).all():
        raise LabError("a job's stamps are missing or not in the order arrival, start, end: leave it out")
    between: list[float] = []
    pickups: list[float] = []
    free: list[float] = []
    all_known = False
    order = np.argsort(starts, kind="stable")
    for arrival, start, end in zip(
        arrivals[order].tolist(), starts[order].tolist(), ends[order].tolist(), strict=True
    ):
        if len(free) < workers:
            heapq.heappush(free, end)
            all_known = len(free) == workers and free[0] > start
            continue
        ready = heapq.heapreplace(free, end)
        if ready > start:
            raise LabError(
                f"more than {workers} jobs ran at once: give the number of workers that ran them, or leave"
                " out a run that takes jobs in batches"
            )
        if all_known and arrival <= ready:
            between.append(start - ready)
        elif all_known:
            pickups.append(start - arrival)
        all_known = all_known or free[0] > start
    return WorkerOverhead(_mean(between), len(between), _mean(pickups), len(pickups))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
