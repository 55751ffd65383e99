"""A capacity plan put to the test: what a run of few workers predicts for others, beside what was then measured; pure.

Prediction and measurement have the same arrivals, so that what is compared is the same short window, which begins with
an empty queue, and not a long run's average.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
import pandas as pd

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement.block_resampling import LEVEL
from fuze_bench.lab.judgement.checks import Conclusion, doubts, nothing_counts
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE, mean_interval, quantile
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.trial_verdicts import GROWING_BACKLOG
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_beside, told_below
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.planning.plan import Plan
from fuze_bench.lab.planning.plan_evidence import MEASURED_ONLY, TAKES_SEVERAL, Evidence, gather
from fuze_bench.lab.planning.plan_text import duration, workers_text
from fuze_bench.lab.queueing.replay import Floats, replay
from fuze_bench.lab.runs.results import Run

#: Replays of one window, each with service times drawn anew: so many that ten lie beyond each bound.
_DRAWS = 400
MEAN, P95, IN_TIME, LEFT = "mean wait, s", "p95 of the wait, s", "started in time, %", "left behind, jobs/s"
_FIGURES = (MEAN, P95, IN_TIME, LEFT)
_BOUNDS = (f"{LEVEL:.0%} from", f"{LEVEL:.0%} to")
_OUTCOMES = {Answer.YES: "held", Answer.NO: "missed", Answer.UNKNOWN: "outside, but not clearly"}
_MOST = {IN_TIME: 100.0}
#: What is too little to tell two figures apart: a millisecond of a wait, one job in a hundred.
_SLACK = {MEAN: 0.001, P95: 0.001, IN_TIME: 1.0, LEFT: 0.0}


@dataclass(frozen=True)
class Calibration:
    """Synthetic jobs that take as long as recorded ones. Shows itself in a notebook."""

    law: ServiceLaw
    recorded_mean_ms: float
    recorded_jobs: int

    def __str__(self) -> str:
        known = (
            f"{self.recorded_jobs} recorded jobs took {cell(self.recorded_mean_ms)} ms on average, with a"
            f" standard deviation of {cell(self.law.cv)} times that."
        )
        way = "sleep" if self.law.how == "sleep" else "compute"
        if self.law.mean_ms < 0.99 * self.recorded_mean_ms:  # and not for its last digits
            return (
                f"{known} So that this takes no longer, the synthetic jobs {way} for {cell(self.law.mean_ms)} ms on"
                " average, with the same variation, by a lognormal law."
            )
        return f"{known} The synthetic jobs {way} for as long, by a lognormal law."

    def _repr_html_(self) -> str:
        return f"<p class='calibration'>{escape(str(self))}</p>"


def calibrate(run: Run, *, longest_mean_ms: float | None = None, how: str = "sleep") -> Calibration:
    """A lognormal law with the mean and the variation of the run's service times.

    `longest_mean_ms`: a longer mean is shortened to that. Raises LabError with fewer than 10 jobs.
    """
    services_ms = run.good_events()["service_ms"].dropna().to_numpy(dtype=np.float64)
    if len(services_ms) < 10:
        raise LabError(f"{run.folder} has {len(services_ms)} finished jobs, 10 are needed to calibrate from")
    mean_ms = float(services_ms.mean())
    # A law needs some variation: constant jobs have one part in a thousand.
    cv = max(float(services_ms.std(ddof=1)) / mean_ms, 1e-3)
    taken_ms = mean_ms if longest_mean_ms is None else min(mean_ms, longest_mean_ms)
    law = ServiceLaw(law="lognormal", mean_ms=round(taken_ms, 3), cv=round(cv, 3), how=how)
    return Calibration(law, mean_ms, len(services_ms))


def check_kind(kind: str) -> None:
    """Raises LabError for a kind of worker that no plan can be made for, before anything is measured."""
    if kind == TAKES_SEVERAL:
        raise LabError(f"kind={kind!r}: {MEASURED_ONLY}; give simple or fork")


def rate_to_keep_busy(run: Run, workers: float) -> float:
    """How many jobs a second, with the recorded service times, would keep so many workers busy."""
    services_ms = run.good_events()["service_ms"].dropna()
    if services_ms.empty:
        raise LabError(f"{run.folder} has no finished job: see `problem` and `log_end` in its trials")
    return round(1e3 * workers / float(services_ms.mean()), 3)


def counts_to_measure(plan: Plan) -> list[int]:
    """The number of workers that a plan chooses, and one fewer; where that is none, one more."""
    chosen = plan.chosen.workers
    return [chosen - 1, chosen] if chosen > 1 else [1, 2]


@dataclass(frozen=True)
class Range:
    """A figure and the bounds at LEVEL; None where there are none."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return (
            cell(self.value)
            if self.low is None
            else f"{cell(self.value)} ({cell(self.low)} to {cell(self.high)})"
        )


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a number of workers will do in the window of an experiment, before that is measured.

    `blocks`: of the run that it comes from. `waits_s`: the waits of its jobs, shape (draws, jobs). `grows`: they are
    offered more than they can do. `target_s`: within what time jobs are to start, if that is wanted.
    """

    label: str
    workers: int
    blocks: int
    grows: bool
    waits_s: Floats
    target_s: float | None
    figures: Mapping[str, Range]

    @property
    def names(self) -> tuple[str, ...]:
        """The figures to look at: of a queue that grows how fast, of another its waits, never a quantile of growth."""
        return (LEFT,) if self.grows else tuple(n for n in (MEAN, P95, IN_TIME) if n in self.figures)


def forecasts(
    base: Run, experiment: Experiment, *, target_s: float | None = None, seed: int = 1
) -> tuple[Forecast, ...]:
    """What each configuration of `experiment` will do, from the service times and the overhead recorded in `base`.

    Its arrivals are replayed through so many workers, time after time with service times drawn anew from whole
    blocks of `base`; the bounds are those of LEVEL of the replays. Raises LabError where `base` has no finished job.
    """
    evidence = gather(base.good_events(), base.good_trials())
    rng = np.random.default_rng(seed)
    found = []
    for configuration, label in experiment.labels.items():
        arrivals = experiment.arrivals_of(configuration)
        times_s = np.asarray(arrivals.times(experiment.seed), dtype=np.float64)
        drawn = [_replayed(evidence, times_s, configuration.workers, rng) for _ in range(_DRAWS)]
        tables = [_figures(times_s, waits_s, arrivals.window_s, target_s) for waits_s in drawn]
        overhead_s, _ = evidence.overhead_s(configuration.workers)
        blocks = evidence.nearest(configuration.workers).blocks
        services_s = np.concatenate([block.services_s for block in blocks])
        busy = (
            len(times_s) / arrivals.window_s * (float(services_s.mean()) + overhead_s) / configuration.workers
        )
        ranges = {name: _range([t[name] for t in tables]) for name in _FIGURES if name in tables[0]}
        grows, waits_s = busy >= 1, np.array(drawn)
        found.append(Forecast(label, configuration.workers, len(blocks), grows, waits_s, target_s, ranges))
    return tuple(found)


def forecasts_table(forecast: Sequence[Forecast]) -> pd.DataFrame:
    """A row a prediction: its figure and bounds."""
    rows = [(each.label, name, *_bounds(each.figures[name])) for each in forecast for name in each.names]
    columns = ["configuration", "figure", "predicted", *_BOUNDS]
    return pd.DataFrame(rows, columns=columns).set_index("configuration")


def _replayed(evidence: Evidence, times_s: Floats, workers: int, rng: np.random.Generator) -> Floats:
    blocks = evidence.nearest(workers).blocks
    chosen = [blocks[number].services_s for number in rng.integers(len(blocks), size=len(blocks))]
    services_s = rng.choice(np.concatenate(chosen), len(times_s))
    overhead_s, pickup_s = evidence.overhead_s(workers)
    return replay(times_s, services_s, workers, overhead_s=overhead_s, pickup_s=pickup_s).waits_s


def _figures(
    arrivals_s: Floats, waits_s: Floats, window_s: float, target_s: float | None
) -> dict[str, float]:
    """The figures of one window; without a p95 where there are too few jobs to state one."""
    found = {MEAN: float(waits_s.mean()), LEFT: float((arrivals_s + waits_s > window_s).sum()) / window_s}
    if (p95_s := quantile(waits_s.tolist(), 0.95)) is not None:
        found[P95] = p95_s
    if target_s is not None:
        found[IN_TIME] = 100 * float((waits_s <= target_s).mean())
    return found


def _range(values: Sequence[float]) -> Range:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Range(statistics.median(values), float(low), float(high))


def measured_waits(run: Run, label: str) -> list[Floats]:
    """The waits (seconds) of a configuration's jobs, a block after the other."""
    return [waits_s for _, waits_s, _ in _windows(run, label)]


def _windows(run: Run, label: str) -> list[tuple[Floats, Floats, float]]:
    """Arrivals and waits in seconds from the window's start, and its length, of each block of a configuration."""
    found = []
    for _, trial in run.good_trials().iterrows():
        if trial["label"] != label or trial["copy"]:
            continue
        jobs = run.events[run.events["trial"] == trial["trial"]].dropna(subset=["queued_ns", "started_ns"])
        arrivals_s = ((jobs["queued_ns"] - run_start_ns(run, int(trial["trial"]))) / 1e9).to_numpy(np.float64)
        waits_s = (jobs["wait_ms"] / 1e3).to_numpy(np.float64)
        if len(waits_s):
            found.append((arrivals_s, waits_s, float(trial["window_s"])))
    return found


def run_start_ns(run: Run, trial: int) -> int:
    """When a trial's load began, by the run's monotonic clock: its first intended time."""
    return int(run.events.loc[run.events["trial"] == trial, "intended_ns"].min())


def measured_figures(run: Run, label: str, target_s: float | None = None) -> dict[str, Range]:
    """The figures of a configuration: mean over its blocks, with Student's interval from two blocks on."""
    tables = [_figures(*window, target_s) for window in _windows(run, label)]
    found = {}
    for name in _FIGURES:
        values = [table[name] for table in tables if name in table]
        if values and len(values) == len(tables):
            low, high = mean_interval(values, stopped_early=run.ended_early)
            if low is not None and high is not None:
                low, high = max(low, 0.0), min(high, _MOST.get(name, math.inf))
            found[name] = Range(statistics.fmean(values), low, high)
    return found


@dataclass(frozen=True)
class Check:
    """One figure of one configuration, predicted and measured; `blocks` are the fewer of those that each comes from."""

    label: str
    figure: str
    predicted: Range
    measured: Range
    blocks: int

    @property
    def is_inside(self) -> bool:
        """Whether the measured mean lies in what was predicted."""
        low, high = self._predicted
        return low <= self.measured.value <= high

    @property
    def held(self) -> Answer:
        """Yes where the measured mean lies in what was predicted, no where its whole interval lies outside.

        Else unknown, as always with fewer than BLOCKS_TO_CONCLUDE blocks.
        """
        low, high = self._predicted
        m = self.measured
        if self.blocks < BLOCKS_TO_CONCLUDE:
            return Answer.UNKNOWN
        if self.is_inside:
            return Answer.YES
        if m.low is None or m.high is None:
            return Answer.UNKNOWN
        return Answer.NO if m.high < low or m.low > high else Answer.UNKNOWN

    @property
    def outcome(self) -> str:
        """Whether it held; with too few blocks for that, where the measured value lay."""
        if self.blocks < BLOCKS_TO_CONCLUDE:
            return "inside" if self.is_inside else "outside"
        return _OUTCOMES[self.held]

    @property
    def _predicted(self) -> tuple[float, float]:
        p, slack = self.predicted, _SLACK[self.figure]
        assert p.low is not None
        assert p.high is not None
        return p.low - slack, p.high + slack


def checked(forecast: Sequence[Forecast], run: Run) -> list[Check]:
    """Each prediction with what was measured."""
    found = []
    for each in forecast:
        measured = measured_figures(run, each.label, each.target_s)
        blocks = min(each.blocks, len(_windows(run, each.label)))
        found += [
            Check(each.label, name, each.figures[name], measured[name], blocks)
            for name in each.names
            if name in measured
        ]
    return found


def checks_table(found: Sequence[Check], run: Run) -> pd.DataFrame:
    """A row a prediction: predicted and measured, each with its bounds, its outcome, and DOUBTS about what was measured."""
    rows = [
        (
            c.label,
            c.figure,
            *_bounds(c.predicted),
            *_bounds(c.measured),
            c.outcome,
            doubts_beside(run, c.label),
        )
        for c in found
    ]
    columns = ["configuration", "figure", "predicted", *_BOUNDS]
    columns += [
        "measured",
        *(f"measured, {bound}" for bound in _BOUNDS),
        "measured against predicted",
        DOUBTS,
    ]
    return told_below(pd.DataFrame(rows, columns=columns).set_index("configuration"), run)


def _bounds(figure: Range) -> tuple[float, float | None, float | None]:
    return figure.value, figure.low, figure.high


def whether_it_held(
    plan: Plan, forecast: Sequence[Forecast], run: Run, calibration: Calibration | None = None
) -> Conclusion:
    """Whether the plan's prediction held, figure by figure; below BLOCKS_TO_CONCLUDE blocks, of the plan's run or of the
    measured one, only where the measured values lay. `checks.nothing_counts` if no trial counts."""
    expected = frozenset({GROWING_BACKLOG})
    if none := nothing_counts(run, f"whether it is true that {_planned(plan)}", expected=expected):
        return replace(none, doubts=(*none.doubts, *_of_the_plan(plan, calibration)))
    found = checked(forecast, run)
    if not found:
        raise LabError(
            f"{run.folder} holds none of the numbers of workers that the plan speaks of: measure those"
        )
    few = plan.is_exploratory or any(check.blocks < BLOCKS_TO_CONCLUDE for check in found)
    planned = _planned(plan)
    begin = f"Exploratory: {planned}" if few else f"{planned[0].upper()}{planned[1:]}"
    sentences = [f"{begin}. {_overall(found, few)}"]
    sentences += [
        f"{c.label}: {c.figure} {c.measured} measured, {c.predicted} predicted: {_outcome(c, few)}."
        for c in found
    ]
    return Conclusion(
        " ".join(sentences),
        (*doubts(run, expected=expected), *_of_the_plan(plan, calibration)),
    )


def _overall(found: Sequence[Check], few: bool) -> str:
    if few:
        inside = sum(check.is_inside for check in found)
        return f"Measured, {inside} of {len(found)} figures lay inside what was predicted."
    answers = {check.held for check in found}
    if Answer.NO in answers:
        return "Measured, what it predicts did not hold."
    if Answer.YES not in answers:
        return "Measured, what it predicts was shown neither to hold nor not to."
    return f"Measured, what it predicts held{' in part; the rest is unknown' if Answer.UNKNOWN in answers else ''}."


def _outcome(check: Check, few: bool) -> str:
    return ("inside" if check.is_inside else "outside") if few else check.outcome


def _planned(plan: Plan) -> str:
    target = "".join(f", 95 % of {queue} within {duration(s)}" for queue, s in plan.wanted.wait_p95_s.items())
    wanted = f"{cell(plan.wanted.rate_per_s)} jobs per second{target}"
    if plan.needed is None:
        return (
            f"the plan found no number of workers for {wanted}, and tried {workers_text(plan.chosen.workers)}"
        )
    return f"the plan says {workers_text(plan.needed)} for {wanted}"


def _of_the_plan(plan: Plan, calibration: Calibration | None) -> list[str]:
    found = []
    if plan.is_exploratory:
        found.append(f"The plan comes from {plan.blocks} block{'' if plan.blocks == 1 else 's'} alone.")
    if calibration is not None:
        found.append(f"The jobs were synthetic. {calibration}")
        if calibration.law.how == "sleep":
            found.append(
                "Jobs that sleep do not slow each other down, as real ones do that compete for a core."
            )
    return found
