"""The decision that a run of worker counts supports: which workers to run, at what rate, within what wait; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.factors import Configuration
from fuze_bench.lab.judgement import stats, summaries
from fuze_bench.lab.judgement.block_resampling import Estimate
from fuze_bench.lab.judgement.checks import doubts
from fuze_bench.lab.judgement.stats import Spread, spread
from fuze_bench.lab.planning import plan_text
from fuze_bench.lab.planning.plan_evidence import MEASURED_ONLY, TAKES_SEVERAL, gather
from fuze_bench.lab.planning.plan_model import JOBS_TO_PLAN, Case, Model, Source
from fuze_bench.lab.queueing.queue_growth import Growth
from fuze_bench.lab.runs.results import Run

#: The rate where none is asked for: this share of the most that any option did whose wait can be told.
SHARE_OF_BEST = 0.7
#: The wait where none is asked for: how long somebody looks at a page that does not change.
WAIT_P95_S = 5.0
#: With fewer finished jobs of an option nothing is said of its wait; below JOBS_TO_PLAN there is a doubt.
FEWEST_JOBS = 10
#: What a user chooses. Everything else that differs is what the workers are given to work on.
CHOICES = ("workers", "kind", "strategy")
_GIVEN = ("queues", "pages", "origin_latency_ms", "origin_failure_rate", "redis_rtt_ms", "redis_outage_s")
RULE = (
    "The pick is the cheapest option that meets the target without losing a job or doing one twice: the fewest workers,"
    " of these the least memory, of these the least processor time. From"
    f" {stats.BLOCKS_TO_CONCLUDE} blocks on, the whole 95 % interval of the wait must be within the target; below,"
    " the figure itself decides, and the decision is exploratory."
)


@dataclass(frozen=True)
class Asked:
    """What the workers must do; `is_derived` says of each whether it was asked for, or is a default."""

    rate_per_s: float
    wait_p95_s: float
    rate_is_derived: bool
    wait_is_derived: bool


@dataclass(frozen=True)
class Option:
    """A number and kind of workers, with what it did and what it would do at the rate.

    `p95_s` is None where the queue grows (then `growth` says how fast) or too few jobs were recorded. What was not
    measured (a number of workers that no trial had) has no drain time, and no lost or duplicated jobs.
    """

    label: str
    workers: int
    kind: str
    strategy: str
    blocks: int
    source: Source
    p95_s: Estimate | None
    growth: Growth | None
    throughput_per_s: float | None
    drain_s: Spread | None
    lost: int | None
    duplicated: int | None
    memory_mib: float | None
    cpu_s_per_1000: float | None
    problems: tuple[str, ...]
    """What is not met, or cannot be told to be; empty: everything is met."""

    @property
    def meets(self) -> bool:
        """Whether the target is met and nothing was lost or done twice."""
        return not self.problems

    @property
    def is_unknown(self) -> bool:
        """Whether nothing speaks against it but that no model tells its wait."""
        return self.problems == (MEASURED_ONLY,)

    @property
    def cost(self) -> tuple[float, ...]:
        """What it takes, for comparing: workers, memory, processor time; unknown is the most."""
        memory, cpu_s = self.memory_mib, self.cpu_s_per_1000
        return (
            self.workers,
            math.inf if memory is None else memory,
            math.inf if cpu_s is None else cpu_s,
        )


@dataclass(frozen=True)
class Decision:
    """The options in the order of the experiment, the pick, and its neighbours."""

    run: str
    asked: Asked
    given: Mapping[str, object]
    """The conditions that the figures are for, where the run had several: the hardest of them."""
    jobs: int
    options: tuple[Option, ...]
    pick: Option | None
    fewer: Option | None
    """The pick with one worker fewer, measured or modelled; None: it has one, or there is no pick."""
    more: Option | None
    at_higher_rate: bool | None
    """Whether the pick still meets the target at 20 % more; None: there is no pick."""
    doubts: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """How many blocks the pick (without one, the best known option) was measured in."""
        return self.pick.blocks if self.pick else max(option.blocks for option in self.options)

    @property
    def is_exploratory(self) -> bool:
        return self.blocks < stats.BLOCKS_TO_CONCLUDE

    @property
    def unknown(self) -> tuple[Option, ...]:
        """The options that may meet the target as well as not: see `Option.is_unknown`."""
        return tuple(option for option in self.options if option.is_unknown)


def decide(run: Run, *, rate_per_s: float | None = None, wait_p95_s: float | None = None) -> Decision:
    """Pick the cheapest measured option that meets the target.

    `rate_per_s`: jobs arriving each second, as Poisson; by default SHARE_OF_BEST of the most that any option did
    whose wait can be told: of others none could be the pick.
    `wait_p95_s`: 95 % of them must be taken up within so many seconds. A wait at a rate is not what a backlog
    measures: it comes from putting the recorded service times through the queue (see `queueing`). Raises LabError if
    the run has no backlog that RQ's workers drained, or a target makes no sense.
    """
    for name, value in (("rate", rate_per_s), ("wait-p95", wait_p95_s)):
        if value is not None and not 0 < value < math.inf:
            raise LabError(f"{name}={value:g}: give a value above 0")
    table, given, hardest = _hardest(run)
    best = max(_medians(_modelled(table)).values(), default=math.nan)
    if not best > 0:
        raise LabError(f"{run.folder.name} holds no trial with finished jobs to decide from: measure again")
    asked = Asked(
        float(f"{SHARE_OF_BEST * best:.2g}") if rate_per_s is None else rate_per_s,
        WAIT_P95_S if wait_p95_s is None else wait_p95_s,
        rate_per_s is None,
        wait_p95_s is None,
    )
    deciding = _Deciding(run, table, asked)
    options = tuple(deciding.measured(configuration) for configuration in hardest)
    pick = min((option for option in options if option.meets), key=lambda option: option.cost, default=None)
    reasons = _doubts(run, table)
    if pick is None:
        return Decision(
            run.folder.name, asked, given, run.experiment.jobs, options, None, None, None, None, reasons
        )
    return Decision(
        run=run.folder.name,
        asked=asked,
        given=given,
        jobs=run.experiment.jobs,
        options=options,
        pick=pick,
        fewer=deciding.neighbour(options, pick, pick.workers - 1) if pick.workers > 1 else None,
        more=deciding.neighbour(options, pick, pick.workers + 1),
        at_higher_rate=deciding.meets_at(pick, 1.2),
        doubts=reasons,
    )


def can_decide(run: Run) -> bool:
    """Whether the run measured what a decision needs: a backlog, with more than one choice of workers."""
    backlogs = [c for c in run.experiment.configurations if c.arrivals == "backlog" and c.mode == "rq"]
    return len({tuple(getattr(c, name) for name in CHOICES) for c in backlogs}) > 1


def _hardest(run: Run) -> tuple[pd.DataFrame, dict[str, object], list[Configuration]]:
    """The trials under the conditions in which the best option did the least, these conditions, and the options."""
    table = summaries.figures(run)
    table = table[~table["copy"] & (table["arrivals"] == "backlog") & (table["mode"] == "rq")]
    by_given: dict[tuple[object, ...], list[Configuration]] = {}
    for configuration in run.experiment.configurations:
        if configuration.arrivals == "backlog" and configuration.mode == "rq":
            key = tuple(getattr(configuration, name) for name in _GIVEN)
            by_given.setdefault(key, []).append(configuration)
    if not by_given:
        raise LabError(
            f"{run.folder.name} has no backlog that workers drain: decide from a run of worker counts"
        )
    labels = run.experiment.labels

    def most(configurations: list[Configuration]) -> float:
        chosen = table[table["label"].isin([labels[c] for c in configurations])]
        return max(_medians(_modelled(chosen)).values(), default=math.inf)

    key, hardest = min(by_given.items(), key=lambda item: most(item[1]))
    varying = [name for name in _GIVEN if name in run.experiment.varying]
    given = {name: value for name, value in zip(_GIVEN, key, strict=True) if name in varying}
    return table[table["label"].isin([labels[c] for c in hardest])], given, hardest


def _modelled(table: pd.DataFrame) -> pd.DataFrame:
    """The trials of the options whose wait can be told; all of them where there is no such option."""
    found = table[table["kind"] != TAKES_SEVERAL]
    return table if found.empty else found


def _medians(table: pd.DataFrame) -> dict[str, float]:
    known = table.dropna(subset=["throughput_per_s"])
    return {
        str(label): float(value)
        for label, value in known.groupby("label")["throughput_per_s"].median().items()
    }


class _Deciding:
    """Options of one run, each from its own trials."""

    def __init__(self, run: Run, table: pd.DataFrame, asked: Asked) -> None:
        self._run, self._table, self._asked = run, table, asked
        self._models: dict[tuple[str, str], Model | None] = {}

    def measured(self, configuration: Configuration) -> Option:
        trials = self._table[self._table["label"] == self._run.experiment.labels[configuration]]
        choice = (configuration.kind, configuration.strategy)
        varying = [name for name in CHOICES if name in self._run.experiment.varying] or ["workers", "kind"]
        label = configuration.label(varying)
        blocks = int(trials["block"].nunique())
        if blocks == 0:
            return self._option(label, configuration.workers, choice, 0, ("no trial of it counts",))
        lost: int | None = int(trials["lost"].sum())
        duplicated = int(trials["duplicated"].sum())
        problems = [f"{lost} jobs were lost"] if lost else []
        if not lost and trials["lost"].isna().any():
            lost = None
        problems += [f"{duplicated} jobs were done twice"] if duplicated else []
        if undone := int((~trials["drained"]).sum()):
            problems.append(f"the backlog was not drained in {undone} of {len(trials)} trials")
        return self._option(
            label,
            configuration.workers,
            choice,
            blocks,
            tuple(problems),
            throughput_per_s=_median(trials["throughput_per_s"]),
            drain_s=spread([float(value) for value in trials["drain_s"].dropna()]),
            lost=lost,
            duplicated=duplicated,
            memory_mib=_highest(trials["peak_pss_mib"]),
            cpu_s_per_1000=_median(trials["cpu_s_per_1000"]),
        )

    def neighbour(self, options: tuple[Option, ...], pick: Option, workers: int) -> Option:
        """The pick with another number of workers: as it was measured, else as the model has it."""
        for option in options:
            if (option.kind, option.strategy, option.workers) == (pick.kind, pick.strategy, workers):
                return option
        model = self._model((pick.kind, pick.strategy))
        memory = model.memory_bytes(workers) if model else None
        return self._option(
            plan_text.workers_text(workers).replace(" ", f" {pick.kind} "),
            workers,
            (pick.kind, pick.strategy),
            pick.blocks,
            (),
            memory_mib=memory[0] / 2**20 if memory else None,
        )

    def meets_at(self, pick: Option, factor: float) -> bool:
        """Whether it would still meet the target at so many times the rate."""
        model = self._model((pick.kind, pick.strategy))
        return (
            model is not None
            and not self._waits(model, pick.workers, pick.blocks, Case(self._asked.rate_per_s * factor))[2]
        )

    def _option(
        self,
        label: str,
        workers: int,
        choice: tuple[str, str],
        blocks: int,
        problems: tuple[str, ...],
        *,
        throughput_per_s: float | None = None,
        drain_s: Spread | None = None,
        lost: int | None = None,
        duplicated: int | None = None,
        memory_mib: float | None = None,
        cpu_s_per_1000: float | None = None,
    ) -> Option:
        model = self._model(choice) if blocks else None
        p95_s, growth, late = None, None, list[str]()
        if model is not None:
            p95_s, growth, late = self._waits(model, workers, blocks, Case(self._asked.rate_per_s))
        elif blocks:
            late = [MEASURED_ONLY if choice[0] == TAKES_SEVERAL else "no job of its trials was finished"]
        return Option(
            label, workers, *choice, blocks, model.source(workers) if model else "extrapolated", p95_s, growth,
            throughput_per_s, drain_s, lost, duplicated, memory_mib, cpu_s_per_1000, (*problems, *late),
        )  # fmt: skip

    def _model(self, choice: tuple[str, str]) -> Model | None:
        if choice not in self._models:
            kind, strategy = choice
            of_kind = self._table[(self._table["kind"] == kind) & (self._table["strategy"] == strategy)]
            done = self._run.events["trial"].isin(of_kind["trial"]) & self._run.events["done_ns"].notna()
            cores = self._run.machine.get("usable_cores")
            known = cores if isinstance(cores, int) else None
            self._models[choice] = (
                Model(gather(self._run.events, of_kind, cores=known))
                if done.any() and kind != TAKES_SEVERAL
                else None
            )
        return self._models[choice]

    def _waits(
        self, model: Model, workers: int, blocks: int, case: Case
    ) -> tuple[Estimate | None, Growth | None, list[str]]:
        """(the longest p95 of the queues, the fastest growth, what is not met) at a rate."""
        target_s = self._asked.wait_p95_s
        jobs = sum(len(block.services_s) for block in model.evidence.nearest(workers).blocks)
        if jobs < FEWEST_JOBS:
            return None, None, [f"{jobs} jobs are too few to tell the wait ({FEWEST_JOBS} are needed)"]
        limit = model.cpu_limit_per_s(case)
        if case.rate_per_s >= limit:
            return None, None, [plan_text.cpu_short(case.rate_per_s, limit, model.evidence.cores)]
        used = model.utilisation(workers, case)
        if used.value >= 1:
            queue, growth = max(
                zip(model.evidence.queues, model.growths(workers, case), strict=True),
                key=lambda found: found[1].per_s,
            )
            return None, growth, [f"the queue {plan_text.grows(queue, growth, target_s)}"]
        waits = model.with_intervals(model.waits(workers, case), workers, case)
        if missing := [wait.queue for wait in waits if wait.p95_s is None]:
            return None, None, [plan_text.too_rare(missing[0])]
        wait = max(waits, key=lambda wait: wait.p95_s.value if wait.p95_s else 0.0)
        assert wait.p95_s is not None
        if wait.p95_s.value > target_s:
            return wait.p95_s, None, [plan_text.late(wait.queue, wait.p95_s, target_s)]
        if blocks >= stats.BLOCKS_TO_CONCLUDE and wait.p95_s.upper > target_s:
            return wait.p95_s, None, [plan_text.may_be_late(wait.queue, wait.p95_s, target_s)]
        return wait.p95_s, None, []


def _doubts(run: Run, table: pd.DataFrame) -> tuple[str, ...]:
    found = ["The wait is modelled: recorded service times, with jobs that arrive independently (Poisson)."]
    fewest = int((table["processed"] + table["failed"]).groupby(table["label"]).sum().min())
    if fewest < JOBS_TO_PLAN:
        found.append(f"The wait of an option comes from as few as {fewest} service times.")
    if int(table["failed"].sum()):
        found.append(f"{int(table['failed'].sum())} jobs ended as failed; they count as done, not as lost.")
    return (*found, *(doubt for doubt in doubts(run) if "jobs ended as failed" not in doubt))


def _median(column: pd.Series) -> float | None:
    known = column.dropna()
    return float(known.median()) if len(known) else None


def _highest(column: pd.Series) -> float | None:
    known = column.dropna()
    return float(known.max()) if len(known) else None
