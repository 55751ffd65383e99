"""Doubts beside figures: what the verdicts say of the trials behind a table's row, and all verdicts of a run as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from fuze_bench.lab.judgement.tables import BELOW
from fuze_bench.lab.judgement.trial_verdicts import INVALIDATING
from fuze_bench.lab.judgement.verdicts import Answer, Verdict
from fuze_bench.lab.runs.records import OK

if TYPE_CHECKING:
    from fuze_bench.lab.runs.results import Run

#: The column of a table of figures that says what `doubts_on` does.
DOUBTS = "doubts"
_NONE, _NO_TRIAL, _FAILED = "none", "no trial", "failed"
#: Which answer gives a verdict its place in the table of all, and its reason.
_GRAVEST_FIRST = (Answer.YES, Answer.UNKNOWN, Answer.NO)


def doubts_beside(run: Run, *labels: str, leave_out: frozenset[str] = frozenset()) -> str:
    """`doubts_on` all trials of these configurations, those that do not count too, without the baseline's copy."""
    own = run.trials["label"].isin(labels) & ~run.trials["copy"].astype(bool)
    return doubts_on(run, run.trials[own]["trial"], leave_out=leave_out)


def doubts_on(run: Run, trials: Iterable[int], *, leave_out: frozenset[str] = frozenset()) -> str:
    """For a table's row: which verdicts hold for these trials, and for how many; then which cannot be told.

    «growing backlog (2 of 6 trials); unknown: load generator saturated (all 6 trials)», or «none». `leave_out`: names
    of verdicts that say nothing about this table. What trials are too small for is said once, by `told_below`.
    """
    numbers = {int(trial) for trial in trials}
    if not numbers:
        return _NO_TRIAL
    found: dict[Answer, Counter[str]] = {Answer.YES: Counter(), Answer.UNKNOWN: Counter()}
    found[Answer.YES][_FAILED] += int(
        (run.trials["trial"].isin(numbers) & (run.trials["status"] != OK)).sum()
    )
    for verdict in run.verdicts:
        if verdict.trial not in numbers or verdict.name in leave_out or verdict.too_small:
            continue
        if verdict.answer in found:
            found[verdict.answer][verdict.name] += 1
    parts = [f"{name}{_how_many(name, n, len(numbers))}" for name, n in found[Answer.YES].items() if n]
    by_count: dict[int, list[str]] = {}
    for name, count in found[Answer.UNKNOWN].items():
        by_count.setdefault(count, []).append(name)
    parts += [f"unknown: {', '.join(names)}{_of(n, len(numbers))}" for n, names in by_count.items()]
    return "; ".join(parts) or _NONE


def told_below(table: pd.DataFrame, run: Run, *, leave_out: frozenset[str] = frozenset()) -> pd.DataFrame:
    """The table, with `too_small_to_tell` as what `tables.show` says below it."""
    table.attrs[BELOW] = too_small_to_tell(run, leave_out=leave_out)
    return table


def too_small_to_tell(*runs: Run, leave_out: frozenset[str] = frozenset()) -> str:
    """Which verdicts are unknown as trials were too small for them, of how many trials, and what they take; or nothing."""
    found: dict[str, list[Verdict]] = {}
    for verdict in (verdict for run in runs for verdict in run.verdicts):
        if verdict.too_small and verdict.name not in leave_out:
            found.setdefault(verdict.name, []).append(verdict)
    if not found:
        return ""
    trials = sum(len(run.trials) for run in runs)
    said = [f"{name}{_of(len(of), trials)}: {of[0].reason}" for name, of in found.items()]
    return f"Not told by trials this small: {'; '.join(said)}."


def verdicts_table(run: Run) -> pd.DataFrame:
    """A row a verdict, what holds first: how many trials have each answer, and the first reason for the gravest of them."""
    by_name: dict[str, list[Verdict]] = {}
    for verdict in run.verdicts:
        by_name.setdefault(verdict.name, []).append(verdict)
    rows = []
    for name, verdicts in by_name.items():
        first = min(verdicts, key=lambda verdict: _GRAVEST_FIRST.index(verdict.answer))
        counts = Counter(verdict.answer for verdict in verdicts)
        where = "" if first.trial is None else f"trial {first.trial}: "
        row = {answer.value: counts[answer] for answer in (Answer.YES, Answer.NO, Answer.UNKNOWN)}
        rows.append((first.answer, {"verdict": name, **row, "first reason": f"{where}{first.reason}"}))
    rows.sort(key=lambda found: _GRAVEST_FIRST.index(found[0]))
    return pd.DataFrame([row for _, row in rows]).set_index("verdict")


def _how_many(name: str, count: int, trials: int) -> str:
    said = _of(count, trials)
    return said.replace(")", ", not counted)") if name in INVALIDATING or name == _FAILED else said


def _of(count: int, trials: int) -> str:
    if trials == 1:
        return ""
    return f" (all {trials} trials)" if count == trials else f" ({count} of {trials} trials)"
