"""Intervals by resampling blocks hold what they promise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from fuze_bench.lab.judgement.block_resampling import Estimate, block_estimates


def mean_and_highest(blocks: Sequence[np.ndarray]) -> list[float]:
    return [sum(float(block.sum()) for block in blocks) / sum(map(len, blocks)), max(map(max, blocks))]


def mean_of_means(blocks: Sequence[float]) -> list[float]:
    return [sum(blocks) / len(blocks)]


def test_the_interval_holds_the_truth() -> None:
    """Six blocks whose level differs: 95 % intervals hold the true mean in 93 to 98 of 100 experiments."""
    rng = np.random.default_rng(11)
    experiments, held, of_jobs = 1000, 0, 0
    for number in range(experiments):
        blocks = [10 * rng.lognormal(-0.02, 0.2) * rng.gamma(4, 0.25, 50) for _ in range(6)]
        (found,) = block_estimates(mean_of_means, [float(block.mean()) for block in blocks], seed=number)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 10 <= found.high
        pooled = np.concatenate(blocks)
        of_jobs += abs(pooled.mean() - 10) <= 1.96 * pooled.std() / math.sqrt(len(pooled))
    assert 930 <= held <= 980
    # Resampling jobs instead would hold far less often than it says.
    assert of_jobs < 600


def test_one_block_has_no_interval() -> None:
    found = block_estimates(mean_and_highest, [np.arange(10.0)])
    assert found[0] == Estimate(4.5, None, None, 1)
    assert found[0].upper == 4.5


def test_the_same_seed_gives_the_same_interval() -> None:
    blocks = [np.arange(10.0) + shift for shift in range(4)]
    assert block_estimates(mean_and_highest, blocks, seed=3) == block_estimates(
        mean_and_highest, blocks, seed=3
    )
    assert block_estimates(mean_and_highest, blocks, seed=3) != block_estimates(
        mean_and_highest, blocks, seed=4
    )


def test_a_resample_without_a_figure_leaves_the_top_open() -> None:
    def share(blocks: Sequence[float]) -> list[float]:
        mean = sum(blocks) / len(blocks)
        return [1 / (1 - mean) if mean < 1 else math.inf]

    (found,) = block_estimates(share, [0.5, 0.7, 0.9, 1.2])
    assert found.high == math.inf
    assert found.low is not None
    assert found.low < found.value < math.inf


def test_zeros_do_not_break_it() -> None:
    (found,) = block_estimates(lambda blocks: [sum(blocks)], [0.0, 0.0, 0.0, 1.0])
    assert (found.value, found.low) == (1, 0)
    assert found.high is not None
    assert found.high > 1


def test_the_callers_own_figure_is_kept() -> None:
    (found,) = block_estimates(lambda blocks: [sum(blocks)], [1.0, 2.0], values=[7.0])
    assert found.value == pytest.approx(7)
