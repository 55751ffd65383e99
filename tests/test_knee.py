"""The search for the highest rate held: on a step, on simulated queues whose knee is known, and at its ends."""

import math

import numpy as np
import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement.knee import Attempt, find_knee

RATES = {"start_per_s": 10.0, "cap_per_s": 1000.0}


@pytest.mark.parametrize("true", [1.3, 10.0, 77.0, 640.0, 900.0])
def test_a_step_is_enclosed(true):
    knee = find_knee(lambda rate: rate <= true, **RATES)
    assert knee.low_per_s <= true < knee.high_per_s <= knee.low_per_s * 1.05
    assert knee.is_confirmed
    tried = [attempt.rate_per_s for attempt in knee.attempts]
    assert {0.9, 1.1} <= {round(rate / knee.rate_per_s, 9) for rate in tried}
    assert len(tried) <= 20


class Server:
    """One server with exponential service times under Poisson arrivals: holds while the p95 wait is within a target.

    P(wait > t) = ρ e^(-(μ - λ) t) (M/M/1, any textbook) gives the rate at which exactly one job in twenty waits longer.
    """

    SERVED_PER_S, TARGET_S, JOBS = 100.0, 0.1, 20_000

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def holds(self, rate):
        gaps = self._rng.exponential(1 / rate, self.JOBS)
        services = self._rng.exponential(1 / self.SERVED_PER_S, self.JOBS)
        # Lindley: the wait is the walk of service less gap, above its lowest point so far.
        walk = np.concatenate([[0.0], (services[:-1] - gaps[1:]).cumsum()])
        waits = walk - np.minimum.accumulate(walk)
        in_time = float((waits <= self.TARGET_S).mean())
        return Attempt(rate, in_time >= 0.95, goodput_per_s=rate * in_time)

    @classmethod
    def knee(cls):
        low, high = 1.0, cls.SERVED_PER_S
        for _ in range(60):
            rate = (low + high) / 2
            late = rate / cls.SERVED_PER_S * math.exp(-(cls.SERVED_PER_S - rate) * cls.TARGET_S)
            low, high = (low, rate) if late > 0.05 else (rate, high)
        return low


def test_a_noisy_servers_known_knee_is_found_within_5_percent_in_19_of_20():
    true = Server.knee()
    knees = [find_knee(Server(seed).holds, **RATES) for seed in range(20)]
    assert sum(abs(knee.rate_per_s / true - 1) <= 0.05 for knee in knees) >= 19, [k.rate_per_s for k in knees]
    assert all(len(knee.attempts) <= 20 for knee in knees)
    assert knees[0].goodput_per_s == pytest.approx(0.95 * knees[0].low_per_s, rel=0.05)
    assert "goodput" in knees[0].sentence


@pytest.mark.parametrize("lie_at", [1, 2, 3, 4, 5, 6])
def test_one_wrong_answer_does_not_lead_it_astray(lie_at):
    asked = []

    def holds(rate):
        asked.append(rate)
        return (rate <= 77.0) != (len(asked) == lie_at)

    knee = find_knee(holds, **RATES, most_trials=30)
    assert knee.is_confirmed
    assert knee.rate_per_s == pytest.approx(77.0, rel=0.11)


def test_what_never_holds_and_what_always_holds_end_at_the_floor_and_the_cap():
    never = find_knee(lambda rate: False, **RATES, floor_per_s=1.0)
    assert (never.low_per_s, never.high_per_s, never.rate_per_s) == (None, 1.0, None)
    assert never.sentence == "not even 1 /s held (5 trials)"
    always = find_knee(lambda rate: True, **RATES)
    assert (always.low_per_s, always.high_per_s) == (1000.0, None)
    assert always.sentence == "held up to 1,000 /s, the knee lies above (8 trials)"
    assert not never.is_confirmed
    assert not always.is_confirmed


def test_a_trial_that_does_not_count_is_made_again():
    flaky = iter([None, True, True, None])
    knee = find_knee(lambda rate: next(flaky, rate <= 77.0), **RATES)
    assert knee.low_per_s <= 77.0 < knee.high_per_s
    assert knee.is_confirmed
    assert list(knee.table()["held"][:2].isna()) == [True, False]


def test_rates_that_cannot_be_offered_are_no_upper_end():
    knee = find_knee(lambda rate: True if rate < 300 else None, **RATES)
    assert knee.high_per_s is None
    assert 300 / 1.05 <= knee.low_per_s < 300
    assert not knee.is_confirmed
    assert "no trial at" in knee.sentence
    # Below what can be offered, the knee is still found.
    found = find_knee(lambda rate: rate <= 200 if rate < 300 else None, **RATES)
    assert found.low_per_s <= 200 < found.high_per_s
    assert find_knee(lambda rate: None, **RATES).sentence.startswith("no rate held")


def test_the_trials_are_bounded():
    knee = find_knee(lambda rate: rate <= 77.0, **RATES, most_trials=6)
    assert len(knee.attempts) == 6
    assert not knee.is_confirmed
    assert knee.low_per_s <= 77.0 < knee.high_per_s
    assert "stopped after the 6 trials allowed" in knee.sentence


@pytest.mark.parametrize(("wrong", "low", "high"), [(0.9, 64.0, 70.0), (1.1, 85.6, 90.5)])
def test_a_search_that_ends_while_it_looks_for_an_end_anew_keeps_what_it_knew(wrong, low, high):
    """Held at 16, 32, 64, 76, not at 128, 90, 83, 79: what the second look at 0.9 or 1.1 times 78 shows is no reason to
    say that nothing held below, or that all would hold above."""
    asked = []

    def holds(rate):
        asked.append(rate)
        is_second_look = len(asked) >= 9
        return (rate <= 77.0) != (is_second_look and (rate < 77.0) == (wrong < 1))

    rates = {"start_per_s": 16.0, "cap_per_s": 2000.0, "within": 0.09}
    knee = find_knee(holds, **rates, most_trials=9 if wrong < 1 else 10)
    assert (knee.low_per_s, knee.high_per_s) == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))
    assert not knee.is_confirmed
    assert knee.sentence.startswith("the knee lies between ")
    once = find_knee(lambda rate: True, **RATES, most_trials=1)
    assert (
        once.sentence == "held up to 10 /s, the knee lies above (1 trial); stopped after the 1 trial allowed"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_per_s": 0.0}, "must be positive"),
        ({"start_per_s": -1.0}, "must be positive"),
        ({"start_per_s": math.nan}, "must be positive"),
        ({"cap_per_s": 5.0}, "in this order"),
        ({"cap_per_s": math.inf}, "must be positive"),
        ({"floor_per_s": 20.0}, "in this order"),
        ({"within": 0.0}, "within=0"),
        ({"within": 0.2}, "within=0.2"),
        ({"most_trials": 0}, "at least one"),
    ],
)
def test_an_impossible_search_is_refused(changes, words):
    with pytest.raises(LabError, match=words):
        find_knee(lambda rate: True, **(RATES | changes))


def test_a_knee_shows_itself():
    knee = find_knee(lambda rate: Attempt(rate, rate <= 77.0, min(rate, 77.0)), **RATES)
    assert knee._repr_html_().startswith("<p class='knee'>the knee lies between ")
    assert list(knee.table().columns) == ["rate_per_s", "held", "goodput_per_s"]
    assert len(knee.table()) == len(knee.attempts)
