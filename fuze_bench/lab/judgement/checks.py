"""Verdicts over a recorded run: what may be said of it, and the reasons to doubt it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement import stats, summaries
from fuze_bench.lab.judgement.trial_verdicts import INVALIDATING, judge
from fuze_bench.lab.judgement.verdicts import Answer, Verdicts
from fuze_bench.lab.runs.results import Run

#: Trials of one configuration that differ by more than this factor are called noisy.
_NOISY_FACTOR = 1.25
#: Share of the usable cores that something else kept busy before the run.
_BUSY_SHARE = 0.25
_MOST_NAMED = 6
#: How an executed notebook says what it concludes.
CONCLUSION_MIME_TYPE = "application/vnd.fuze-bench.conclusion+json"


@dataclass(frozen=True)
class Conclusion:
    """What the run says, and every reason to doubt it. Shows itself in a notebook."""

    sentence: str
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"- {doubt}" for doubt in self.doubts)])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(doubt)}</li>" for doubt in self.doubts)
        doubts = f"<p>Reasons for doubt:</p><ul>{items}</ul>" if self.doubts else ""
        return f"<div class='conclusion'><p><strong>{escape(self.sentence)}</strong></p>{doubts}</div>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {
            CONCLUSION_MIME_TYPE: {"sentence": self.sentence, "doubts": list(self.doubts)},
            "text/html": self._repr_html_(),
            "text/plain": str(self),
        }


def verdicts_on(run: Run, *, target_wait_s: float | None = None) -> Verdicts:
    """Every verdict on every trial, and on the run."""
    if target_wait_s is None:
        return run.verdicts
    return judge(run.trials, run.events, run.series, target_wait_s=target_wait_s)


def verdict_of(run: Run) -> dict[str, Any]:
    """For verdict.json: the verdicts, and each configuration against the baseline."""
    return {
        "verdicts": verdicts_on(run).as_json(),
        "comparisons": [comparison.as_json() for comparison in summaries.comparisons(run)],
    }


def precise_enough(run: Run, precision: float) -> bool:
    """Whether every ratio to the baseline is known to `precision` (0.05: to 5 %), as `stats.enough` decides.

    With a baseline alone it is the ratio of its two copies.
    """
    figure = summaries.primary_figure(run)
    table, labels = summaries.figures(run), list(run.experiment.labels.values())
    reference = summaries.by_block(table, labels[0], figure)
    others: list[Mapping[int, float]] = [summaries.by_block(table, label, figure) for label in labels[1:]]
    if not others:
        others = [summaries.by_block(table, labels[0], figure, copy=True)]
    return all(stats.enough(stats.log_ratios(other, reference), precision) for other in others)


def doubts(run: Run, *, expected: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Reasons to distrust the run, the gravest first; empty if there is none.

    `expected`: names of verdicts that are the run's subject, such as a growing backlog above capacity.
    """
    return (*_failures(run), *_of_trials(run, expected), *_of_the_run(run))


def nothing_counts(run: Run, unknown: str, *, expected: frozenset[str] = frozenset()) -> Conclusion | None:
    """If verdicts make every trial invalid, as on a machine that is too busy: that it is `unknown`, and why; else None.

    Raises LabError if no trial ended well: then something is broken, or nothing was measured.
    """
    if not run.good_trials().empty:
        return None
    if not run.invalid:
        raise LabError(
            f"{run.folder} holds no trial that counts: see `problem` and `log_end` in its trials, and their verdicts"
        )
    return Conclusion(f"Unknown, as no trial counts: {unknown}.", doubts(run, expected=expected))


def _failures(run: Run) -> list[str]:
    found = []
    bad = run.trials[run.trials["status"] != "ok"]
    for _, row in bad.iterrows():
        found.append(f"Trial {row['trial']} ({row['label']}) failed: {row['problem']}.")
    if failed := int(run.good_trials()["failed"].sum()):
        found.append(f"{failed} jobs ended as failed; they count as done and may have been quicker.")
    if run.ended is None:
        missing = run.planned_trials - len(run.trials)
        found.append(f"The run was stopped: {missing} of {run.planned_trials} trials were not made.")
    return found


def _of_trials(run: Run, expected: frozenset[str]) -> list[str]:
    """What holds, once for each doubt, with the trials that it holds for; what makes a trial invalid first."""
    held: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for verdict in verdicts_on(run).that_are(Answer.YES):
        if verdict.trial is not None and verdict.name not in expected:
            held[verdict.name].append((verdict.trial, verdict.reason))
    sentences = []
    for name, cases in sorted(held.items(), key=lambda item: item[0] not in INVALIDATING):
        numbers = ", ".join(str(trial) for trial, _ in cases[:_MOST_NAMED])
        more = f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else ""
        trials = "trial" if len(cases) == 1 else "trials"
        if name in INVALIDATING:
            more += ", which does not count" if len(cases) == 1 else ", which do not count"
        first = f"in trial {cases[0][0]}, " if len(cases) > 1 else ""
        sentences.append(f"{name.capitalize()} ({trials} {numbers}{more}): {first}{cases[0][1]}.")
    return sentences


def _of_the_run(run: Run) -> list[str]:
    found = []
    blocks = int(run.good_trials()["block"].nunique())
    if blocks < stats.BLOCKS_TO_CONCLUDE:
        found.append(
            f"Only {blocks} block{'' if blocks == 1 else 's'}: exploratory,"
            f" {stats.BLOCKS_TO_CONCLUDE} or more are needed for a claim."
        )
    table, figure = summaries.figures(run), summaries.primary_figure(run)
    worst: tuple[float, str] = (1.0, "")
    for label in run.experiment.labels.values():
        values = stats.spread(list(summaries.by_block(table, label, figure).values()))
        if values and values.lowest > 0:
            worst = max(worst, (values.highest / values.lowest, label))
    if worst[0] > _NOISY_FACTOR:
        drawn = run.experiment.baseline.arrivals != "backlog"
        or_chance = ", or the load too short for its chance to even out" if drawn else ""
        found.append(
            f"Trials of {worst[1]} differ by a factor of {worst[0]:.2f}: the machine was noisy{or_chance}."
        )
    load, cores = run.machine.get("load_1min_before"), run.machine.get("usable_cores")
    if load is not None and cores and load > _BUSY_SHARE * cores:
        found.append(f"The machine was busy before the run: load {load:.2f} on {cores} cores.")
    if run.machine.get("git_has_changes"):
        found.append("The code had changes that are in no commit.")
    return found
