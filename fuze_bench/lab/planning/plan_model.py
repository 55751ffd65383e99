"""What a number of workers would do at a rate: each figure with its interval, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement.block_resampling import Estimate, block_estimates
from fuze_bench.lab.judgement.stats import SAMPLES_BEYOND
from fuze_bench.lab.planning.plan_evidence import CountEvidence, Evidence, Jobs
from fuze_bench.lab.queueing.queue_growth import Growth, growth, utilisation
from fuze_bench.lab.queueing.replay import Floats, replay

Source = Literal["measured", "modelled", "extrapolated"]

QUANTILE = 0.95
#: A queue with fewer recorded jobs has no service times to plan with.
JOBS_TO_PLAN = 20
_REPLAYED_JOBS = 80_000
_RESAMPLED_JOBS = 4_000
_RESAMPLES = 30
#: The share of a replay's jobs, from its start, that found the queue emptier than it will be.
_WARM_UP = 0.1


@dataclass(frozen=True)
class Wait:
    """A queue's 95th percentile of waits in seconds; None where it grows or has too few jobs to state one."""

    queue: str
    p95_s: Estimate | None
    growth: Growth | None
    source: Source


@dataclass(frozen=True)
class Case:
    """A load: jobs a second over all queues, and by how much longer than recorded each job takes."""

    rate_per_s: float
    service_factor: float = 1.0


class Model:
    """A recorded run as a queueing model. Everything drawn comes from `seed`."""

    def __init__(self, evidence: Evidence, *, seed: int = 1) -> None:
        self.evidence = evidence
        self.seed = seed

    def source(self, workers: int) -> Source:
        """Whether service times were recorded with so many workers, or are those of another number."""
        return "modelled" if workers in self.evidence.counts else "extrapolated"

    def utilisation(self, workers: int, case: Case) -> Estimate:
        """The share of their time that the workers are busy, overhead included."""

        def share(blocks: Sequence[Jobs]) -> list[float]:
            return [case.rate_per_s * self._mean_s(blocks, workers, case) / workers]

        return block_estimates(share, self._count(workers).blocks, seed=self.seed)[0]

    def capacity_per_s(self, workers: int, case: Case) -> float:
        """The most jobs a second that so many workers finish."""
        capacity = workers / self._mean_s(self._count(workers).blocks, workers, case)
        return min(capacity, self.cpu_limit_per_s(case))

    def cpu_limit_per_s(self, case: Case) -> float:
        """The most jobs a second for which the machine has CPU time, whatever the number of workers."""
        cpu_s, cores = self.evidence.cpu_s_per_job, self.evidence.cores
        return cores / (cpu_s * case.service_factor) if cpu_s and cores else math.inf

    def growths(self, workers: int, case: Case) -> list[Growth]:
        """Each queue's balance in the long run."""
        rates, services = self._loads(self._count(workers).blocks, workers, case)
        return growth(rates, services, workers, strategy=self.evidence.strategy)

    def drain_s(self, workers: int, case: Case, backlog: int) -> Estimate:
        """How long a backlog takes behind everything else, while jobs go on arriving; infinite: for ever."""
        limit = self.cpu_limit_per_s(case)

        def time(blocks: Sequence[Jobs]) -> list[float]:
            left = min(workers / self._mean_s(blocks, workers, case), limit) - case.rate_per_s
            return [backlog / left if left > 0 else math.inf]

        return block_estimates(time, self._count(workers).blocks, seed=self.seed)[0]

    def memory_bytes(self, workers: int) -> tuple[int, Source] | None:
        """The workers' memory: the highest recorded, else from a line through what was recorded; None: not recorded."""
        peaks = self.evidence.peak_bytes
        if not peaks:
            return None
        if workers in peaks:
            return peaks[workers], "measured"
        within = min(peaks) < workers < max(peaks)
        if len(peaks) == 1:
            ((count, peak),) = peaks.items()
            return round(peak * workers / count), "extrapolated"
        slope, start = np.polyfit(list(peaks), list(peaks.values()), 1)
        return max(0, round(slope * workers + start)), "modelled" if within else "extrapolated"

    def waits(self, workers: int, case: Case) -> list[Wait]:
        """Each queue's p95 at a load that does not grow: measured if it was, else by replay, without intervals."""
        recorded = self._recorded(workers, case)
        if recorded and not np.isnan(found := _recorded_p95(recorded, self._queues)).any():
            return self._listed([Estimate(value, None, None, len(recorded)) for value in found], "measured")
        blocks = self._count(workers).blocks
        found = self._replayed_p95(blocks, workers, case, _REPLAYED_JOBS)
        return self._listed(
            [Estimate(value, None, None, len(blocks)) for value in found], self.source(workers)
        )

    def with_intervals(self, waits: Sequence[Wait], workers: int, case: Case) -> list[Wait]:
        """The same figures with their intervals, by resampling blocks."""
        values = [math.nan if wait.p95_s is None else wait.p95_s.value for wait in waits]
        if waits[0].source == "measured":
            recorded = self._recorded(workers, case)
            estimates = block_estimates(
                lambda blocks: _recorded_p95(blocks, self._queues), recorded, values=values, seed=self.seed
            )
        else:
            # Every resample replays the same arrivals, so that only the blocks make a difference.
            estimates = block_estimates(
                lambda blocks: self._replayed_p95(blocks, workers, case, _RESAMPLED_JOBS, beyond=0),
                self._count(workers).blocks,
                values=values,
                resamples=_RESAMPLES,
                seed=self.seed,
            )
        return self._listed(estimates, waits[0].source)

    @property
    def _queues(self) -> int:
        return len(self.evidence.queues)

    def _recorded(self, workers: int, case: Case) -> tuple[Jobs, ...]:
        return self.evidence.measured(workers, case.rate_per_s) if case.service_factor == 1 else ()

    def _listed(self, estimates: Sequence[Estimate], source: Source) -> list[Wait]:
        return [
            Wait(queue, None if math.isnan(estimate.value) else estimate, None, source)
            for queue, estimate in zip(self.evidence.queues, estimates, strict=True)
        ]

    def _count(self, workers: int) -> CountEvidence:
        return self.evidence.nearest(workers)

    def _loads(self, blocks: Sequence[Jobs], workers: int, case: Case) -> tuple[list[float], list[float]]:
        """Each queue's rate and mean time at a worker, its overhead included."""
        overhead_s, _ = self.evidence.overhead_s(workers)
        jobs, sums_s = np.zeros(self._queues), np.zeros(self._queues)
        for counts, times_s in (block.by_queue for block in blocks):
            jobs[: len(counts)] += counts
            sums_s[: len(counts)] += times_s
        means_s = sums_s / np.maximum(jobs, 1) * case.service_factor + overhead_s
        return (case.rate_per_s * jobs / jobs.sum()).tolist(), means_s.tolist()

    def _mean_s(self, blocks: Sequence[Jobs], workers: int, case: Case) -> float:
        """The mean time that a job keeps a worker."""
        rates, services = self._loads(blocks, workers, case)
        mean_s = utilisation(rates, services, 1) / case.rate_per_s
        if mean_s <= 0:
            raise LabError("the run's jobs took no time at all: measure again")
        return mean_s

    def _replayed_p95(
        self, blocks: Sequence[Jobs], workers: int, case: Case, jobs: int, *, beyond: int = SAMPLES_BEYOND
    ) -> list[float]:
        if case.rate_per_s * self._mean_s(blocks, workers, case) / workers >= 1:
            return [math.inf] * self._queues
        queues = np.concatenate([block.queues for block in blocks])
        services = np.concatenate([block.services_s for block in blocks])
        # In a fixed order: the same draw then means a like job in every resample.
        order = np.lexsort((services, queues))
        rng = np.random.default_rng(self.seed)
        arrivals = np.cumsum(rng.exponential(1 / case.rate_per_s, jobs))
        drawn = order[(rng.random(jobs) * len(order)).astype(np.int64)]
        overhead_s, pickup_s = self.evidence.overhead_s(workers)
        found = replay(
            arrivals,
            services[drawn] * case.service_factor,
            workers,
            queues[drawn],
            strategy=self.evidence.strategy,
            overhead_s=overhead_s,
            pickup_s=pickup_s,
            seed=self.seed,
        )
        begin = int(_WARM_UP * jobs)
        return _p95(found.waits_s[begin:], queues[drawn][begin:], self._queues, beyond)


def _recorded_p95(blocks: Sequence[Jobs], queues: int) -> list[float]:
    waits = np.concatenate([block.waits_s for block in blocks])
    return _p95(waits, np.concatenate([block.queues for block in blocks]), queues)


def _p95(
    waits: Floats, of_queue: NDArray[np.int64], queues: int, beyond: int = SAMPLES_BEYOND
) -> list[float]:
    """By queue, the smallest wait that 95 % of its jobs do not exceed; NaN where fewer than `beyond` lie beyond it."""
    found = []
    for queue in range(queues):
        ordered = np.sort(waits[of_queue == queue])
        rank = math.ceil(round(QUANTILE * len(ordered), 9))
        found.append(float(ordered[rank - 1]) if len(ordered) and len(ordered) - rank >= beyond else math.nan)
    return found
