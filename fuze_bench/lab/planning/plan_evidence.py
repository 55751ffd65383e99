"""What a recorded run tells a capacity plan: service times, overhead, memory and CPU by number of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.queueing.replay import Floats
from fuze_bench.lab.queueing.worker_overhead import WorkerOverhead, worker_overhead

#: The pipeline's queues in their order of priority; others follow in the order of their names.
_PRIORITY = ("high", "default", "low")
#: What must not differ between trials from which one plan is made.
FAMILY = "kind strategy mode queues pages origin_latency_ms origin_failure_rate redis_rtt_ms".split()
#: Which the model of a queue does not know: it gives a server one job at a time, and each job a time of its own.
TAKES_SEVERAL = "batch"
MEASURED_ONLY = "workers of this kind take several jobs at once, which the model of a queue does not know: they are measured only"
#: A trial at another rate than this share around the wanted one has not measured it.
SAME_RATE = 0.02
_EVENT_COLUMNS = ("trial", "queue", "queued_ns", "started_ns", "done_ns")
_TRIAL_COLUMNS = ("trial", "block", "workers", "status")


@dataclass(frozen=True, eq=False)
class Jobs:
    """Jobs of one block: their service times and waits (seconds), and each one's queue as its place in the order."""

    services_s: Floats
    waits_s: Floats
    queues: NDArray[np.int64]

    @cached_property
    def by_queue(self) -> tuple[Floats, Floats]:
        """How many jobs each queue has, and how long they take together in seconds, up to the last queue that has any."""
        ones = np.ones_like(self.services_s)
        jobs, times_s = (np.bincount(self.queues, weights=each) for each in (ones, self.services_s))
        return jobs.astype(np.float64), times_s.astype(np.float64)


@dataclass(frozen=True, eq=False)
class CountEvidence:
    """What was recorded with one number of workers."""

    workers: int
    blocks: tuple[Jobs, ...]
    overhead: WorkerOverhead


@dataclass(frozen=True, eq=False)
class Evidence:
    """A recorded run's good trials of one family, by number of workers."""

    queues: tuple[str, ...]
    """In order of priority."""
    strategy: str
    counts: Mapping[int, CountEvidence]
    peak_bytes: Mapping[int, int]
    """The workers' highest memory (PSS) by number of workers."""
    cpu_s_per_job: float | None
    cores: int | None
    at_rate: Mapping[tuple[int, float], tuple[Jobs, ...]]
    """Blocks of drained Poisson trials by number of workers and rate: their waits have been measured."""

    def nearest(self, workers: int) -> CountEvidence:
        """The evidence for so many workers, or of the nearest count that was measured (of two, the larger)."""
        return self.counts[min(self.counts, key=lambda count: (abs(count - workers), -count))]

    def measured(self, workers: int, rate_per_s: float) -> tuple[Jobs, ...]:
        """Blocks in which so many workers were offered this rate; none if there were no such trials."""
        for (count, rate), blocks in self.at_rate.items():
            if count == workers and abs(rate / rate_per_s - 1) <= SAME_RATE:
                return blocks
        return ()

    def overhead_s(self, workers: int) -> tuple[float, float]:
        """(between two jobs, pick-up) in seconds, from the nearest count that shows each; unknown is taken as 0.

        Where only the first is known, an idle worker is taken to need as long as a busy one.
        """
        counts = sorted(
            self.counts.values(), key=lambda found: (abs(found.workers - workers), -found.workers)
        )
        between = next((c.overhead.between_s for c in counts if c.overhead.between_s is not None), None)
        pickup = next((c.overhead.pickup_s for c in counts if c.overhead.pickup_s is not None), None)
        if pickup is None:
            pickup = between or 0.0
        return max(between or 0.0, pickup), pickup


def gather(
    events: pd.DataFrame,
    trials: pd.DataFrame,
    *,
    cores: int | None = None,
    only: Mapping[str, str] | None = None,
) -> Evidence:
    """Read the tables of a run folder; `only`: factors and the value that the trials must have, as text.

    Raises LabError where trials differ in more than workers, arrivals and rate, nothing usable was recorded, or workers
    take several jobs at once.
    """
    for name, table, needed in (("events", events, _EVENT_COLUMNS), ("trials", trials, _TRIAL_COLUMNS)):
        if missing := [column for column in needed if column not in table.columns]:
            raise LabError(f"the run's {name} have no column {missing[0]!r}: measure again")
    chosen = _family(trials[trials["status"] == "ok"], only or {})
    if "kind" in chosen and chosen["kind"].eq(TAKES_SEVERAL).any():
        raise LabError(f"kind={TAKES_SEVERAL}: {MEASURED_ONLY}; plan from a run of another kind")
    done = events[events["trial"].isin(chosen["trial"])].dropna(subset=list(_EVENT_COLUMNS))
    unfinished = events[events["done_ns"].isna()].groupby("trial")["started_ns"].min()
    if done.empty:
        raise LabError("no good trial of the run has a finished job: measure again")
    queues = _in_order(done["queue"].unique())
    by_trial = {trial: _jobs(table, queues) for trial, table in done.groupby("trial")}
    chosen = chosen[chosen["trial"].isin(by_trial.keys())]
    return Evidence(
        queues=queues,
        strategy=str(chosen["strategy"].iloc[0]) if "strategy" in chosen else "strict",
        counts={
            int(workers): CountEvidence(
                int(workers), _blocks(table, by_trial), _overhead(done, unfinished, table)
            )
            for workers, table in chosen.groupby("workers")
        },
        peak_bytes=_peaks(chosen),
        cpu_s_per_job=_cpu(chosen),
        cores=cores,
        at_rate=_at_rate(chosen, by_trial),
    )


def _family(trials: pd.DataFrame, only: Mapping[str, str]) -> pd.DataFrame:
    factors = [factor for factor in FAMILY if factor in trials.columns]
    for factor, value in only.items():
        if factor not in factors:
            raise LabError(f"the run has no factor {factor!r} to choose by: {nearest(factor, factors)}")
        texts = trials[factor].map(_text)
        if value not in set(texts):
            raise LabError(f"no good trial has {factor} {value!r}: {nearest(value, set(texts))}")
        trials = trials[texts == value]
    if trials.empty:
        raise LabError("the run has no good trial: measure again")
    for factor in factors:
        if len(values := sorted(set(trials[factor].map(_text)))) > 1:
            usable = next(value for value in values if (factor, value) != ("kind", TAKES_SEVERAL))
            raise LabError(
                f"the run has {factor} {' and '.join(values)}: choose one with --only {factor}={usable}"
            )
    return trials


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_order(queues: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        sorted(queues, key=lambda queue: (_PRIORITY.index(queue) if queue in _PRIORITY else 9, queue))
    )


def _seconds(later: pd.Series, earlier: pd.Series) -> Floats:
    # Whole nanoseconds first: as seconds since the start of the host they would lose their last digits.
    found: Floats = ((later - earlier) / 1e9).to_numpy(dtype=np.float64)
    return found


def _jobs(table: pd.DataFrame, queues: tuple[str, ...]) -> Jobs:
    return Jobs(
        _seconds(table["done_ns"], table["started_ns"]),
        _seconds(table["started_ns"], table["queued_ns"]),
        table["queue"].map(queues.index).to_numpy(dtype=np.int64),
    )


def _blocks(trials: pd.DataFrame, by_trial: Mapping[int, Jobs]) -> tuple[Jobs, ...]:
    """All jobs of each block's trials together."""
    return tuple(
        Jobs(
            np.concatenate([by_trial[trial].services_s for trial in table["trial"]]),
            np.concatenate([by_trial[trial].waits_s for trial in table["trial"]]),
            np.concatenate([by_trial[trial].queues for trial in table["trial"]]),
        )
        for _, table in trials.groupby("block")
    )


def _overhead(done: pd.DataFrame, unfinished: pd.Series, trials: pd.DataFrame) -> WorkerOverhead:
    """Over several trials with the same number of workers.

    `unfinished`: by trial, when the first job began that never ended. From then on a worker may seem idle that is not.
    """
    found = []
    for trial, workers in zip(trials["trial"], trials["workers"], strict=True):
        jobs = done[done["trial"] == trial]
        if pd.notna(broken := unfinished.get(trial)):
            jobs = jobs[jobs["started_ns"] < broken]
        if jobs.empty:
            continue
        start = int(jobs["queued_ns"].min())
        origin = pd.Series(start, jobs.index)
        arrivals, starts, ends = (_seconds(jobs[name], origin) for name in _EVENT_COLUMNS[2:])
        try:
            found.append(worker_overhead(arrivals, starts, ends, int(workers)))
        except LabError as error:
            raise LabError(f"trial {trial}: {error}") from None
    between, between_jobs = _joined([(each.between_s, each.between_jobs) for each in found])
    pickup, pickup_jobs = _joined([(each.pickup_s, each.pickup_jobs) for each in found])
    return WorkerOverhead(between, between_jobs, pickup, pickup_jobs)


def _joined(means: Sequence[tuple[float | None, int]]) -> tuple[float | None, int]:
    jobs = sum(count for _, count in means)
    return (sum(mean * count for mean, count in means if mean is not None) / jobs if jobs else None), jobs


def _peaks(trials: pd.DataFrame) -> dict[int, int]:
    if "peak_pss_bytes" not in trials:
        return {}
    known = trials.dropna(subset=["peak_pss_bytes"])
    return {
        int(workers): int(peak) for workers, peak in known.groupby("workers")["peak_pss_bytes"].max().items()
    }


def _cpu(trials: pd.DataFrame) -> float | None:
    if not {"cpu_s", "processed"} <= set(trials.columns):
        return None
    known = trials.dropna(subset=["cpu_s", "processed"])
    jobs = float(known["processed"].sum() + (known["failed"].sum() if "failed" in known else 0))
    return float(known["cpu_s"].sum()) / jobs if jobs else None


def _at_rate(trials: pd.DataFrame, by_trial: Mapping[int, Jobs]) -> dict[tuple[int, float], tuple[Jobs, ...]]:
    if not {"arrivals", "rate_per_s", "drained"} <= set(trials.columns):
        return {}
    known = trials[(trials["arrivals"] == "poisson") & trials["drained"].eq(True)].dropna(
        subset=["rate_per_s"]
    )
    return {
        (int(workers), float(rate)): _blocks(table, by_trial)
        for (workers, rate), table in known.groupby(["workers", "rate_per_s"])
    }
