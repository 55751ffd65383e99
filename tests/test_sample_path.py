"""Measured against the sample path: what real workers recorded, replayed, gives the waits that they recorded."""

from __future__ import annotations

import numpy as np
import pytest

from fuze_bench.lab.experiments.run import run_experiment
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.workloads import Synthetic
from fuze_bench.lab.queueing.replay import replay
from fuze_bench.lab.queueing.worker_overhead import WorkerOverhead, worker_overhead
from fuze_bench.lab.runs.results import Run
from fuze_bench.pipeline.settings import Settings

WORKERS = 4
JOBS = 300


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """300 and more jobs of 150 ms on four stock workers that are busy for three quarters of their time; the usual seed."""
    experiment = Experiment(
        workload=Synthetic(ServiceLaw(law="lognormal", mean_ms=150, cv=0.8)),
        fixed={"workers": WORKERS, "arrivals": "poisson", "rate_per_s": 20.5},
        duration_s=15.6,
        blocks=1,
        baseline_copy=False,
    )
    folder = tmp_path_factory.mktemp("sample-path")
    return run_experiment(experiment, Settings(data_dir=folder), out=folder / "run")


def path_of(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrivals, starts and ends in seconds from the first arrival."""
    # A late sender matters to nobody here: the path begins when jobs were queued.
    jobs = run.events.sort_values("queued_ns")
    first = int(jobs["queued_ns"].min())
    arrivals, starts, ends = (
        ((jobs[name] - first) / 1e9).to_numpy(np.float64) for name in ("queued_ns", "started_ns", "done_ns")
    )
    return arrivals, starts, ends


def replayed_mean_s(run: Run, workers: int, overhead: WorkerOverhead) -> float:
    arrivals, starts, ends = path_of(run)
    assert overhead.between_s is not None
    found = replay(
        arrivals,
        ends - starts,
        workers,
        overhead_s=overhead.between_s,
        pickup_s=min(overhead.pickup_s or 0.0, overhead.between_s),
    )
    return float(found.waits_s.mean())


def test_the_replay_gives_the_recorded_waits(recorded: Run) -> None:
    """To within 5 %, plus half of what a worker needs from one job to the next: the replay takes the mean of that, as
    the record states it, for every job, and it scatters by about so much.

    Seen with the seeds 1, 2, 4 and 5 on a machine that others kept busy: off by 1, 2, 2 and 7 % of 90 to 161 ms, where
    the overhead was 18 to 22 ms. Without the overhead the replay is off by half of the wait.
    """
    arrivals, starts, ends = path_of(recorded)
    assert len(arrivals) >= JOBS
    overhead = worker_overhead(arrivals, starts, ends, WORKERS)
    assert overhead.between_s is not None
    mean_s = float((starts - arrivals).mean())
    assert overhead.between_s < 0.5 * mean_s, "the machine is too busy to tell anything"
    allowed_s = 0.05 * mean_s + 0.5 * overhead.between_s
    assert replayed_mean_s(recorded, WORKERS, overhead) == pytest.approx(mean_s, abs=allowed_s)
    none = WorkerOverhead(0.0, overhead.between_jobs, 0.0, overhead.pickup_jobs)
    assert replayed_mean_s(recorded, WORKERS, none) < mean_s - allowed_s
    # One worker more or fewer would wait otherwise: the agreement is none of chance.
    for workers in (WORKERS - 1, WORKERS + 1):
        assert abs(replayed_mean_s(recorded, workers, overhead) - mean_s) > allowed_s
