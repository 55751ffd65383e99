"""What workers need between jobs and to pick one up is found again in simulated stamps."""

from __future__ import annotations

import numpy as np
import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.queueing.replay import replay
from fuze_bench.lab.queueing.worker_overhead import WorkerOverhead, worker_overhead


def test_by_hand() -> None:
    """Two workers: one gap of 0.5 s and one of 0.3 s with a job waiting, one pick-up of 0.2 s by an idle worker."""
    found = worker_overhead([0, 0, 1, 1, 20], [0, 0, 5.5, 6.3, 20.2], [5, 6, 7, 8, 21], 2)
    assert found.between_s == pytest.approx(0.4)
    assert found.pickup_s == pytest.approx(0.2)
    assert (found.between_jobs, found.pickup_jobs) == (2, 1)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_it_is_found_again(workers: int) -> None:
    rng = np.random.default_rng(workers)
    jobs = 5000
    arrivals = np.cumsum(rng.exponential(1 / (0.8 * workers), jobs))
    found = replay(arrivals, rng.exponential(1, jobs), workers, overhead_s=0.1, pickup_s=0.03)
    overhead = worker_overhead(arrivals, found.starts_s, found.ends_s, workers)
    assert overhead.between_s == pytest.approx(0.1, rel=1e-6)
    assert overhead.between_jobs > jobs / 4
    # A job that arrives in the gap of the only worker that is free waits a part of the gap, too.
    assert overhead.pickup_s == pytest.approx(0.03, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_jobs_of_the_warm_up_do_not_count_as_overhead(seed: int) -> None:
    """They are missing from the record, and kept workers busy at its start."""
    rng = np.random.default_rng(seed)
    jobs, warm_up = 400, 40
    arrivals = np.cumsum(rng.exponential(1 / 3.6, jobs))
    found = replay(arrivals, rng.exponential(1, jobs), 4)
    recorded = slice(warm_up, None)
    overhead = worker_overhead(arrivals[recorded], found.starts_s[recorded], found.ends_s[recorded], 4)
    assert overhead.between_s == pytest.approx(0, abs=1e-9)
    assert overhead.pickup_s == pytest.approx(0, abs=1e-9)
    assert overhead.between_jobs > 100


def test_one_job_tells_nothing() -> None:
    assert worker_overhead([0], [1], [2], 1) == WorkerOverhead(None, 0, None, 0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(LabError, match="more than 1 jobs ran at once"):
        worker_overhead([0, 0], [0, 1], [2, 3], 1)
    with pytest.raises(LabError, match="not in the order"):
        worker_overhead([1], [0], [2], 1)
    with pytest.raises(LabError, match="not in the order"):
        worker_overhead([0], [float("nan")], [2], 1)
    with pytest.raises(LabError, match="2 arrivals, 1 starts"):
        worker_overhead([0, 0], [1], [2], 1)
