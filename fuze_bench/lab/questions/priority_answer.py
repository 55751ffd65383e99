"""The answer of a run with priorities: whether they work, how near theory is, and who starves above capacity."""

from __future__ import annotations

import pandas as pd

from fuze_bench.lab.judgement import checks
from fuze_bench.lab.judgement.checks import Conclusion
from fuze_bench.lab.judgement.comparison import bounds_in_words, not_shown
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE, Ratio, ratio_within_blocks
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.planning.plan_evidence import TAKES_SEVERAL
from fuze_bench.lab.questions.priorities import by_trial, has_no_wait, mean_ms_of, plain, slope_of
from fuze_bench.lab.runs.results import Run

#: A recorded utilisation that is off the wanted one by a larger share is mentioned.
_DRIFT = 0.1


def do_priorities_work(run: Run, capacity: float) -> Conclusion:
    """Whether the first queue waits less than the last below capacity, how near theory is, and who starves above;
    `checks.nothing_counts` if no trial counts."""
    table = by_trial(run, capacity)
    if none := checks.nothing_counts(run, "whether priorities work"):
        return none
    table = table[~table["copy"]]
    below, above = table[table["utilisation"] < 1], table[table["utilisation"] >= 1]
    sentences = _first_against_last(below, run.ended_early) + _against_theory(below) + _who_starves(above)
    exploratory = "" if table["block"].nunique() >= BLOCKS_TO_CONCLUDE else "Exploratory: "
    found = checks.doubts(run, expected=frozenset({"growing backlog"}) if len(above) else frozenset())
    return Conclusion(exploratory + " ".join(sentences), (*_of_batches(run), *_own_doubts(table), *found))


def _first_against_last(below: pd.DataFrame, ended_early: bool) -> list[str]:
    """At the highest utilisation at which strict still has waits to state, of the first queue and of the last."""
    for wanted in sorted(below["utilisation"].unique(), reverse=True):
        chosen = below[below["utilisation"] == wanted]
        first, last = chosen["queue"].iloc[0], chosen["queue"].iloc[-1]
        found = {
            strategy: ratio
            for strategy, rows in chosen.groupby("strategy", sort=False)
            if (ratio := _last_over_first(rows, first, last, ended_early)) is not None
        }
        if "strict" in found:
            strict = chosen[chosen["strategy"] == "strict"]
            sentence = _with_strict(wanted, strict, first, last, found.pop("strict"))
            others = [
                f"{plain(each)} {cell(ratio.mean)} times{bounds_in_words(ratio)}{not_shown(ratio)}"
                for each, ratio in found.items()
            ]
            return [sentence, *([f"The same with {'; with '.join(others)}."] if others else [])]
    return ["With strict, no wait of the first queue could be compared with one of the last."]


def _last_over_first(rows: pd.DataFrame, first: str, last: str, ended_early: bool) -> Ratio | None:
    of_first, of_last = rows[rows["queue"] == first], rows[rows["queue"] == last]
    if first == last or has_no_wait(of_first) or has_no_wait(of_last):
        return None
    return ratio_within_blocks(_by_block(of_last), _by_block(of_first), stopped_early=ended_early)


def _with_strict(wanted: float, rows: pd.DataFrame, first: str, last: str, ratio: Ratio) -> str:
    of_first, of_last = rows[rows["queue"] == first], rows[rows["queue"] == last]
    by_cobham = _ratio_of_means(of_last, of_first, "cobham_s")
    said = (
        f"at {wanted:.0%} with strict, {last} waited {cell(ratio.mean)} times as long as {first}{bounds_in_words(ratio)},"
        f" {cell(mean_ms_of(of_last['mean_wait_s']))} ms against {cell(mean_ms_of(of_first['mean_wait_s']))} ms"
        + ("" if by_cobham is None else f"; by Cobham {cell(by_cobham)} times")
    )
    if ratio.is_exploratory:
        return f"{said[0].upper()}{said[1:]}."
    is_shown = ratio.is_clear and ratio.mean > 1
    return f"Priorities work: {said}." if is_shown else f"That priorities work was not shown: {said}."


def _against_theory(below: pd.DataFrame) -> list[str]:
    found: dict[str, list[float]] = {"replay_s": [], "cobham_s": []}
    strict = below[below["strategy"] == "strict"]
    for _, rows in strict.groupby(["utilisation", "queue"], sort=False):
        if not has_no_wait(rows):
            for name, ratios in found.items():
                known = rows.dropna(subset=["mean_wait_s", name])
                if len(known) and known[name].mean() > 0:
                    ratios.append(float(known["mean_wait_s"].mean() / known[name].mean()))
    words = {"replay_s": "those of the same jobs in an ideal queue", "cobham_s": "Cobham's"}
    parts = [
        f"{cell(min(ratios))} to {cell(max(ratios))} times {words[name]}"
        for name, ratios in found.items()
        if ratios
    ]
    return (
        [f"Below capacity with strict, the queues' mean waits were {' and '.join(parts)}."] if parts else []
    )


def _who_starves(above: pd.DataFrame) -> list[str]:
    sentences = []
    for (wanted, strategy), rows in above.groupby(["utilisation", "strategy"], sort=False):
        grows, holds = [], []
        for queue, chosen in rows.groupby("queue", sort=False):
            if not has_no_wait(chosen):
                holds.append(str(queue))
            elif (slope := slope_of(chosen)) is None or not slope.grows:
                grows.append(f"{queue} has to grow, which was too little to see in this time")
            else:
                grows.append(f"{queue} {slope}")
        rest = f", {' and '.join(holds)} did not" if holds and grows else ""
        sentences.append(
            f"At {wanted:.0%} with {plain(strategy)}: {'; '.join(grows) or 'nothing grew'}{rest}."
        )
    return sentences


def _of_batches(run: Run) -> list[str]:
    if TAKES_SEVERAL not in {configuration.kind for configuration in run.experiment.configurations}:
        return []
    return [
        "A batch worker holds the jobs that it has claimed, and a more urgent one that comes then waits until they are"
        " done: theory and ideal queue do not know that."
    ]


def _own_doubts(table: pd.DataFrame) -> list[str]:
    found = []
    for wanted, rows in table.groupby("utilisation"):
        recorded = rows["recorded"].dropna().astype(float).mean()
        if abs(recorded / wanted - 1) > _DRIFT:
            found.append(
                f"At {wanted:.0%} of the calibrated capacity the workers had {recorded:.0%} of it to do: the machine's"
                " speed changed, or chance drew other jobs than the average ones."
            )
    below = table[(table["utilisation"] < 1) & ~table["must_grow"]]
    for (wanted, strategy, queue), rows in below.groupby(["utilisation", "strategy", "queue"], sort=False):
        if has_no_wait(rows):
            found.append(
                f"At {wanted:.0%} with {plain(strategy)}, {queue} {slope_of(rows)}, though the workers should have kept up:"
                " its waits are not stated."
            )
    return found


def _by_block(rows: pd.DataFrame) -> dict[int, float]:
    known = rows.dropna(subset=["mean_wait_s"])
    return {int(b): float(wait) for b, wait in zip(known["block"], known["mean_wait_s"], strict=True)}


def _ratio_of_means(rows: pd.DataFrame, to: pd.DataFrame, column: str) -> float | None:
    mine, theirs = mean_ms_of(rows[column]), mean_ms_of(to[column])
    return mine / theirs if mine is not None and theirs else None
