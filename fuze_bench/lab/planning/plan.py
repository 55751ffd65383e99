"""The capacity plan: how many workers, why not one fewer or one more, and what would change it; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.judgement.block_resampling import Estimate
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE
from fuze_bench.lab.planning import plan_text
from fuze_bench.lab.planning.plan_evidence import Evidence, gather
from fuze_bench.lab.planning.plan_model import JOBS_TO_PLAN, Case, Model, Source, Wait
from fuze_bench.lab.planning.plan_wanted import Wanted

#: From this share of the machine's CPU time on, service times may be longer than recorded.
_CPU_IS_SHORT = 0.7
_CHANGES = (("+20 % rate", 1.2, 1.0), ("-20 % rate", 0.8, 1.0), ("+20 % service time", 1.0, 1.2))


@dataclass(frozen=True)
class Option:
    """A number of workers, all of them up, against what is wanted."""

    workers: int
    source: Source
    """Of the figures that need service times: `modelled` if those were recorded with so many workers."""
    utilisation: Estimate
    waits: tuple[Wait, ...]
    drain_s: Estimate | None
    memory_bytes: int | None
    """Of these workers and the spare ones."""
    memory_source: Source | None
    problems: tuple[str, ...]
    """What is not met."""
    unsure: tuple[str, ...]
    """What cannot be told to be met."""

    @property
    def meets(self) -> bool | None:
        """Whether everything wanted is met; None: that cannot be told."""
        return False if self.problems else None if self.unsure else True


@dataclass(frozen=True)
class Change:
    """How many workers (spare ones included) it would be if something were different; None: no number does it."""

    what: str
    workers: int | None


@dataclass(frozen=True)
class Plan:
    """The answer. Shows itself as text and in a notebook; `to_mapping` is for machines."""

    wanted: Wanted
    queues: tuple[str, ...]
    measured_counts: tuple[int, ...]
    blocks: int
    needed: int | None
    """Workers that must be up; None: no number does it."""
    chosen: Option
    """`needed`; where no number does it, the last one that was tried."""
    fewer: Option | None
    more: Option | None
    cpu_cores: float | None
    """CPU cores kept busy at the rate."""
    changes: tuple[Change, ...]
    doubts: tuple[str, ...]

    @property
    def workers(self) -> int | None:
        """How many workers to run, spare ones included."""
        return None if self.needed is None else self.needed + self.wanted.spare

    @property
    def is_exploratory(self) -> bool:
        """Whether it comes from too few blocks to conclude."""
        return self.blocks < BLOCKS_TO_CONCLUDE

    def __str__(self) -> str:
        return plan_text.text(self)

    def _repr_html_(self) -> str:
        return plan_text.html(self)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known or infinite is None."""
        return plan_text.mapping(self)


def plan(
    events: pd.DataFrame,
    trials: pd.DataFrame,
    wanted: Wanted,
    *,
    cores: int | None = None,
    only: Mapping[str, str] | None = None,
    seed: int = 1,
) -> Plan:
    """Answer how many workers do what is wanted, from a recorded run's tables.

    Arrivals are taken as Poisson. The answer is the smallest number for which every figure's interval is on the right
    side; with one block there are no intervals, and the figures themselves decide. `cores`: CPUs of the machine;
    `only`: which trials, where the run has several kinds. Raises LabError where the run cannot answer.
    """
    evidence = gather(events, trials, cores=cores, only=only)
    _check(evidence, wanted)
    planner = _Planner(Model(evidence, seed=seed), wanted)
    case = Case(wanted.rate_per_s)
    last = planner.fewest(case)
    needed = last.workers if last.meets else None
    return Plan(
        wanted=wanted,
        queues=evidence.queues,
        measured_counts=tuple(sorted(evidence.counts)),
        blocks=len(evidence.nearest(last.workers).blocks),
        needed=needed,
        chosen=last,
        fewer=planner.option(last.workers - 1, case) if last.workers > 1 else None,
        more=planner.option(needed + 1, case) if needed else None,
        cpu_cores=evidence.cpu_s_per_job and evidence.cpu_s_per_job * wanted.rate_per_s,
        changes=tuple(planner.change(*each) for each in _CHANGES),
        doubts=tuple(_doubts(evidence, wanted, last)),
    )


def _check(evidence: Evidence, wanted: Wanted) -> None:
    for queue in wanted.wait_p95_s:
        if queue not in evidence.queues:
            raise LabError(
                f"the run has no jobs on queue {queue!r} to plan from: {nearest(queue, evidence.queues)}"
            )
        place = evidence.queues.index(queue)
        jobs = sum(
            int((block.queues == place).sum()) for count in evidence.counts.values() for block in count.blocks
        )
        if jobs < JOBS_TO_PLAN:
            raise LabError(
                f"the run has {jobs} jobs on queue {queue!r}, {JOBS_TO_PLAN} are needed: measure with more,"
                " or ask for no wait there"
            )
    if wanted.memory_bytes is not None and not evidence.peak_bytes:
        raise LabError(
            "the run did not record the workers' memory: leave the memory limit out, or measure again"
        )


class _Planner:
    def __init__(self, model: Model, wanted: Wanted) -> None:
        self._model = model
        self._wanted = wanted
        self._options: dict[tuple[int, Case], Option] = {}

    def fewest(self, case: Case) -> Option:
        """The first number that meets everything, or the last that was tried."""
        workers = 1
        while self._model.capacity_per_s(workers, case) <= case.rate_per_s and workers < self._limit(case):
            workers += 1
        # Beyond the number that keeps up, waits fall fast: twice as many are more than any wait can use.
        last = 2 * workers + 20
        while True:
            option = self.option(workers, case)
            if option.meets or workers >= last or self._is_hopeless(workers, case):
                return option
            workers += 1

    def change(self, what: str, rate_factor: float, service_factor: float) -> Change:
        option = self.fewest(Case(self._wanted.rate_per_s * rate_factor, service_factor))
        return Change(what, option.workers + self._wanted.spare if option.meets else None)

    def _limit(self, case: Case) -> int:
        """Workers that would keep up if each worked as slowly as the slowest recorded."""
        slowest = max(
            self._model.utilisation(count, case).value * count for count in self._model.evidence.counts
        )
        return math.ceil(slowest) + 1

    def _is_hopeless(self, workers: int, case: Case) -> bool:
        """More workers would not help: the CPU is short, or there is no memory for them."""
        return bool(case.rate_per_s >= self._model.cpu_limit_per_s(case) or self._memory(workers)[2])

    def option(self, workers: int, case: Case) -> Option:
        """One number of workers against everything that is wanted."""
        if (workers, case) not in self._options:
            self._options[workers, case] = self._computed(workers, case)
        return self._options[workers, case]

    def _computed(self, workers: int, case: Case) -> Option:
        model, wanted = self._model, self._wanted
        utilisation = model.utilisation(workers, case)
        memory, memory_source, problems = self._memory(workers)
        unsure: list[str] = []
        limit = model.cpu_limit_per_s(case)
        if case.rate_per_s >= limit:
            problems.append(plan_text.cpu_short(case.rate_per_s, limit, model.evidence.cores))
        if utilisation.value >= 1:
            waits = self._growing(workers, case)
            problems += [
                plan_text.grows(w.queue, w.growth, wanted.wait_p95_s.get(w.queue)) for w in waits if w.growth
            ]
        else:
            waits = self._waits(workers, case, problems, unsure)
        if utilisation.upper >= 1 > (utilisation.low or utilisation.value):
            unsure.append(plan_text.may_grow(utilisation))
        drain = self._drain(workers, case, problems, unsure)
        return Option(
            workers, model.source(workers), utilisation, tuple(waits), drain, memory, memory_source,
            tuple(problems), tuple(unsure),
        )  # fmt: skip

    def _growing(self, workers: int, case: Case) -> list[Wait]:
        source = self._model.source(workers)
        return [
            Wait(queue, None, growth if growth.per_s > 0 else None, source)
            for queue, growth in zip(
                self._model.evidence.queues, self._model.growths(workers, case), strict=True
            )
        ]

    def _waits(self, workers: int, case: Case, problems: list[str], unsure: list[str]) -> list[Wait]:
        targets = self._wanted.wait_p95_s
        waits = self._model.waits(workers, case)
        late = [wait for wait in waits if wait.p95_s and wait.p95_s.value > targets.get(wait.queue, math.inf)]
        if late:  # an interval would not make it a yes
            problems += [
                plan_text.late(wait.queue, wait.p95_s, targets[wait.queue]) for wait in late if wait.p95_s
            ]
            return waits
        if not targets:
            return waits
        waits = self._model.with_intervals(waits, workers, case)
        for wait in waits:
            target = targets.get(wait.queue)
            if target is None:
                continue
            if wait.p95_s is None:
                unsure.append(plan_text.too_rare(wait.queue))
            elif wait.p95_s.upper > target:
                unsure.append(plan_text.may_be_late(wait.queue, wait.p95_s, target))
        return waits

    def _drain(self, workers: int, case: Case, problems: list[str], unsure: list[str]) -> Estimate | None:
        backlog, within = self._wanted.backlog, self._wanted.drain_s
        if backlog is None or within is None:
            return None
        drain = self._model.drain_s(workers, case, backlog)
        if drain.value > within:
            problems.append(plan_text.slow_drain(backlog, drain, within))
        elif drain.upper > within:
            unsure.append(plan_text.may_drain_slowly(backlog, drain, within))
        return drain

    def _memory(self, workers: int) -> tuple[int | None, Source | None, list[str]]:
        found = self._model.memory_bytes(workers + self._wanted.spare)
        if found is None:
            return None, None, []
        memory, source = found
        limit = self._wanted.memory_bytes
        too_much = limit is not None and memory > limit
        return (
            memory,
            source,
            [plan_text.no_memory(workers + self._wanted.spare, memory, limit)] if too_much and limit else [],
        )


def _doubts(evidence: Evidence, wanted: Wanted, chosen: Option) -> list[str]:
    blocks = len(evidence.nearest(chosen.workers).blocks)
    found = ["Arrivals are taken as Poisson: people who save independently of one another."]
    if blocks < BLOCKS_TO_CONCLUDE:
        found.append(plan_text.few_blocks(blocks, BLOCKS_TO_CONCLUDE))
    if chosen.source == "extrapolated":
        found.append(plan_text.other_count(chosen.workers, evidence.nearest(chosen.workers).workers))
    if all(count.overhead.between_s is None for count in evidence.counts.values()):
        found.append(
            "No job of the run waited for a busy worker: what a worker needs between two jobs is not known."
        )
    if evidence.cpu_s_per_job is None or evidence.cores is None:
        found.append("Whether the machine has CPU time for so many workers is not known.")
    elif (share := evidence.cpu_s_per_job * wanted.rate_per_s / evidence.cores) > _CPU_IS_SHORT:
        found.append(plan_text.cpu_tight(share, evidence.cores))
    return found
