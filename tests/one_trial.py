"""One real trial from its begin to its end, and what must hold of it whatever it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Progress, Trial
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.records import EventRow, TrialRow
from fuze_bench.pipeline.settings import Settings

SETTINGS = Settings(embedding_model="off")


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def one_trial(
    folder: Path,
    host: WorkerHost | None,
    on_progress: Progress | None = None,
    *,
    ceilings_per_s: Mapping[str, float] | None = None,
    **spec: Any,
) -> tuple[TrialRow, list[EventRow], Trial]:
    """The first trial of an experiment with one configuration."""
    before = children()
    experiment = Experiment.from_mapping({"baseline_copy": False, **spec})
    folder.mkdir()
    planned = experiment.plan()[0]
    with Trial(planned, experiment, SETTINGS, folder, host, ceilings_per_s=ceilings_per_s) as trial:
        trial.wait_ready()
        trial.measure(on_progress)
        trial.close()
    assert children() <= before, "something outlived the trial"
    return trial.row(), trial.events, trial


def assert_whole(row: TrialRow, events: list[EventRow], jobs: int) -> None:
    """Every job was sent, answered and done once, its stamps are in order, and the series are there."""
    assert row.problem is None, row.log_end
    assert (row.status, row.processed, row.failed, row.lost, row.duplicated) == ("ok", jobs, 0, 0, 0)
    assert (row.offered, row.sent, row.acknowledged, row.refused, row.unfinished) == (jobs, jobs, jobs, 0, 0)
    assert row.drained
    drain_s = (max(e.done_ns or 0 for e in events) - min(e.queued_ns or 0 for e in events)) / 1e9
    assert row.drain_s == pytest.approx(drain_s)
    assert row.throughput_per_s == pytest.approx(jobs / drain_s)
    assert [event.job for event in events] == list(range(1, jobs + 1)), "the warm-up must not be recorded"
    for event in events:
        stamps = (event.intended_ns, event.sent_ns, event.queued_ns, event.started_ns, event.done_ns)
        assert list(stamps) == sorted(stamp for stamp in stamps if stamp is not None)
        assert (event.acknowledged_ns or 0) >= (event.sent_ns or 0)
