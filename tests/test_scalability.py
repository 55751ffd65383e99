"""The universal scalability law is fitted only where it can be, and gives published coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.queueing.scalability import NotIdentifiable, ScalabilityLaw, fit_scalability

#: SPEC SDM91 on a SPARCcenter 2000: scripts at once, scripts an hour (the R package `usl` ships it as specsdm91).
SDM91 = ([1, 18, 36, 72, 108, 144, 216], [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2])


def law(workers: list[int], gamma: float, alpha: float, beta: float) -> np.ndarray:
    n = np.array(workers, dtype=float)
    return gamma * n / (1 + alpha * (n - 1) + beta * n * (n - 1))


def test_published_coefficients() -> None:
    """As `usl` 3 prints them: alpha 0.0277285, beta 0.0001044, gamma 89.9952330, peak at 96.5."""
    found = fit_scalability(*SDM91)
    assert isinstance(found, ScalabilityLaw)
    assert found.alpha == pytest.approx(0.0277285, abs=1e-6)
    assert found.beta == pytest.approx(0.0001044, abs=1e-7)
    assert found.gamma_per_s == pytest.approx(89.995233, abs=1e-3)
    assert found.peak == pytest.approx(96.5, abs=0.1)
    assert found.throughput_per_s(1) == pytest.approx(found.gamma_per_s)


def test_it_is_found_again_under_noise() -> None:
    counts = [1, 2, 3, 4, 6, 8, 12, 16] * 3
    noise = np.random.default_rng(7).lognormal(0, 0.01, len(counts))
    found = fit_scalability(counts, list(law(counts, 10, 0.05, 0.01) * noise))
    assert isinstance(found, ScalabilityLaw)
    assert found.peak == pytest.approx(np.sqrt(0.95 / 0.01), rel=0.05)


def test_five_counts_are_not_identifiable_however_often_repeated() -> None:
    counts = [1, 2, 3, 4, 6] * 10
    found = fit_scalability(counts, list(law(counts, 10, 0.05, 0.01)))
    assert isinstance(found, NotIdentifiable)
    assert str(found) == "not identifiable: 5 worker counts measured, 6 are needed"


@pytest.mark.parametrize(("beta", "is_claimed"), [(0.95 / 11.9**2, True), (0.95 / 12.1**2, False)])
def test_no_peak_beyond_one_and_a_half_times_the_largest_count(beta: float, is_claimed: bool) -> None:
    counts = [1, 2, 3, 4, 6, 8]
    found = fit_scalability(counts, list(law(counts, 10, 0.05, beta)))
    assert isinstance(found, ScalabilityLaw)
    assert (found.peak is not None) == is_claimed
    assert (found.why_no_peak is None) == is_claimed


def test_linear_throughput_has_no_peak() -> None:
    counts = [1, 2, 3, 4, 6, 8]
    found = fit_scalability(counts, [10.0 * n for n in counts])
    assert isinstance(found, ScalabilityLaw)
    assert (found.alpha, found.beta, found.peak) == (0, 0, None)
    assert found.why_no_peak == "no peak up to 1.5 times 8, the largest count measured: there is none"


@pytest.mark.parametrize(
    ("workers", "rates", "words"),
    [
        ([1, 2], [1.0], "2 worker counts and 1 throughputs"),
        ([0, 1], [1, 1], "holds 0"),
        ([1, 2], [1, 0], "holds 0"),
    ],
)
def test_what_cannot_be_is_refused(workers: list[float], rates: list[float], words: str) -> None:
    with pytest.raises(LabError, match=words):
        fit_scalability(workers, rates)
