"""How sure figures are that were computed from several blocks: intervals by resampling whole blocks; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fuze_bench.lab.queueing.replay import Floats

Block = TypeVar("Block")
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; `low` and `high` are None with one block, which has no spread.

    `high` is infinite where a resample has no such figure, because its queue would grow.
    """

    value: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def upper(self) -> float:
        """What it should not be believed to be below: `high`, or the figure itself where there is no interval."""
        return self.value if self.high is None else self.high


def block_estimates(
    statistic: Callable[[Sequence[Block]], Sequence[float]],
    blocks: Sequence[Block],
    *,
    values: Sequence[float] | None = None,
    resamples: int = 60,
    seed: int = 1,
) -> list[Estimate]:
    """Estimate the figures that `statistic` computes from blocks, each with an interval at LEVEL.

    What differs between blocks (a slow minute, a busy machine) is what makes a figure unsure. Jobs within a block
    share it, so whole blocks are drawn, with replacement, and never single jobs. The interval is ± t(0.975, n − 1)
    standard errors, the standard deviation over the resamples times √(n / (n − 1)), since resampling n blocks shows too
    little of it by that factor; on logarithms where all resamples are above 0. Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, chapters 6 and 12; Hesterberg 2015, The American Statistician 69, sections 3 and 4.

    `values`: the figures of all blocks, where the caller knows them better. A statistic may give infinity.
    """
    count = len(blocks)
    figures = list(statistic(blocks)) if values is None else list(values)
    if count < 2:
        return [Estimate(figure, None, None, count) for figure in figures]
    rng = np.random.default_rng(seed)
    drawn = [
        statistic([blocks[number] for number in rng.integers(count, size=count)]) for _ in range(resamples)
    ]
    return [
        _around(figure, np.array([each[position] for each in drawn]), count)
        for position, figure in enumerate(figures)
    ]


def _around(figure: float, resampled: Floats, blocks: int) -> Estimate:
    finite = resampled[np.isfinite(resampled)]
    if not math.isfinite(figure) or len(finite) < 2:
        return Estimate(figure, None, None, blocks)
    widths = _t(blocks) * math.sqrt(blocks / (blocks - 1))
    if figure > 0 and finite.min() > 0:
        factor = math.exp(widths * float(np.log(finite).std(ddof=1)))
        low, high = figure / factor, figure * factor
    else:
        half = widths * float(finite.std(ddof=1))
        low, high = max(0.0, figure - half), figure + half
    return Estimate(figure, low, high if len(finite) == len(resampled) else math.inf, blocks)


def _t(blocks: int) -> float:
    # scipy.stats has it, too, and takes seconds to import.
    from scipy.special import stdtrit

    return float(stdtrit(blocks - 1, (1 + LEVEL) / 2))
