"""Run folders without a run: trials whose jobs went through a replayed queue, recorded as a real run is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.experiments.workloads import Synthetic
from fuze_bench.lab.queueing.replay import replay
from fuze_bench.lab.runs.records import OK, PROCESSED, EventRow, TrialRow
from fuze_bench.lab.runs.results import Run, RunWriter, load_run

START_NS = 10**15
OVERHEAD_S = 0.004


def built_run(folder: Path, experiment: Experiment, *, slower: float = 1.0) -> Run:
    """The run that `experiment`, of synthetic jobs, would record on a perfectly even machine.

    `slower`: by how much longer jobs take than their law says.
    """
    folder.mkdir()
    writer = RunWriter.new(
        folder, experiment, settings={}, machine={"usable_cores": 2, "load_1min_before": 0.0}
    )
    for planned in experiment.plan():
        writer.add(planned, *_trial(planned, experiment, slower))
    writer.end(f"all {experiment.blocks} blocks done", {})
    return load_run(folder)


def _trial(
    planned: PlannedTrial, experiment: Experiment, slower: float
) -> tuple[TrialRow, Sequence[EventRow]]:
    assert isinstance(experiment.workload, Synthetic)
    c = planned.configuration
    arrivals = experiment.arrivals_of(c)
    times_s = arrivals.times(experiment.seed)
    rng = np.random.default_rng(experiment.seed * 1000 + planned.number)
    services_s = experiment.workload.service.draw_ms(len(times_s), rng) / 1e3 * slower
    done = replay(times_s, services_s, c.workers, overhead_s=OVERHEAD_S, pickup_s=OVERHEAD_S / 2)
    stamps = [
        [START_NS + round(float(at_s) * 1e9) for at_s in column]
        for column in (done.arrivals_s, done.starts_s, done.ends_s)
    ]
    of_trial = {"trial": planned.number, "block": planned.block, "label": planned.label, "copy": planned.copy}
    events = [
        EventRow(
            **of_trial, job=number, queue="default", intended_ns=queued, sent_ns=queued, acknowledged_ns=queued,
            queued_ns=queued, started_ns=started, done_ns=ended, status=PROCESSED, attempts=1,
        )
        for number, (queued, started, ended) in enumerate(zip(*stamps, strict=True), start=1)
    ]  # fmt: skip
    drain_s = float(done.ends_s.max() - done.arrivals_s.min())
    row = TrialRow(
        **of_trial, status=OK, started_at_s=0.0, window_s=arrivals.window_s, offered=len(events), sent=len(events),
        acknowledged=len(events), processed=len(events), lost=0, drained=True, drain_s=drain_s,
        throughput_per_s=len(events) / drain_s, cpu_s=0.005 * len(events), peak_pss_bytes=c.workers * 40 * 2**20,
    )  # fmt: skip
    return row, events
