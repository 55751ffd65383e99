"""How sure a figure is that was computed from several blocks: an interval by resampling whole blocks; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Block = TypeVar("Block")
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; `low` and `high` are None with one block, which has no spread.

    `high` is infinite where resamples within the interval have no such figure, because their queue would grow.
    """

    value: float
    low: float | None
    high: float | None
    blocks: int


def block_interval(
    statistic: Callable[[Sequence[Block], np.random.Generator], float],
    blocks: Sequence[Block],
    *,
    value: float,
    resamples: int = 100,
    seed: int = 1,
) -> Estimate:
    """The interval of `value` = the statistic of all blocks, from resamples that draw whole blocks with replacement.

    What differs between blocks (a slow minute, a busy machine) is what makes a figure unsure; jobs within a block
    share it, so that single jobs are never resampled. The interval is the expanded percentile interval, whose
    percentiles are widened for the number of blocks: Φ(±√(n / (n−1)) t(0.975, n−1)). Hesterberg 2015, «What teachers
    should know about the bootstrap», The American Statistician 69, section 3.3. A statistic may be infinite.
    """
    count = len(blocks)
    if count < 2:
        return Estimate(value, None, None, count)
    rng = np.random.default_rng(seed)
    found = sorted(
        statistic([blocks[number] for number in rng.integers(count, size=count)], rng)
        for _ in range(resamples)
    )
    tail = _expanded_tail(count)
    below = min(resamples - 1, math.floor(tail * resamples))
    low, high = found[below], found[resamples - 1 - below]
    return Estimate(value, min(low, value), max(high, value), count)


def _expanded_tail(blocks: int) -> float:
    # scipy.stats has these, too, and takes seconds to import.
    from scipy.special import ndtr, stdtrit

    t = float(stdtrit(blocks - 1, (1 + LEVEL) / 2))
    return float(ndtr(-math.sqrt(blocks / (blocks - 1)) * t))
