"""A queue that grows is told from one that only goes up and down, on lines drawn by hand and on simulated queues."""

import heapq

import numpy as np
import pytest

from fuze_bench.lab.judgement.growth import growth_of, line_through_stretches

WINDOW_S = 60


def test_a_line_is_found_as_drawn():
    line = line_through_stretches(range(61), [5 + 2.0 * t for t in range(61)])
    assert (line.at_0, line.slope, line.low, line.high) == pytest.approx((5, 2, 2, 2))


def test_the_slopes_interval_is_students_with_four_degrees():
    # Stretch means 0, 1, 0, 1, 0, 1 at 0, …, 5: slope 3/35, squares of the rest 1.3714; t(0.975, 4) = 2.7764.
    line = line_through_stretches(
        [*(s + d for s in range(6) for d in (-0.05, 0.05))], [v for _ in range(3) for v in (0, 0, 1, 1)]
    )
    assert line.slope == pytest.approx(3 / 35)
    assert line.high - line.slope == pytest.approx(2.7764 * (1.3714 / 4 / 17.5) ** 0.5, rel=1e-3)


def test_growth_says_how_fast_and_when_the_target_breaks():
    growth = growth_of("low", range(61), [1.5 * t for t in range(61)])
    assert growth.grows
    # 10 jobs are done a second: a wait of 3 s is 30 jobs, which 1.5 a second pile up in 20 s.
    assert growth.broken_after_s(3.0, 10.0) == pytest.approx(20)
    assert growth.in_words(3.0, 10.0) == (
        "low grows by 1.5 jobs per second (95 % 1.5 to 1.5): the target of 3 s is broken after 20 s"
    )
    assert growth.in_words().endswith("(95 % 1.5 to 1.5)")


def test_less_than_a_job_over_the_window_is_no_growth():
    growth = growth_of("q", range(61), [0.01 * t for t in range(61)])
    assert not growth.grows
    assert growth.broken_after_s(1.0, 1.0) is None
    assert growth.in_words().startswith("q: no growth seen, 0.01 jobs per second")


def test_an_empty_queue_and_one_that_shrinks_do_not_grow():
    assert not growth_of("q", range(61), [0] * 61).grows
    assert not growth_of("q", range(61), [60 - t for t in range(61)]).grows


@pytest.mark.parametrize("times", [[], [1.0], [2.0] * 20, list(range(9)), [*range(10), 100]])
def test_too_few_samples_tell_nothing(times):
    assert growth_of("q", times, [1.0] * len(times)) is None


def depths(rng, utilisation, workers=4):
    """Depths at whole seconds of an M/M/c queue, service 1 s, that starts empty."""
    jobs = rng.poisson(utilisation * workers * WINDOW_S)
    arrivals = np.sort(rng.uniform(0, WINDOW_S, jobs))
    free, started = [0.0] * workers, []
    for at, service in zip(arrivals, rng.exponential(1.0, jobs), strict=True):
        begin = max(at, heapq.heappop(free))
        started.append(begin)
        heapq.heappush(free, begin + service)
    seconds = np.arange(WINDOW_S + 1)
    return np.searchsorted(arrivals, seconds, "right") - np.searchsorted(np.sort(started), seconds, "right")


@pytest.mark.parametrize(("utilisation", "least", "most"), [(0.5, 0, 15), (0.8, 0, 30), (1.3, 190, 200)])
def test_simulated_queues_grow_where_they_must(utilisation, least, most):
    rng = np.random.default_rng(7)
    found = sum(
        growth_of("q", range(WINDOW_S + 1), depths(rng, utilisation).tolist()).grows for _ in range(200)
    )
    assert least <= found <= most
