"""Priorities: rates for a wanted utilisation, each queue's waits beside what theory gives, and what grows.

A wanted utilisation becomes a rate by a calibration: a backlog of jobs of constant length, in which the workers'
capacity shows with all that RQ adds to a job. Its jobs do not vary, so that no chance is in it.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement.growth import growth_of
from fuze_bench.lab.judgement.stats import LEVEL, quantile
from fuze_bench.lab.judgement.tables import GROWS, cell
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_beside, told_below
from fuze_bench.lab.queueing import formulas as queueing_formulas
from fuze_bench.lab.queueing import queue_growth
from fuze_bench.lab.queueing.replay import replay
from fuze_bench.lab.queueing.worker_overhead import worker_overhead
from fuze_bench.lab.runs.results import Run

_DEPTHS = 121
#: Of `by_trial`.
_COLUMNS = (
    "trial block copy utilisation recorded strategy queue jobs mean_wait_s replay_s cobham_s slope grew must_grow"
).split()
#: Of `waits_table`.
_WAITS = [
    "queue",
    "busy, recorded",
    "jobs",
    "mean wait, ms",
    "p95 wait, ms",
    "same jobs, ideal queue: mean, ms",
    "Cobham: mean, ms",
    "growth, jobs per second",
    DOUBTS,
]
#: Replays of a strategy that draws, of which the mean is taken: one alone is as much chance as the trial was.
_DRAWS = 20


def calibration(workers: int, mean_ms: float, jobs: int, kind: str = "simple") -> Experiment:
    """A backlog of sleeping jobs of constant length on workers of this kind: see `capacity_per_s`."""
    return Experiment(
        name="calibration",
        workload={"kind": "synthetic", "law": "constant", "mean_ms": mean_ms},  # type: ignore[arg-type]
        fixed={"workers": workers, "kind": kind},
        jobs=jobs,
        blocks=1,
        baseline_copy=False,
    )


def capacity_per_s(calibrated: Run) -> float:
    """Jobs a second that all workers of a calibration did together. Raises LabError if none of its trials counts."""
    good = calibrated.good_trials()["throughput_per_s"].dropna()
    if good.empty:
        problems = "; ".join(calibrated.trials["problem"].dropna()) or "it has no trial"
        raise LabError(f"the calibration in {calibrated.folder} says nothing: {problems}")
    return float(good.astype(float).median())


def at_utilisations(
    utilisations: Mapping[str, Sequence[float]],
    capacity: float,
    *,
    workers: int,
    mean_ms: float,
    queues: str,
    duration_s: float,
    blocks: int,
    seed: int,
    kind: str = "simple",
) -> Experiment:
    """Jobs that sleep for exponential times, offered at random times to `workers` of this kind.

    `utilisations`: for each strategy, shares of the `capacity` (jobs a second) to offer. Raises LabError unless one of
    them is below 1, where waits settle.
    """
    if not isinstance(utilisations, Mapping):
        raise LabError(
            f"utilisations is {utilisations!r}: name strategies with shares, as {{strict: [0.5, 0.8]}}"
        )
    shares = [share for each in utilisations.values() for share in each]
    if not all(0 < share < math.inf for share in shares) or min(shares, default=1) >= 1:
        raise LabError(
            f"utilisations={dict(utilisations)}: give shares of the capacity above 0, one of them below 1 (0.8: 80 %)"
        )
    return Experiment(
        name="queue_priorities",
        workload={"kind": "synthetic", "law": "exponential", "mean_ms": mean_ms},  # type: ignore[arg-type]
        fixed={"workers": workers, "kind": kind, "queues": queues, "arrivals": "poisson"},
        configurations=tuple(
            {"strategy": strategy, "rate_per_s": round(share * capacity, 3)}  # type: ignore[misc]
            for strategy, each in utilisations.items()
            for share in each
        ),
        duration_s=duration_s,
        blocks=blocks,
        seed=seed,
        baseline_copy=blocks > 1,
    )


@dataclass(frozen=True)
class Slope:
    """Jobs a second by which a queue grew, its bounds at LEVEL, and whether that is growth.

    Of one trial as `growth` has it, of several the mean of their slopes with Student's t over the trials. They begin
    with empty queues, so that all slopes tend upwards: it is growth if it was that in most of the trials alone.
    """

    mean: float
    low: float
    high: float
    grows: bool

    @property
    def in_figures(self) -> str:
        """For a table, in jobs a second."""
        seen = "" if self.grows else "not seen: "
        return f"{seen}{cell(self.mean)} ({cell(self.low)} to {cell(self.high)})"

    def __str__(self) -> str:
        words = f"grows by {cell(self.mean)} per second" if self.grows else f"{cell(self.mean)} per second"
        return f"{words} ({cell(self.low)} to {cell(self.high)})"


def depths(events: pd.DataFrame, window_s: float) -> pd.DataFrame:
    """The jobs of one trial that wait in each queue, at evenly spaced moments of its window: a column a queue, a row a moment.

    From the stamps of every job, and so without the gaps of a sampled series. The index holds seconds from the first
    intended send.
    """
    times_s = np.linspace(0.0, window_s, _DEPTHS)
    start_ns = int(events["intended_ns"].min())
    found = {}
    for queue, chosen in events.groupby("queue", sort=False):
        stamps = {
            name: np.sort((chosen[name].dropna().astype("int64").to_numpy() - start_ns) / 1e9)
            for name in ("queued_ns", "started_ns")
        }
        came, went = (np.searchsorted(each, times_s, side="right") for each in stamps.values())
        found[str(queue)] = came - went
    return pd.DataFrame(found, index=times_s)


def by_trial(run: Run, capacity: float) -> pd.DataFrame:
    """A row for each queue of each good trial, the first queue first.

    `utilisation`: the rate over `capacity`. `recorded`: the utilisation by the jobs that came, their service times and
    the worker's overhead between two jobs. `mean_wait_s`; `replay_s`: the mean wait of the very same jobs in an
    ideal queue with this overhead (`queueing.replay`); `cobham_s`: that of endless jobs like these, of `strict` alone
    and missing from a utilisation of 1 on; `slope`: a `growth.Line` or None; `must_grow`: by theory.
    """
    return _by_trial(run, capacity).copy()


@functools.lru_cache(maxsize=4)
def _by_trial(run: Run, capacity: float) -> pd.DataFrame:
    """Kept: the table, each plot and the answer of a notebook ask for it, and the replays take seconds."""
    rows: list[dict[str, Any]] = []
    for _, trial in run.good_trials().iterrows():
        events = run.events[run.events["trial"] == trial["trial"]]
        rows += _of_trial(trial, events, capacity)
    order = list(dict.fromkeys(configuration.strategy for configuration in run.experiment.configurations))
    rows.sort(key=lambda row: (row["utilisation"], order.index(str(row["strategy"])), row["trial"]))
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"copy": bool, "grew": bool, "must_grow": bool})


def _of_trial(trial: pd.Series, events: pd.DataFrame, capacity: float) -> list[dict[str, Any]]:
    done = events.dropna(subset=["queued_ns", "started_ns", "done_ns"])
    start_ns = int(events["intended_ns"].min())
    came_s, began_s, ended_s = (
        (done[name].astype("int64").to_numpy() - start_ns) / 1e9
        for name in ("queued_ns", "started_ns", "done_ns")
    )
    workers, window_s, strategy = int(trial["workers"]), float(trial["window_s"]), str(trial["strategy"])
    queues = [part.partition(":")[0] for part in str(trial["queues"]).split(",")]
    rank = done["queue"].map({queue: number for number, queue in enumerate(queues)}).to_numpy(dtype=int)
    overhead = worker_overhead(came_s, began_s, ended_s, workers)
    between_s, pickup_s = overhead.between_s or 0.0, overhead.pickup_s or 0.0
    draws = _DRAWS if strategy == "random" else 1
    ideal_s = np.mean(
        [
            replay(
                came_s,
                ended_s - began_s,
                workers,
                rank,
                strategy=strategy,
                overhead_s=between_s,
                pickup_s=pickup_s,
                seed=seed,
            ).waits_s
            for seed in range(draws)
        ],
        axis=0,
    )
    occupied_s = ended_s - began_s + between_s
    offered = [float((rank == number).sum()) / window_s for number in range(len(queues))]
    predicted = (
        predicted_waits_s(offered, occupied_s.tolist(), workers, pickup_s)
        if strategy == "strict"
        else [None] * len(queues)
    )
    wanted = float(trial["rate_per_s"]) / capacity
    shares = _shares(str(trial["queues"]))
    balance = queue_growth.growth(
        [share * wanted for share in shares], [1.0] * len(queues), 1, strategy=strategy
    )
    waiting = depths(done, window_s)
    rows: list[dict[str, Any]] = []
    for number, queue in enumerate(queues):
        mine = rank == number
        growth = growth_of(queue, waiting.index.tolist(), waiting[queue].tolist()) if mine.any() else None
        rows.append(
            {
                "trial": int(trial["trial"]),
                "block": int(trial["block"]),
                "copy": bool(trial["copy"]),
                "utilisation": round(wanted, 2),
                "recorded": sum(offered) * float(occupied_s.mean()) / workers if len(done) else None,
                "strategy": strategy,
                "queue": queue,
                "jobs": int(mine.sum()),
                "mean_wait_s": float((began_s - came_s)[mine].mean()) if mine.any() else None,
                "replay_s": float(ideal_s[mine].mean()) if mine.any() else None,
                "cobham_s": predicted[number],
                "slope": None if growth is None else growth.line,
                "grew": growth is not None and growth.grows,
                "must_grow": balance[number].per_s > 0,
            }
        )
    return rows


def predicted_waits_s(
    rates: Sequence[float], occupied_s: Sequence[float], workers: int, pickup_s: float
) -> list[float] | list[None]:
    """Cobham's mean wait of each queue, the first first, for jobs that occupy a worker for times like `occupied_s`
    (service and overhead); missing where they would occupy the workers all the time.

    Cobham's M/M/c waits times (1 + c_s²) / 2, as by Allen and Cunneen: what RQ adds to each job makes the times vary
    less than exponential ones do. A job that finds an idle worker waits for the `pickup_s` that it takes to start.
    """
    if len(occupied_s) < 2:
        return [None] * len(rates)
    mean_s = statistics.fmean(occupied_s)
    load = sum(rates) * mean_s
    if load >= workers:
        return [None] * len(rates)
    shape = (1 + statistics.variance(occupied_s) / mean_s**2) / 2
    idle = 1 - queueing_formulas.erlang_c(workers, load)
    waits = queueing_formulas.cobham_mmc_mean_waits_s(rates, mean_s, workers)
    return [wait * shape + idle * pickup_s for wait in waits]


def _shares(queues: str) -> list[float]:
    weights = [float(part.partition(":")[2]) for part in queues.split(",")]
    return [weight / sum(weights) for weight in weights]


def slope_of(rows: pd.DataFrame) -> Slope | None:
    """The growth of one queue over its trials (rows of `by_trial`); None where no trial was long enough to tell."""
    lines = [line for line in rows["slope"] if line is not None]
    if not lines:
        return None
    slopes = [line.slope for line in lines]
    mean = statistics.fmean(slopes)
    if len(lines) == 1:
        return Slope(mean, lines[0].low, lines[0].high, bool(rows["grew"].any()))
    half = (
        float(stdtrit(len(slopes) - 1, (1 + LEVEL) / 2)) * statistics.stdev(slopes) / math.sqrt(len(slopes))
    )
    return Slope(mean, mean - half, mean + half, mean - half > 0 and float(rows["grew"].mean()) > 0.5)


def has_no_wait(rows: pd.DataFrame) -> bool:
    """Whether one queue's waits are not to be stated: it has to grow by theory, or was seen to."""
    slope = slope_of(rows)
    return bool(rows["must_grow"].any()) or (slope is not None and slope.grows)


def waits_table(run: Run, capacity: float) -> pd.DataFrame:
    """A row a utilisation, strategy and queue: waits in milliseconds, beside the ideal queue and Cobham; or growth.

    DOUBTS are those about the trials, all queues together.
    """
    label_of = run.trials.set_index("trial")["label"]
    table = by_trial(run, capacity)
    table = table[~table["copy"]]
    waits_ms = run.good_events().dropna(subset=["wait_ms"]).groupby(["trial", "queue"])["wait_ms"].apply(list)
    rows = []
    for (wanted, strategy, queue), chosen in table.groupby(["utilisation", "strategy", "queue"], sort=False):
        grows = has_no_wait(chosen)
        pooled = [w for trial in chosen["trial"] for w in waits_ms.get((trial, queue), [])]
        p95 = quantile([float(wait) for wait in pooled], 0.95)
        slope = slope_of(chosen)
        rows.append(
            {
                "queue": f"{wanted:.0%} {plain(strategy)}: {queue}",
                "busy, recorded": f"{chosen['recorded'].mean():.0%}",
                "jobs": int(chosen["jobs"].sum()),
                "mean wait, ms": GROWS if grows else mean_ms_of(chosen["mean_wait_s"]),
                "p95 wait, ms": GROWS if grows else p95,
                "same jobs, ideal queue: mean, ms": None if grows else mean_ms_of(chosen["replay_s"]),
                "Cobham: mean, ms": None if grows else mean_ms_of(chosen["cobham_s"]),
                "growth, jobs per second": None if slope is None else slope.in_figures,
                DOUBTS: doubts_beside(run, *label_of[chosen["trial"]]),
            }
        )
    return told_below(pd.DataFrame(rows, columns=_WAITS).set_index("queue"), run)


def mean_ms_of(values_s: pd.Series) -> float | None:
    """The mean of what is known of these seconds, in milliseconds; None where nothing is."""
    known = values_s.dropna()
    return None if known.empty else 1e3 * float(known.astype(float).mean())


def plain(strategy: object) -> str:
    """A strategy's name as people write it."""
    return str(strategy).replace("_", " ")
