"""Verdicts over a recorded run: what it says in one sentence, and the reasons to doubt it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from fuze_bench.errors import LabError
from fuze_bench.lab import stats, summaries
from fuze_bench.lab.results import Run, configuration_of
from fuze_bench.lab.spec import Configuration

#: Repeats of one configuration that differ by more than this factor are called noisy.
_NOISY_FACTOR = 1.25
#: A backlog of fewer bookmarks for each worker is called short.
_LEAST_PER_WORKER = 5
#: Share of the usable cores that something else kept busy before the run.
_BUSY_SHARE = 0.25


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


def conclude(run: Run) -> Conclusion:
    """The closing sentence, computed from the run. Raises LabError if no trial counts."""
    trials = run.good_trials()
    measured = {
        configuration: found
        for configuration in run.experiment.configurations
        if (found := summaries.throughput_by_block(trials, configuration))
    }
    if not measured:
        raise LabError(
            f"{run.folder} holds no trial that ended well: see `problem` and `log_end` in its trials"
        )
    medians = {configuration: _median(by_block) for configuration, by_block in measured.items()}
    best = max(medians, key=lambda configuration: medians[configuration])
    sentence = (
        f"{best.label} had the highest median throughput of the {len(measured)} configurations measured,"
        f" {_number(medians[best])} bookmarks/s{_against_baseline(run, best, measured)}"
        f"{_rivals(best, measured)}."
    )
    return Conclusion(_prefix(measured[best]) + sentence, tuple(doubts(run)))


def doubts(run: Run) -> list[str]:
    """Reasons to distrust the run, the gravest first; empty if there is none."""
    return [*_faults(run), *_too_little(run), *_noise(run)]


def _faults(run: Run) -> list[str]:
    found = []
    bad = run.trials[run.trials["status"] != "ok"]
    for _, row in bad.iterrows():
        found.append(f"Trial {row['trial']} ({configuration_of(row).label}) failed: {row['problem']}.")
    good = run.good_trials()
    for column, words in (
        ("lost", "saved bookmarks were never done"),
        ("duplicated", "pages were fetched more than once"),
        ("failed", "bookmarks ended as failed; they count as done and may have been quicker"),
    ):
        if total := int(good[column].sum()):
            found.append(f"{total} {words}.")
    missing = run.planned_trials - len(run.trials)
    if missing:
        found.append(f"The run was stopped: {missing} of {run.planned_trials} trials were not made.")
    return found


def _too_little(run: Run) -> list[str]:
    found = []
    blocks = run.good_trials()["block"].nunique()
    if blocks < stats.BLOCKS_TO_CONCLUDE:
        found.append(
            f"Only {_repeats(blocks)}: exploratory, {stats.BLOCKS_TO_CONCLUDE} or more are needed to conclude."
        )
    most = max(c.workers for c in run.experiment.configurations)
    if run.experiment.bookmarks < _LEAST_PER_WORKER * most:
        found.append(
            f"A backlog of {run.experiment.bookmarks} is short for {most} workers: at its end some have nothing to"
            " do, which makes many workers look slower than they are."
        )
    return found


def _noise(run: Run) -> list[str]:
    found = []
    worst: tuple[float, Configuration] | None = None
    for configuration in run.experiment.configurations:
        values = stats.spread(list(summaries.throughput_by_block(run.good_trials(), configuration).values()))
        if values and (worst is None or values.highest / values.lowest > worst[0]):
            worst = (values.highest / values.lowest, configuration)
    if worst and worst[0] > _NOISY_FACTOR:
        found.append(
            f"Repeats of {worst[1].label} differ by a factor of {worst[0]:.2f}: the machine was noisy."
        )
    load, cores = run.machine.get("load_1min_before"), run.machine.get("usable_cores")
    if load is not None and cores and load > _BUSY_SHARE * cores:
        found.append(f"The machine was busy before the run: load {load:.2f} on {cores} cores.")
    return found


def _median(by_block: dict[int, float]) -> float:
    found = stats.spread(list(by_block.values()))
    assert found is not None
    return found.median


def _prefix(by_block: dict[int, float]) -> str:
    return "Exploratory: " if len(by_block) < stats.BLOCKS_TO_CONCLUDE else ""


def _against_baseline(run: Run, best: Configuration, measured: dict[Configuration, dict[int, float]]) -> str:
    baseline = run.experiment.baseline
    if best == baseline:
        return f" ({_repeats(len(measured[best]))}), and it is the baseline"
    ratio = stats.ratio_within_blocks(measured[best], measured.get(baseline, {}))
    if ratio is None:
        return f"; {baseline.label}, the baseline, has no good trial in the same block to compare with"
    interval = (
        f"{stats.LEVEL:.0%} interval {_number(ratio.low)} to {_number(ratio.high)}"
        if ratio.low is not None and ratio.high is not None
        else "no interval"
    )
    return f", {_number(ratio.mean)} times {baseline.label} ({interval}, {_repeats(ratio.blocks)})"


def _rivals(best: Configuration, measured: dict[Configuration, dict[int, float]]) -> str:
    """Which others these blocks do not tell from the best."""
    close = [
        other.label
        for other, by_block in measured.items()
        if other != best
        and ((ratio := stats.ratio_within_blocks(measured[best], by_block)) is None or not ratio.is_clear)
    ]
    if not close:
        return ""
    return f"; these repeats cannot tell it from {_listed(close)}"


def _repeats(number: int) -> str:
    return f"{number} repeat{'' if number == 1 else 's'}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: float) -> str:
    return f"{value:.3g}"
