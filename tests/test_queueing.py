"""The replay: by hand, by what must hold for every queue, against the formulas, against Ciw and against real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ciw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuze_bench.errors import LabError
from fuze_bench.lab.planning.plan_evidence import TAKES_SEVERAL
from fuze_bench.lab.queueing.formulas import (
    allen_cunneen_mean_wait_s,
    cobham_mg1_mean_waits_s,
    cobham_mmc_mean_waits_s,
    mmc_mean_wait_s,
    mmc_wait_quantile_s,
)
from fuze_bench.lab.queueing.replay import STRATEGIES, Replay, replay
from fuze_bench.lab.queueing.worker_overhead import worker_overhead
from fuze_bench.lab.runs.results import load_run

EXAMPLE_RUN = Path(__file__).parent.parent / "data" / "example-run"


def poisson(rng: np.random.Generator, rate_per_s: float, jobs: int) -> np.ndarray:
    return np.cumsum(rng.exponential(1 / rate_per_s, jobs))


def settled(values: np.ndarray) -> np.ndarray:
    """Without the jobs from the start, which found the queue emptier than it becomes."""
    return values[len(values) // 20 :]


# ---- by hand


def test_two_servers_in_order_of_arrival() -> None:
    found = replay([0, 1, 2, 3], [5, 1, 4, 1], 2)
    assert found.starts_s.tolist() == [0, 1, 2, 5]
    assert found.ends_s.tolist() == [5, 2, 6, 6]
    assert found.waits_s.tolist() == [0, 0, 0, 2]


def test_jobs_may_be_given_in_any_order() -> None:
    found = replay([3, 0, 2, 1], [1, 5, 4, 1], 2)
    assert found.starts_s.tolist() == [5, 0, 2, 1]


def test_a_high_job_overtakes_but_does_not_interrupt() -> None:
    found = replay([0, 1, 2], [10, 1, 1], 1, [1, 1, 0])
    assert found.starts_s.tolist() == [0, 11, 10]


def test_jobs_that_arrive_together_go_by_priority() -> None:
    assert replay([0, 0, 0], [1, 1, 1], 1, [2, 1, 0]).starts_s.tolist() == [2, 1, 0]


def test_round_robin_takes_from_the_queues_in_turn() -> None:
    found = replay([0] * 6, [1] * 6, 1, [0, 0, 0, 0, 1, 2], strategy="round_robin")
    assert found.starts_s.tolist() == [0, 3, 4, 5, 1, 2]


def test_random_takes_from_every_queue_that_holds_a_job() -> None:
    jobs = 3000
    found = replay([0] * jobs, [1] * jobs, 1, [0, 1, 2] * (jobs // 3), strategy="random", seed=5)
    first = np.argsort(found.starts_s)[: jobs // 2] % 3
    # Binomial(1500, 1/3): four standard deviations are 73.
    assert np.bincount(first) == pytest.approx([500] * 3, abs=73)
    again = replay([0] * jobs, [1] * jobs, 1, [0, 1, 2] * (jobs // 3), strategy="random", seed=5)
    assert (found.starts_s == again.starts_s).all()


def test_a_batch_takes_what_waits_and_ends_together() -> None:
    found = replay([0, 1, 1, 1], [4, 1, 2, 3], 1, batch=2)
    assert found.starts_s.tolist() == [0, 4, 4, 7]
    assert found.ends_s.tolist() == [4, 7, 7, 10]
    by_priority = replay([0, 1, 1, 1], [4, 1, 2, 3], 1, [0, 1, 1, 0], batch=2)
    assert by_priority.starts_s.tolist() == [0, 4, 8, 4]


def test_overhead_lies_between_jobs_and_pickup_before_one() -> None:
    found = replay([0, 1, 20], [5, 5, 5], 1, overhead_s=2, pickup_s=0.5)
    assert found.starts_s.tolist() == [0.5, 7.5, 20.5]
    with_priorities = replay([0, 1, 20], [5, 5, 5], 1, [0, 1, 1], overhead_s=2, pickup_s=0.5)
    assert with_priorities.starts_s.tolist() == [0.5, 7.5, 20.5]
    in_batches = replay([0, 1, 1, 20], [5, 5, 1, 5], 1, batch=2, overhead_s=2, pickup_s=0.5)
    assert in_batches.starts_s.tolist() == [0.5, 7.5, 7.5, 20.5]


def test_nothing_to_do() -> None:
    for options in ({}, {"strategy": "round_robin", "batch": 2}):
        assert len(replay([], [], 3, [], **options).waits_s) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"servers": 0}, "servers=0"),
        ({"servers": 1.5}, "servers=1.5"),
        ({"batch": 0}, "batch=0"),
        ({"arrivals_s": [0.0]}, "1 arrivals, 2 service times"),
        ({"arrivals_s": [0.0, float("nan")]}, "missing"),
        ({"arrivals_s": [0.0, None]}, "arrivals_s holds"),
        ({"arrivals_s": ["soon", "later"]}, "no number"),
        ({"services_s": [1.0, -1.0]}, "holds -1"),
        ({"services_s": [[1.0, 1.0]]}, "2 dimensions"),
        ({"priorities": [0, -1]}, "whole numbers from 0"),
        ({"priorities": [0, 0.5]}, "whole numbers from 0"),
        ({"strategy": "strikt"}, "did you mean 'strict'"),
        ({"overhead_s": -1}, "overhead_s=-1"),
        ({"pickup_s": float("inf")}, "pickup_s=inf"),
    ],
)
def test_what_cannot_be_replayed_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        replay(**{"arrivals_s": [0.0, 1.0], "services_s": [1.0, 1.0], "servers": 1, **options})
    assert "\n" not in str(caught.value)


# ---- what holds for every queue


@st.composite
def queues(draw: st.DrawFn) -> dict[str, Any]:
    jobs = draw(st.integers(1, 40))
    # Quarters add up exactly, and meet one another often.
    times = st.integers(0, 40).map(lambda quarter: quarter / 4)
    return {
        "arrivals_s": draw(st.lists(times, min_size=jobs, max_size=jobs)),
        "services_s": draw(st.lists(times, min_size=jobs, max_size=jobs)),
        "priorities": draw(st.none() | st.lists(st.integers(0, 3), min_size=jobs, max_size=jobs)),
        "servers": draw(st.integers(1, 5)),
        "strategy": draw(st.sampled_from(STRATEGIES)),
    }


@given(queue=queues())
def test_every_job_is_served_once_by_a_free_server(queue: dict[str, Any]) -> None:
    found = replay(**queue)
    arrivals, services = np.array(queue["arrivals_s"]), np.array(queue["services_s"])
    assert (found.starts_s >= arrivals).all()
    assert (found.ends_s == found.starts_s + services).all()
    for moment in found.starts_s:
        assert ((found.starts_s <= moment) & (moment < found.ends_s)).sum() <= queue["servers"]


@given(queue=queues())
def test_no_server_is_idle_while_a_job_waits(queue: dict[str, Any]) -> None:
    found = replay(**queue)
    for moment in np.unique(np.concatenate([found.arrivals_s, found.ends_s])):
        if ((found.arrivals_s <= moment) & (moment < found.starts_s)).any():
            busy = ((found.starts_s <= moment) & (moment < found.ends_s)).sum()
            assert busy == queue["servers"]


@given(queue=queues())
def test_each_queue_keeps_its_order(queue: dict[str, Any]) -> None:
    found = replay(**queue)
    classes = np.zeros(len(found.starts_s)) if queue["priorities"] is None else np.array(queue["priorities"])
    for number in np.unique(classes):
        own = classes == number
        order = np.argsort(found.arrivals_s[own], kind="stable")
        assert (np.diff(found.starts_s[own][order]) >= 0).all()


# ---- against the formulas


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.6), (2, 0.8), (5, 0.7)])
def test_mmc(servers: int, busy: float) -> None:
    rng = np.random.default_rng(100 + servers)
    rate, jobs = busy * servers, 400_000
    waits = settled(replay(poisson(rng, rate, jobs), rng.exponential(1, jobs), servers).waits_s)
    assert waits.mean() == pytest.approx(mmc_mean_wait_s(rate, 1, servers), rel=0.05)
    assert np.quantile(waits, 0.95) == pytest.approx(mmc_wait_quantile_s(0.95, rate, 1, servers), rel=0.05)


def test_cobham_with_several_servers() -> None:
    rng = np.random.default_rng(2)
    rates, jobs = np.array([0.8, 1.0, 0.6]), 300_000
    classes = rng.choice(3, jobs, p=rates / rates.sum())
    found = replay(poisson(rng, rates.sum(), jobs), rng.exponential(1, jobs), 3, classes)
    means = [settled(found.waits_s[classes == number]).mean() for number in range(3)]
    assert means == pytest.approx(cobham_mmc_mean_waits_s(rates, 1, 3), rel=0.06)


def test_cobham_with_different_service_laws() -> None:
    rng = np.random.default_rng(3)
    jobs = 300_000
    classes = rng.choice(2, jobs, p=[0.5, 0.5])
    # The first queue's jobs take 0.4 s exactly, the second's 1 s on average, exponentially.
    services = np.where(classes == 0, 0.4, rng.exponential(1, jobs))
    found = replay(poisson(rng, 1.0, jobs), services, 1, classes)
    means = [settled(found.waits_s[classes == number]).mean() for number in range(2)]
    assert means == pytest.approx(cobham_mg1_mean_waits_s([0.5, 0.5], [0.4, 1], [0, 1]), rel=0.06)


@pytest.mark.parametrize("scv", [0.0, 0.25, 4.0])
def test_allen_cunneen_is_near(scv: float) -> None:
    """An approximation: within 15 % of a busy queue's simulated wait."""
    rng = np.random.default_rng(4)
    rate, servers, jobs = 2.7, 3, 300_000
    services = np.ones(jobs) if scv == 0 else rng.gamma(1 / scv, scv, jobs)
    waits = settled(replay(poisson(rng, rate, jobs), services, servers).waits_s)
    expected = allen_cunneen_mean_wait_s(rate, 1, servers, arrival_scv=1, service_scv=scv)
    assert waits.mean() == pytest.approx(expected, rel=0.15)


def test_little() -> None:
    """The mean number waiting, counted over time, is rate × mean wait."""
    rng = np.random.default_rng(5)
    jobs = 50_000
    found = replay(poisson(rng, 1.7, jobs), rng.exponential(1, jobs), 2)
    moments = np.linspace(found.arrivals_s[0], found.arrivals_s[-1], 20_000)
    waiting = np.searchsorted(found.arrivals_s, moments) - np.searchsorted(np.sort(found.starts_s), moments)
    rate = jobs / found.arrivals_s[-1]
    assert waiting.mean() == pytest.approx(rate * found.waits_s.mean(), rel=0.02)


def test_strategies_share_one_total() -> None:
    """Like work in another order: the mean over all jobs stays, and round robin treats both queues alike."""
    rng = np.random.default_rng(6)
    jobs = 100_000
    arrivals, services = poisson(rng, 1.7, jobs), rng.exponential(1, jobs)
    classes = rng.choice(2, jobs, p=[0.5, 0.5])
    means = {}
    for strategy in STRATEGIES:
        waits = replay(arrivals, services, 2, classes, strategy=strategy).waits_s
        means[strategy] = [waits[classes == number].mean() for number in range(2)]
        assert waits.mean() == pytest.approx(mmc_mean_wait_s(1.7, 1, 2), rel=0.1)
    assert means["strict"][1] > 4 * means["strict"][0]
    assert means["round_robin"][1] == pytest.approx(means["round_robin"][0], rel=0.1)
    assert means["random"][1] == pytest.approx(means["random"][0], rel=0.1)


# ---- against an independent simulator


def simulated_by_ciw(
    arrivals: np.ndarray, services: np.ndarray, servers: int, classes: np.ndarray | None = None
) -> np.ndarray:
    """The same jobs through Ciw: their waits, in the order of arrival within each class."""
    of_class = np.zeros(len(arrivals), dtype=int) if classes is None else classes
    numbers = [int(number) for number in np.unique(of_class)]
    never = [1e9]
    options: dict[str, Any] = {
        "arrival_distributions": {
            f"queue {number}": [
                ciw.dists.Sequential([*np.diff(arrivals[of_class == number], prepend=0).tolist(), *never])
            ]
            for number in numbers
        },
        "service_distributions": {
            f"queue {number}": [ciw.dists.Sequential(services[of_class == number].tolist())]
            for number in numbers
        },
        "number_of_servers": [servers],
    }
    if len(numbers) > 1:
        options["priority_classes"] = {f"queue {number}": number for number in numbers}
    simulation = ciw.Simulation(ciw.create_network(**options))
    simulation.simulate_until_max_time(1e8)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    waits = np.empty(len(arrivals))
    for number in numbers:
        own = [record.waiting_time for record in records if record.customer_class == f"queue {number}"]
        waits[of_class == number] = own
    return waits


@pytest.mark.parametrize("servers", [1, 3])
def test_the_same_jobs_through_ciw(servers: int) -> None:
    rng = np.random.default_rng(servers)
    jobs = 3000
    arrivals, services = poisson(rng, 0.9 * servers, jobs), rng.lognormal(-0.5, 1, jobs)
    found = replay(arrivals, services, servers).waits_s
    assert found.mean() > 0.1
    assert found == pytest.approx(simulated_by_ciw(arrivals, services, servers), abs=1e-6)


@pytest.mark.parametrize("servers", [1, 3])
def test_the_same_jobs_through_ciw_with_priorities(servers: int) -> None:
    rng = np.random.default_rng(10 + servers)
    jobs = 3000
    arrivals, services = poisson(rng, 0.9 * servers, jobs), rng.lognormal(-0.5, 1, jobs)
    classes = rng.integers(0, 3, jobs)
    found = replay(arrivals, services, servers, classes).waits_s
    assert found[classes == 2].mean() > 3 * found[classes == 0].mean()
    assert found == pytest.approx(simulated_by_ciw(arrivals, services, servers, classes), abs=1e-6)


# ---- against real workers


def test_the_recorded_waits_of_real_workers() -> None:
    """The recorded run's arrivals and service times give its waits to within 5 % and the workers' overhead."""
    run = load_run(EXAMPLE_RUN)
    of_one_by_one = run.trials.loc[run.trials["kind"] != TAKES_SEVERAL, ["trial", "workers"]]
    events = run.good_events().merge(of_one_by_one, on="trial")
    assert len(events) >= 300
    for (_, workers), jobs in events.groupby(["trial", "workers"]):
        begin = jobs["queued_ns"].min()
        queued, started, done = (
            ((jobs[name] - begin) / 1e9).to_numpy(dtype=float)
            for name in ("queued_ns", "started_ns", "done_ns")
        )
        overhead = worker_overhead(queued, started, done, int(workers))
        assert overhead.between_s is not None
        first_s = started.min() - queued[np.argmin(started)]
        found: Replay = replay(
            queued,
            done - started,
            int(workers),
            overhead_s=overhead.between_s,
            pickup_s=min(first_s, overhead.between_s),
        )
        assert found.waits_s.mean() == pytest.approx(
            (started - queued).mean(), rel=0.05, abs=overhead.between_s
        )
