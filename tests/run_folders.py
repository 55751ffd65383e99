"""Run folders made by hand: what a test says of each trial, and the usual for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.runs.records import EventRow, TrialRow
from fuze_bench.lab.runs.results import RunWriter

MACHINE = {"usable_cores": 2, "load_1min_before": 0.0, "memory_bytes": 2**30, "kernel": "6"}
STAMP_NS = 9_007_199_254_740_993  # no float holds it


def new_run(folder: Path, **spec: Any) -> tuple[RunWriter, Experiment]:
    """An empty run folder, by default of 1 and 2 fork workers."""
    usual = {"name": "by-hand", "factors": {"workers": [1, 2]}, "fixed": {"kind": "fork"}, "blocks": 2}
    experiment = Experiment.from_mapping({**usual, **spec})
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"FUZE_LEASE_S": "15"}
    return RunWriter.new(folder, experiment, settings=settings, machine=MACHINE), experiment


def trial_row(planned: PlannedTrial, **changes: Any) -> TrialRow:
    """A trial that ended well with one job done."""
    usual: dict[str, Any] = {
        "status": "ok",
        "started_at_s": 1.0,
        "drain_s": 3.0,
        "throughput_per_s": 2.0,
        "offered": 1,
        "sent": 1,
        "acknowledged": 1,
        "processed": 1,
        "drained": True,
        "lost": 0,
    }
    own = {"trial": planned.number, "block": planned.block, "label": planned.label, "copy": planned.copy}
    return TrialRow(**own, **{**usual, **changes})


def event_row(
    planned: PlannedTrial, job: int = 1, *, wait_ms: int | None = 2, service_ms: int = 5
) -> EventRow:
    """A job that waited and was done; one that was never taken up if `wait_ms` is None."""
    started_ns = None if wait_ms is None else STAMP_NS + wait_ms * 1_000_000
    return EventRow(
        trial=planned.number,
        block=planned.block,
        label=planned.label,
        copy=planned.copy,
        job=job,
        queue="default",
        intended_ns=STAMP_NS,
        sent_ns=STAMP_NS,
        acknowledged_ns=STAMP_NS,
        queued_ns=STAMP_NS,
        started_ns=started_ns,
        done_ns=None if started_ns is None else started_ns + service_ms * 1_000_000,
        status="pending" if started_ns is None else "processed",
        attempts=0 if started_ns is None else 1,
        fetch_ms=1.0,
    )


def fill(
    writer: RunWriter, experiment: Experiment, throughputs: Mapping[int, list[float]], **changes: Any
) -> None:
    """All trials of all blocks: `throughputs` (jobs/s) by number of workers, one a block; copies as the first."""
    for planned in experiment.plan():
        value = throughputs[planned.configuration.workers][planned.block - 1]
        writer.add(planned, trial_row(planned, throughput_per_s=value, **changes), [event_row(planned)])
