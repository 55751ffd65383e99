"""How fast overloaded queues grow, by hand and against the replay."""

from __future__ import annotations

import numpy as np
import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.queueing.queue_growth import growth, utilisation
from fuze_bench.lab.queueing.replay import STRATEGIES, replay


def test_strict_priorities_starve_the_last_first() -> None:
    """Two workers, jobs of 1 s: 1 + 1.5 + 0.5 a second are 150 %: the second queue gets what is left, the third nothing."""
    high, default, low = growth([1.0, 1.5, 0.5], [1.0, 1.0, 1.0], 2)
    assert (high.per_s, default.per_s, low.per_s) == pytest.approx((0, 0.5, 0.5))
    assert high.breaks_after_s(2) is None
    # After t seconds 0.5 t jobs are before a new one, worked off at 1 a second.
    assert default.breaks_after_s(2) == pytest.approx(4)
    assert low.breaks_after_s(2) == 0


@pytest.mark.parametrize("strategy", ["round_robin", "random"])
def test_fair_strategies_leave_small_queues_alone(strategy: str) -> None:
    """The same load: 0.5 is below an equal share of 2, what it leaves is shared equally."""
    high, default, low = growth([1.0, 1.5, 0.5], [1.0, 1.0, 1.0], 2, strategy=strategy)
    assert (high.per_s, default.per_s, low.per_s) == pytest.approx((0.25, 0.75, 0))


def test_nothing_grows_below_full_use() -> None:
    assert utilisation([1.0, 0.5], [1.0, 1.0], 2) == pytest.approx(0.75)
    assert [each.per_s for each in growth([1.0, 0.5], [1.0, 1.0], 2)] == [0, 0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_replay_grows_as_fast(strategy: str) -> None:
    rng = np.random.default_rng(1)
    rates, means, jobs = np.array([1.0, 1.0, 0.6]), np.array([0.5, 1.0, 2.0]), 20_000
    classes = rng.choice(3, jobs, p=rates / rates.sum())
    arrivals = np.cumsum(rng.exponential(1 / rates.sum(), jobs))
    found = replay(arrivals, rng.exponential(means[classes]), 2, classes, strategy=strategy)
    end = arrivals[-1]
    left = [(found.starts_s[classes == number] > end).sum() / end for number in range(3)]
    expected = [each.per_s for each in growth(rates, means, 2, strategy=strategy)]
    assert left == pytest.approx(expected, abs=0.03)
    assert sum(expected) > 0.1


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(LabError, match="did you mean 'random'"):
        growth([1.0], [1.0], 1, strategy="randon")
