"""The answers that a run gives to the questions it was made for, each in a sentence or two, with its doubts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement import stats, summaries
from fuze_bench.lab.judgement.checks import Conclusion, doubts, nothing_counts
from fuze_bench.lab.judgement.comparison import Comparison, bounds_in_words, compare
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.questions.plots import series_of
from fuze_bench.lab.questions.pool_baseline import against_pool_in_words
from fuze_bench.lab.queueing.scalability import NotIdentifiable, fit_scalability
from fuze_bench.lab.runs.results import Run

#: One more step of workers pays while it brings at least this many times the throughput.
PAYS_FROM = 1.1
#: With fewer worker counts nobody expects a law.
_FEW_COUNTS = 3
#: A backlog of fewer jobs for each worker is called short.
_LEAST_PER_WORKER = 5


def how_many_workers(run: Run, pool_run: Run | None = None) -> Conclusion:
    """Which configuration was fastest, and where adding workers stopped paying; `checks.nothing_counts` if none counts.

    `pool_run`: a run of `pool_baseline.against_pool`, whose ratios are then said, too.
    """
    if none := nothing_counts(run, "which configuration is fastest"):
        return none
    table = summaries.figures(run)
    medians = {
        label: found.median
        for label in run.experiment.labels.values()
        if (found := stats.spread(list(summaries.by_block(table, label).values())))
    }
    if not medians:
        raise LabError(
            f"{run.folder} holds no trial that did two jobs: see its trials, and offer more of them"
        )
    best = max(medians, key=lambda label: medians[label])
    begin = "" if _blocks(run) >= stats.BLOCKS_TO_CONCLUDE else "Exploratory: "
    sentences = [f"{best} {_rank(len(medians))}, {cell(medians[best])} jobs/s."]
    sentences += [
        _against(comparison, begin)
        for comparison in summaries.comparisons(run, "throughput_per_s")
        if comparison.name == best
    ]
    sentences += _where_it_stops_paying(run, begin) + _by_the_scalability_law(run)
    reasons = [*doubts(run), *_short_backlog(run)]
    if pool_run is not None:
        sentences.append(against_pool_in_words(pool_run))
        reasons += [f"Against RQ's own pool: {doubt}" for doubt in _short_backlog(pool_run)]
    return Conclusion(begin + " ".join(filter(None, sentences)), tuple(reasons))


def _rank(configurations: int) -> str:
    if configurations == 1:
        return "alone has a median throughput"
    return f"had the highest median throughput of the {configurations} configurations measured"


def _where_it_stops_paying(run: Run, begin: str) -> list[str]:
    found: list[str] = []
    counts = {label: c.workers for c, label in run.experiment.labels.items()}
    for name, labels in series_of(run, "workers").items():
        steps = _steps(run, sorted(labels, key=lambda label: counts[label]))
        known = [step for step in steps if step.ratio is not None]
        missed = next((step for step in known if not _may_pay(step)), None)
        if unknown := [str(counts[step.name]) for step in steps if step.ratio is None]:
            found.append(
                f"{name.capitalize()}: whether the step to {' and '.join(unknown)} workers pays is not known, as no block"
                " counts for both sides of it."
            )
        if missed is not None:
            said = _does_not_pay(missed, counts[missed.baseline])
            found.append(f"{name.capitalize()}: {said}{_of_few_blocks([missed], begin)}.")
        elif known:
            which = "every other step" if unknown else f"each step up to {counts[steps[-1].name]} workers"
            found.append(f"{name.capitalize()}: {which} paid{_of_few_blocks(known, begin)}.")
    return found


def _of_few_blocks(steps: Sequence[Comparison], begin: str) -> str:
    """That it is no claim, where that is not said at the beginning of the answer."""
    fewest = min(step.ratio.blocks for step in steps if step.ratio is not None)
    is_said = bool(begin) or fewest >= stats.BLOCKS_TO_CONCLUDE
    return "" if is_said else f" (exploratory: {fewest} block{'' if fewest == 1 else 's'})"


def _steps(run: Run, labels: Sequence[str]) -> list[Comparison]:
    table = summaries.figures(run)
    return [
        compare(
            more,
            summaries.by_block(table, more),
            fewer,
            summaries.by_block(table, fewer),
            stopped_early=run.ended_early,
        )
        for fewer, more in itertools.pairwise(labels)
    ]


def _may_pay(step: Comparison) -> bool:
    return step.ratio is not None and step.ratio.mean >= PAYS_FROM and step.differs is not Answer.NO


def _does_not_pay(step: Comparison, beyond: int) -> str:
    # What may have paid as well as not has not been shown either way.
    high = None if step.ratio is None else step.ratio.high
    did = "did not pay" if high is None or high < PAYS_FROM else "were not shown to pay"
    return f"beyond {beyond} more workers {did}, {_step(step)}"


def _by_the_scalability_law(run: Run) -> list[str]:
    """What the universal scalability law says of each series, where enough worker counts were measured to fit it."""
    table, found = summaries.figures(run), list[str]()
    counts = {label: c.workers for c, label in run.experiment.labels.items()}
    without: dict[str, list[str]] = {}
    for name, labels in series_of(run, "workers").items():
        known = table[table["label"].isin(labels) & ~table["copy"]].dropna(subset=["throughput_per_s"])
        if len({counts[label] for label in labels}) < _FEW_COUNTS or known.empty:
            continue
        law = fit_scalability(
            [float(counts[label]) for label in known["label"]],
            known["throughput_per_s"].astype(float).tolist(),
        )
        if isinstance(law, NotIdentifiable):
            without.setdefault(str(law), []).append(name)
            continue
        peak = law.why_no_peak or f"throughput peaks at {cell(law.peak)} workers"
        found.append(
            f"{name.capitalize()}, by the scalability law: contention {cell(law.alpha)}, coherency {cell(law.beta)};"
            f" {peak}{' (extrapolated)' if law.peak and law.peak > law.largest_count else ''}."
        )
    for law_is, names in without.items():
        of_all = not found and len(without) == 1
        whose = "T" if of_all else f"{'; '.join(names).capitalize()}: t"
        found.append(f"{whose}he scalability law is {law_is}.")
    return found


def _step(step: Comparison) -> str:
    assert step.ratio is not None
    return f"{step.name} did {cell(step.ratio.mean)} times {step.baseline}{bounds_in_words(step.ratio)}"


def _against(comparison: Comparison, begin: str) -> str:
    # Where that it is exploratory is said at the beginning of the answer, it is not said again.
    words = comparison.sentence.removeprefix(begin.lower())
    return f"{words[0].upper()}{words[1:]}."


def _short_backlog(run: Run) -> list[str]:
    most = max(c.workers for c in run.experiment.configurations)
    if (
        "backlog" not in {c.arrivals for c in run.experiment.configurations}
        or run.experiment.jobs >= _LEAST_PER_WORKER * most
    ):
        return []
    return [
        f"A backlog of {run.experiment.jobs} is short for {most} workers: at its end some have nothing to do, which"
        " makes many workers look slower than they are."
    ]


def _blocks(run: Run) -> int:
    return int(run.good_trials()["block"].nunique())
