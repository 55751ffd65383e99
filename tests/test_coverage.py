"""Intervals and claims over thousands of simulated experiments: as often right as they say, also when stopped early."""

import math

import numpy as np
import pytest
from noisy_runs import NOISES, by_block, figures

from fuze_bench.lab.judgement.comparison import compare
from fuze_bench.lab.judgement.stats import enough, enough_after, ratio_within_blocks
from fuze_bench.lab.judgement.verdicts import Answer

EXPERIMENTS = 2000
MOST_BLOCKS = 30
PRECISION = 0.05
#: Standard deviations of a trial's figure with which 5 % need about 8, 13, 20 and more blocks than there are.
SDS = (0.02, 0.05, 0.065, 0.12)


def stopped(baseline, rival, precision=PRECISION):
    """The blocks that each experiment used, and whether it stopped early."""
    may_end = enough_after(np.log(rival / baseline), precision)
    early = may_end.any(axis=1)
    return np.where(early, may_end.argmax(axis=1) + 1, baseline.shape[1]), early


@pytest.mark.parametrize("sd", SDS)
@pytest.mark.parametrize("noise", NOISES)
def test_an_interval_covers_the_truth_in_93_to_97_of_100(noise, sd):
    truth = 1.23
    baseline, _, rival = figures(noise, sd, experiments=EXPERIMENTS, blocks=MOST_BLOCKS, ratio=truth, seed=11)
    used, early = stopped(baseline, rival)
    covered = 0
    for one, other, blocks, is_early in zip(baseline, rival, used, early, strict=True):
        ratio = ratio_within_blocks(
            by_block(other[:blocks]), by_block(one[:blocks]), stopped_early=bool(is_early)
        )
        covered += ratio.low <= truth <= ratio.high
        assert not is_early or ratio.high / ratio.mean - 1 <= PRECISION + 1e-9, "an end too soon"
    assert 0.93 <= covered / EXPERIMENTS <= 0.97, (covered / EXPERIMENTS, used.mean())


@pytest.mark.parametrize("sd", SDS)
@pytest.mark.parametrize("noise", ["normal", "drifting"])
def test_a_configuration_differs_from_itself_in_5_of_100(noise, sd):
    share, blocks = called_different_from_itself(noise, sd)
    assert 0.035 <= share <= 0.065, (share, blocks)


@pytest.mark.parametrize("noise", ["lognormal", "outlier"])
def test_nor_do_skewed_figures_or_outliers_make_a_difference(noise):
    share, blocks = called_different_from_itself(noise, 0.065)
    assert share <= 0.065, (share, blocks)


def called_different_from_itself(noise, sd):
    """The share of the experiments that call a configuration different from itself, and how many blocks they used."""
    baseline, copy, rival = figures(
        noise, sd, experiments=EXPERIMENTS, blocks=MOST_BLOCKS, ratio=1.0, seed=12
    )
    used, early = stopped(baseline, rival)
    called = 0
    for one, again, other, blocks, is_early in zip(baseline, copy, rival, used, early, strict=True):
        of_copy = by_block(again[:blocks])
        of_one, of_other = by_block(one[:blocks]), by_block(other[:blocks])
        found = compare("B", of_other, "A", of_one, copy_by_block=of_copy, stopped_early=bool(is_early))
        called += found.differs is Answer.YES
    return called / EXPERIMENTS, used.mean()


def test_a_difference_of_the_size_said_is_seen_four_times_in_five():
    blocks, sd = 10, 0.05
    # The logarithm of a ratio of two has a standard deviation of √2 sd.
    detectable = ratio_within_blocks(
        dict(enumerate(np.exp(sd * math.sqrt(2) * _unit_sd(blocks)))), dict.fromkeys(range(blocks), 1.0)
    ).detectable
    baseline, _, rival = figures(
        "lognormal", sd, experiments=EXPERIMENTS, blocks=blocks, ratio=detectable, seed=13
    )
    seen = sum(
        compare("B", by_block(b), "A", by_block(a)).differs is Answer.YES
        for a, b in zip(baseline, rival, strict=True)
    )
    assert seen / EXPERIMENTS == pytest.approx(0.80, abs=0.03)


def _unit_sd(n):
    values = np.arange(n, dtype=float)
    return (values - values.mean()) / values.std(ddof=1)


def test_a_run_ends_after_three_narrow_intervals_and_not_before_eight_blocks():
    alike = [0.1, 0.1001] * 6
    assert [enough(alike[:n], 0.05) for n in range(13)] == [False] * 8 + [True] * 5
    # One wild block makes the interval wide again, and the count starts anew.
    wild = [*alike[:7], 2.0, *alike]
    assert not any(enough(wild[:n], 0.05) for n in range(len(wild)))


@pytest.mark.parametrize("precision", [0, 1, -0.1, math.nan])
def test_a_precision_is_a_share(precision):
    with pytest.raises(ValueError, match="between 0 and 1"):
        enough([0.0] * 9, precision)
