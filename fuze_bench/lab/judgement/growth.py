"""Whether something grew during a trial, such as a queue: a straight line through six stretches of time; pure.

Depths of one queue, second after second, hang together: an interval over them as if each were a sample of its own is
far too narrow, and finds growth in every queue. The means of long stretches hang together much less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from fuze_bench.lab.judgement.stats import LEVEL, SAMPLES_BEYOND
from fuze_bench.lab.judgement.tables import cell

STRETCHES = 6
#: A queue that gained less than this over the whole window has not grown, however steadily.
_LEAST_GAIN_JOBS = 1.0


@dataclass(frozen=True)
class Line:
    """The straight line through the stretches' means: its value at time 0, its slope per second, and the slope's
    bounds at LEVEL. `mean` is that of the stretches, `window_s` the time they cover."""

    at_0: float
    slope: float
    low: float
    high: float
    mean: float
    window_s: float


def line_through_stretches(times_s: Sequence[float], values: Sequence[float]) -> Line | None:
    """Least squares through the means of STRETCHES stretches of equal length, with Student's t for the slope.

    None with fewer than 10 samples, or where a stretch has none. Of simulated M/M/1 and M/M/4 queues that start empty,
    over windows of 30 to 120 s: at 50 to 80 % utilisation 0 to 10 of 100 were called growing, at 90 % 8 to 20, at
    110 % 54 to 93, at 130 % 92 to 100 (tests/test_growth.py holds a part of this).
    """
    times, sizes = np.asarray(times_s, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(times) < SAMPLES_BEYOND or times.max() <= times.min():
        return None
    edges = np.linspace(times.min(), times.max(), STRETCHES + 1)
    stretch = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, STRETCHES - 1)
    samples = np.bincount(stretch, minlength=STRETCHES)
    if samples.min() < 1:
        return None
    x = np.bincount(stretch, times, STRETCHES) / samples
    y = np.bincount(stretch, sizes, STRETCHES) / samples
    from_centre = x - x.mean()
    squares = float((from_centre**2).sum())
    slope = float((from_centre * (y - y.mean())).sum()) / squares
    rest = y - y.mean() - slope * from_centre
    freedom = STRETCHES - 2
    error = math.sqrt(float((rest**2).sum()) / freedom / squares)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    window_s = float(times.max() - times.min())
    mean = float(y.mean())
    return Line(mean - slope * float(x.mean()), slope, slope - half, slope + half, mean, window_s)


@dataclass(frozen=True)
class Growth:
    """How the depth of one queue went over a window: `line` is in jobs and jobs per second."""

    queue: str
    line: Line

    @property
    def grows(self) -> bool:
        """Whether the slope's interval lies above 0, and the line gained a job or more."""
        return self.line.low > 0 and self.line.slope * self.line.window_s >= _LEAST_GAIN_JOBS

    def broken_after_s(self, target_wait_s: float, done_per_s: float) -> float | None:
        """Seconds from the window's start until a job that comes in waits longer than the target; None if never.

        It waits until those before it are done: depth over what the workers finish a second.
        """
        if not self.grows:
            return None
        return max(0.0, (target_wait_s * done_per_s - self.line.at_0) / self.line.slope)

    def in_words(self, target_wait_s: float | None = None, done_per_s: float | None = None) -> str:
        """How fast it grows and when that breaks the target, or that no growth was seen; never a quantile."""
        bounds = f"{LEVEL:.0%}".replace("%", " %")
        interval = f"({bounds} {cell(self.line.low)} to {cell(self.line.high)})"
        if not self.grows:
            return f"{self.queue}: no growth seen, {cell(self.line.slope)} jobs per second {interval}"
        grows = f"{self.queue} grows by {cell(self.line.slope)} jobs per second {interval}"
        if target_wait_s is None or done_per_s is None:
            return grows
        after_s = self.broken_after_s(target_wait_s, done_per_s)
        return f"{grows}: the target of {cell(target_wait_s)} s is broken after {cell(after_s)} s"


def growth_of(queue: str, times_s: Sequence[float], depths: Sequence[float]) -> Growth | None:
    """The growth of a queue's depth (jobs) over a window; None where there are too few samples to tell."""
    line = line_through_stretches(times_s, depths)
    return None if line is None else Growth(queue, line)
