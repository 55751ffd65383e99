"""Statistics over recorded runs: quantiles, spreads, ratios within blocks, and when there are enough blocks; pure.

A trial gives one figure, and figures are compared within their block. The requests of a trial are never the sample
of an interval: they share their trial's machine, page cache and minute, and ten thousand of them are still one trial.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtrinc, stdtrit

#: A quantile with fewer samples than this beyond it is not stated.
SAMPLES_BEYOND = 10
#: With fewer blocks than this an interval is shown and the result called exploratory.
BLOCKS_TO_CONCLUDE = 6
LEVEL = 0.95
#: An interval whose own width ended the run is taken at this level, and then covers LEVEL: see `enough_after`.
LEVEL_STOPPED_EARLY = 0.955
#: So many intervals one after another must have been narrow enough to end a run.
NARROW_IN_A_ROW = 3
#: The chance to see a difference of the size that a run is said to be able to see.
POWER = 0.80


def nearest_rank(values: Sequence[float], q: float) -> float | None:
    """The one convention for quantiles here: the smallest sample that at least the share `q` of all samples does not
    exceed (inverse of the empirical distribution; type 1 of Hyndman and Fan 1996). A value that was seen, never one
    in between; p100 is the maximum.

    None where the shorter tail has room for less than one sample, so that p99 needs 100 samples: of fewer, every
    p99 would be the maximum under another name. The median and the maximum of any sample are what they are. This is
    the bare convention: what is printed comes from `quantile`, which asks for more.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q={q}: a quantile lies between 0 and 1")
    # Rounded, so that 1 % of 100 samples is one.
    room = round(min(q, 1 - q) * len(values), 9)
    if not values or (q not in (0.5, 1) and room < 1):
        return None
    return sorted(values)[_rank(len(values), q) - 1]


def quantile(values: Sequence[float], q: float) -> float | None:
    """The quantile by `nearest_rank` as it may be stated: None, shown as «too few», where fewer than SAMPLES_BEYOND
    samples lie beyond it on the shorter side. So p95 needs 200 samples and p99 needs 1,000."""
    if not 0 < q < 1:
        raise ValueError(f"q={q}: a quantile lies between 0 and 1")
    rank = _rank(len(values), q)
    if min(len(values) - rank, rank - 1 if q < 0.5 else math.inf) < SAMPLES_BEYOND:
        return None
    return nearest_rank(values, q)


def samples_needed(q: float) -> int:
    """How many samples `quantile` wants before it states this one."""
    return math.ceil(round(SAMPLES_BEYOND / min(q, 1 - q), 9))


def _rank(samples: int, q: float) -> int:
    # Rounded, so that 0.55 times 100 samples is rank 55 and not 56.
    return max(1, math.ceil(round(q * samples, 9)))


@dataclass(frozen=True)
class Spread:
    """A figure's repeats: their median, lowest, highest, and how many there were."""

    median: float
    lowest: float
    highest: float
    repeats: int


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None where there is no value."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def mean_interval(
    values: Sequence[float], *, stopped_early: bool = False
) -> tuple[float, float] | tuple[None, None]:
    """Student's t interval of the mean at LEVEL, over values of one block each; None with fewer than two.

    `stopped_early` as for `ratio_within_blocks`.
    """
    if len(values) < 2:
        return None, None
    level = LEVEL_STOPPED_EARLY if stopped_early else LEVEL
    half = _t(len(values) - 1, level) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's figure: geometric mean over the blocks, and its interval.

    `low` and `high` bound it at LEVEL; None with a single block, which has no spread. `log_sd` is the standard
    deviation of the logarithms over the blocks.
    """

    mean: float
    low: float | None
    high: float | None
    blocks: int
    log_sd: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1, that is: whether these blocks tell the two apart."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    @property
    def is_exploratory(self) -> bool:
        return self.blocks < BLOCKS_TO_CONCLUDE

    @property
    def detectable(self) -> float | None:
        """The smallest ratio above 1 that so many blocks of this spread tell from 1 with the chance POWER.

        The effect at which Student's t, non-central, exceeds its critical value with that chance (Cohen 1988,
        «Statistical power analysis», 2.3; solved, not looked up). Its inverse is the largest ratio below 1.
        """
        if self.log_sd is None:
            return None
        shift = float(nctdtrinc(self.blocks - 1, 1 - POWER, _t(self.blocks - 1, LEVEL)))
        return math.exp(shift * self.log_sd / math.sqrt(self.blocks))


def log_ratios(by_block: Mapping[int, float], baseline_by_block: Mapping[int, float]) -> list[float]:
    """Logarithms of the ratios to the baseline, in the order of the blocks that have both.

    A block where either figure is zero, negative or not finite has no ratio.
    """
    return [
        math.log(value / baseline_by_block[block])
        for block, value in sorted(by_block.items())
        if block in baseline_by_block and _has_logarithm(value) and _has_logarithm(baseline_by_block[block])
    ]


def _has_logarithm(value: float) -> bool:
    return 0 < value < math.inf


def ratio_within_blocks(
    by_block: Mapping[int, float], baseline_by_block: Mapping[int, float], *, stopped_early: bool = False
) -> Ratio | None:
    """Ratio to the baseline over the blocks that have both, or None if there is none.

    Student's t interval on the logarithms of the ratios: mean ± t(0.975, n-1) · s / √n, then exponentiated. What a
    slow minute does to both of a block cancels. `stopped_early`: the run ended because `enough` said so; its
    interval is then slightly wider, to cover LEVEL all the same. The noise floor of a run is this ratio of the
    baseline's second copy to its first.
    """
    logs = log_ratios(by_block, baseline_by_block)
    if not logs:
        return None
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(mean), None, None, 1)
    log_sd = float(np.std(logs, ddof=1))
    level = LEVEL_STOPPED_EARLY if stopped_early else LEVEL
    half = _t(len(logs) - 1, level) * log_sd / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs), log_sd)


def enough(logs: Sequence[float], precision: float) -> bool:
    """Whether a run may end after these blocks, given as `log_ratios`: see `enough_after`."""
    return bool(len(logs)) and bool(enough_after(logs, precision)[-1])


def enough_after(logs: ArrayLike, precision: float) -> NDArray[np.bool_]:
    """For every number of blocks along the last axis, whether a run that looks after each block may end there.

    It may, when the interval's relative half width (its upper end over the mean, less 1) was at most `precision`
    after each of the last NARROW_IN_A_ROW blocks, looking from BLOCKS_TO_CONCLUDE on, at LEVEL_STOPPED_EARLY.

    To end on the first narrow interval favours samples whose spread came out too small: plain 95 % intervals then
    cover less than 93 % at worst. With this rule they cover 93 to 97 %, whatever the noise, and something against
    itself is called different as often as it should be: tests/test_coverage.py holds that over seeded experiments.
    """
    if not 0 < precision < 1:
        raise ValueError(f"precision={precision}: a relative half width lies between 0 and 1, such as 0.05")
    narrow = np.expm1(_half_widths(logs, LEVEL_STOPPED_EARLY)) <= precision
    narrow[..., : BLOCKS_TO_CONCLUDE - 1] = False
    result = narrow.copy()
    for back in range(1, NARROW_IN_A_ROW):
        result[..., back:] &= narrow[..., :-back]
    return result


def _half_widths(logs: ArrayLike, level: float) -> NDArray[np.float64]:
    """Half widths of the t interval of the mean over the first 1, 2, … values along the last axis; the first is NaN."""
    values = np.asarray(logs, dtype=np.float64)
    # About their own mean, the squares of nearly equal values do not cancel.
    values = values - values.mean(axis=-1, keepdims=True)
    n = np.arange(1, values.shape[-1] + 1)
    mean = values.cumsum(axis=-1) / n
    squares = np.maximum((values**2).cumsum(axis=-1) - n * mean**2, 0)
    freedom = np.maximum(n - 1, 1)
    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(squares / freedom / n)
    return np.asarray(np.where(n > 1, half, np.nan))


def _t(freedom: int, level: float) -> float:
    """The critical value of a two-sided interval. scipy.stats has it, too, and takes seconds to import."""
    return float(stdtrit(freedom, (1 + level) / 2))
