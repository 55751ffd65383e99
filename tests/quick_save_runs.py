"""Recorded searches for quick-save's knee, made by hand: what a test says of every save of every trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from run_folders import trial_row

from fuze_bench.lab.experiments.factors import Configuration
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.judgement.knee import find_knee
from fuze_bench.lab.questions.quick_save import Search
from fuze_bench.lab.runs.records import REFUSED, EventRow, TrialRow
from fuze_bench.lab.runs.results import Run, RunWriter, load_run

WINDOW_S = 10.0
TARGET_MS = 250.0
START_NS = 10**15
MACHINE = {"usable_cores": 2, "load_1min_before": 0.0, "memory_bytes": 2**30, "kernel": "6"}
SEARCH = Search(
    target_ms=TARGET_MS, start_per_s={"inline": 8.0, "thread": 8.0, "rq": 8.0}, cap_per_s=400.0, within=0.09,
    most_trials=20,
)  # fmt: skip


@dataclass(frozen=True)
class Save:
    """When it was answered and processed, milliseconds from when it was due (None: never), and how late it was sent."""

    ack_ms: float | None = 20.0
    late_ms: float = 0.0
    done_ms: float | None = None
    refused: bool = False


@dataclass(frozen=True)
class Tried:
    """A trial: a mode at a rate, its saves in the order in which they were due, and what else its row has."""

    mode: str
    rate_per_s: float
    saves: Sequence[Save]
    row: dict[str, Any]


def tried(mode: str, rate_per_s: float, saves: Sequence[Save] | Save | None = None, **row: Any) -> Tried:
    """One that was offered for WINDOW_S; `saves`: all the same, or each."""
    given = Save() if saves is None else saves
    listed = [given] * round(rate_per_s * WINDOW_S) if isinstance(given, Save) else list(given)
    return Tried(mode, rate_per_s, listed, row)


def some_late(number: int, late: int, *, late_ms: float = 400.0, **of_all: Any) -> list[Save]:
    """So many saves, of which `late`, evenly spread, are answered after `late_ms` and the others after 20 ms."""
    spread = {number * place // late for place in range(late)}
    return [Save(ack_ms=late_ms if n in spread else 20.0, **of_all) for n in range(number)]


def write_run(
    folder: Path, trials: Sequence[Tried], *, search: Search | None = SEARCH, model: str = "off"
) -> Run:
    """The run folder of these trials, in this order; without `search`, of one that was stopped."""
    folder.mkdir(parents=True)
    configurations = [
        Configuration(mode=each.mode, workers=1, arrivals="constant", rate_per_s=each.rate_per_s)
        for each in trials
    ]
    experiment = Experiment(
        name="quick_save_load",
        configurations=tuple(dict.fromkeys(configurations)),
        duration_s=WINDOW_S,
        blocks=1,
        baseline_copy=False,
    )
    settings = {"FUZE_EMBEDDING_MODEL": model}
    writer = RunWriter.new(folder, experiment, settings=settings, machine=MACHINE)
    for number, (each, configuration) in enumerate(zip(trials, configurations, strict=True), start=1):
        block = 1 + configurations[: number - 1].count(configuration)
        planned = PlannedTrial(number, block, configuration, experiment.labels[configuration])
        writer.add(planned, *_recorded(planned, each))
    if search is not None:
        writer.end("every search came to its end", {"search": search.to_mapping()})
    return load_run(folder)


def searched_run(
    folder: Path, answers: dict[str, Callable[[float], Tried]], search: Search = SEARCH, **more: Any
) -> Run:
    """What a search records where `answers` says, by mode, what a trial at a rate is, and `Tried.row` whether it holds.

    The rates are those that the real search asks for: it goes by `holds` in the row, which is not recorded.
    """
    trials: list[Tried] = []
    for mode, answer in answers.items():

        def holds(rate_per_s: float, answer: Callable[[float], Tried] = answer) -> bool | None:
            made = answer(rate_per_s)
            row = dict(made.row)
            held = row.pop("holds")
            trials.append(replace(made, row=row))
            return bool(held) if held is not None else None

        find_knee(
            holds,
            start_per_s=search.start_per_s[mode],
            cap_per_s=search.cap_per_s,
            within=search.within,
            most_trials=search.most_trials,
        )
    return write_run(folder, trials, search=search, **more)


def steps_at(mode: str, knee_per_s: float) -> Callable[[float], Tried]:
    """A way that answers everything in time up to a rate, and beyond it a tenth too late."""

    def answer(rate_per_s: float) -> Tried:
        saves = round(rate_per_s * WINDOW_S)
        late = 0 if rate_per_s <= knee_per_s else -(-saves // 10)
        return tried(mode, rate_per_s, some_late(saves, late) if late else None, holds=not late)

    return answer


def _recorded(planned: PlannedTrial, each: Tried) -> tuple[TrialRow, list[EventRow]]:
    events = [
        _event(planned, number, START_NS + round((number - 1) / each.rate_per_s * 1e9), save)
        for number, save in enumerate(each.saves, start=1)
    ]
    answered = sum(event.acknowledged_ns is not None and event.status != REFUSED for event in events)
    counts = {"offered": len(events), "sent": len(events), "acknowledged": answered, "processed": 0}
    usual = {"window_s": WINDOW_S, "drained": False, "throughput_per_s": None, **counts}
    return trial_row(planned, **{**usual, **each.row}), events


def _event(planned: PlannedTrial, number: int, due_ns: int, save: Save) -> EventRow:
    def after(ms: float | None) -> int | None:
        return None if ms is None else due_ns + round(ms * 1e6)

    return EventRow(
        trial=planned.number,
        block=planned.block,
        label=planned.label,
        copy=planned.copy,
        job=number,
        queue="default",
        intended_ns=due_ns,
        sent_ns=after(save.late_ms),
        acknowledged_ns=after(save.ack_ms),
        queued_ns=after(save.ack_ms),
        started_ns=after(None if save.done_ms is None else save.ack_ms),
        done_ns=after(save.done_ms),
        status=REFUSED if save.refused else "pending" if save.done_ms is None else "processed",
        reason="503" if save.refused else None,
        mode=None if save.refused else {"thread": "thread"}.get(planned.configuration.mode, "rq"),
        attempts=0 if save.done_ms is None else 1,
    )
