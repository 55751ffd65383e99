"""The universal scalability law: throughput against the number of workers, fitted where it can be; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fuze_bench.errors import LabError
from fuze_bench.lab.queueing.replay import Floats

#: With fewer different counts, three parameters follow the noise.
COUNTS_TO_FIT = 6
#: A peak further out than so many times the largest count measured is not claimed.
FURTHEST_PEAK = 1.5


@dataclass(frozen=True)
class ScalabilityLaw:
    """X(n) = γ n / (1 + α (n − 1) + β n (n − 1)): throughput (jobs/s) of n workers."""

    gamma_per_s: float
    """Throughput of one worker, jobs/s."""
    alpha: float
    """Contention: the share of the work for which the workers wait for one another."""
    beta: float
    """Coherency: what every pair of workers costs."""
    largest_count: int
    """The largest count measured."""
    peak: float | None
    """The number of workers with the highest throughput; None where none may be claimed."""
    why_no_peak: str | None

    def throughput_per_s(self, workers: float) -> float:
        """Throughput of so many workers by the law."""
        n = workers
        return self.gamma_per_s * n / (1 + self.alpha * (n - 1) + self.beta * n * (n - 1))


@dataclass(frozen=True)
class NotIdentifiable:
    """No law: why the measurements do not determine one."""

    reason: str

    def __str__(self) -> str:
        return f"not identifiable: {self.reason}"


def fit_scalability(
    workers: Sequence[float], throughput_per_s: Sequence[float]
) -> ScalabilityLaw | NotIdentifiable:
    """Fit the law by least squares with α, β ≥ 0; one throughput (jobs/s) for each number of workers measured.

    A count may occur more than once (repeats). Gunther 2007, Guerrilla Capacity Planning, chapters 4 and 5; the peak
    is √((1 − α) / β), his equation 4.33. Raises LabError for counts below 1, throughputs that are not above 0, or
    different numbers of both.
    """
    counts, rates = np.asarray(workers, dtype=np.float64), np.asarray(throughput_per_s, dtype=np.float64)
    _check(counts, rates)
    different = len(np.unique(counts))
    if different < COUNTS_TO_FIT:
        return NotIdentifiable(
            f"{different} worker count{'' if different == 1 else 's'} measured, {COUNTS_TO_FIT} are needed"
        )
    gamma, alpha, beta = _least_squares(counts, rates)
    largest = int(counts.max())
    peak = math.sqrt((1 - alpha) / beta) if beta > 0 and alpha < 1 else math.inf
    why = None
    if peak > FURTHEST_PEAK * largest:
        peak_text = "there is none" if math.isinf(peak) else "the law puts it further out"
        why = f"no peak up to {FURTHEST_PEAK:g} times {largest}, the largest count measured: {peak_text}"
    return ScalabilityLaw(gamma, alpha, beta, largest, None if why else peak, why)


def _check(counts: Floats, rates: Floats) -> None:
    if counts.shape != rates.shape or counts.ndim != 1:
        raise LabError(f"{counts.size} worker counts and {rates.size} throughputs: give one for each")
    if counts.size and not (np.isfinite(counts).all() and counts.min() >= 1):
        raise LabError(f"workers holds {counts.min():g}: a worker count is 1 or more")
    if rates.size and not (np.isfinite(rates).all() and rates.min() > 0):
        raise LabError(f"throughput_per_s holds {rates.min():g}: leave out trials that processed nothing")


def _least_squares(counts: Floats, rates: Floats) -> tuple[float, float, float]:
    from scipy.optimize import least_squares, nnls

    # n / X is linear in 1/γ, α/γ and β/γ: a start from which the least squares of X itself are found.
    linear = np.column_stack([np.ones_like(counts), counts - 1, counts * (counts - 1)])
    (inverse, contention, coherency), _ = nnls(linear, counts / rates)
    inverse = max(inverse, float((counts / rates).min()) / 10)
    begin = np.array([1 / inverse, contention / inverse, coherency / inverse])
    scale = np.array([1 / inverse, 1e-2, 1e-4])

    def residuals(parameters: Floats) -> Floats:
        gamma, alpha, beta = parameters
        found: Floats = gamma * counts / (1 + alpha * (counts - 1) + beta * counts * (counts - 1)) - rates
        return found

    found = least_squares(
        residuals, begin, bounds=([0, 0, 0], math.inf), x_scale=scale, xtol=1e-12, ftol=1e-12
    )
    gamma, alpha, beta = found.x
    # The search only nears its bounds.
    return float(gamma), float(alpha) if alpha > 1e-9 else 0.0, float(beta) if beta > 1e-9 else 0.0
