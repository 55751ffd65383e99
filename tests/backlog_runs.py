"""Run folders of backlogs as the lab records them, with service times that are drawn instead of measured."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.runs.records import EventRow, TrialRow
from fuze_bench.lab.runs.results import Run, RunWriter, load_run

MACHINE = {"cpu_model": "none", "usable_cores": 64, "memory_bytes": 2**33, "kernel": "6", "packages": {}}


def backlog_run(
    folder: Path,
    *,
    factors: Mapping[str, Sequence[Any]],
    mean_service_s: Mapping[str, float],
    blocks: int = 6,
    jobs: int = 60,
    broken: Mapping[str, Mapping[str, Any]] | None = None,
) -> Run:
    """A run whose jobs take exponential times with a mean by kind; a worker takes 100 MiB, one that forks 120.

    An origin that answers after some milliseconds adds them to each job. `broken`: values of a configuration's trials.
    """
    experiment = Experiment(name="worker_counts", factors=factors, jobs=jobs, blocks=blocks)
    folder.mkdir(parents=True)
    writer = RunWriter.new(folder, experiment, settings={}, machine=MACHINE)
    rng = np.random.default_rng(1)
    for planned in experiment.plan():
        c = planned.configuration
        services_s = rng.exponential(mean_service_s[c.kind], jobs) + c.origin_latency_ms / 1e3
        writer.add(planned, *_recorded(planned, services_s, (broken or {}).get(planned.label, {})))
    writer.end(f"all {blocks} blocks done", {})
    return load_run(folder)


def _recorded(
    planned: PlannedTrial, services_s: Any, changed: Mapping[str, Any]
) -> tuple[TrialRow, list[EventRow]]:
    free = [0.0] * planned.configuration.workers
    events = []
    about = {"trial": planned.number, "block": planned.block, "label": planned.label, "copy": planned.copy}
    for job, service_s in enumerate(services_s, start=1):
        start_s = free[0]
        heapq.heapreplace(free, start_s + service_s)
        stamps = {"intended_ns": 10**15, "sent_ns": 10**15, "acknowledged_ns": 10**15, "queued_ns": 10**15}
        stamps |= {"started_ns": 10**15 + round(start_s * 1e9)}
        stamps |= {"done_ns": 10**15 + round((start_s + service_s) * 1e9)}
        events.append(EventRow(**about, job=job, queue="default", status="processed", attempts=1, **stamps))
    jobs, drain_s = len(services_s), max(free)
    forks = planned.configuration.kind == "fork"
    values = {
        "status": "ok",
        "offered": jobs,
        "sent": jobs,
        "acknowledged": jobs,
        "processed": jobs,
        "drained": True,
        "lost": 0,
        "drain_s": drain_s,
        "throughput_per_s": jobs / drain_s,
        "cpu_s": (0.03 if forks else 0.02) * jobs,
        "peak_pss_bytes": planned.configuration.workers * (120 if forks else 100) * 2**20,
    }
    return TrialRow(**about, started_at_s=1.7e9, **{**values, **changed}), events
