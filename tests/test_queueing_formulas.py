"""The textbook formulas give the textbooks' figures."""

from __future__ import annotations

import math

import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.queueing.formulas import (
    allen_cunneen_mean_wait_s,
    cobham_mg1_mean_waits_s,
    cobham_mmc_mean_waits_s,
    erlang_b,
    erlang_c,
    littles_jobs,
    mmc_mean_wait_s,
    mmc_wait_quantile_s,
)


@pytest.mark.parametrize(
    ("servers", "load", "blocked"),
    # From tables of the Erlang B formula: offered traffic at 1 % loss.
    [
        (1, 0.0101, 0.01),
        (2, 0.153, 0.01),
        (5, 1.36, 0.01),
        (10, 4.46, 0.01),
        (20, 12.03, 0.01),
        (100, 84.1, 0.01),
    ],
)
def test_erlang_b_table(servers: int, load: float, blocked: float) -> None:
    assert erlang_b(servers, load) == pytest.approx(blocked, rel=0.01)


def test_erlang_c_of_a_call_centre() -> None:
    """A much used worked example: 200 calls an hour of 3 minutes, 14 agents: 17.4 % wait, 88.8 % within 20 s, 7.8 s."""
    rate = 200 / 3600
    assert erlang_c(14, rate * 180) == pytest.approx(0.1741, abs=5e-5)
    assert mmc_mean_wait_s(rate, 180, 14) == pytest.approx(7.8, abs=0.05)
    assert mmc_wait_quantile_s(0.888, rate, 180, 14) == pytest.approx(20, rel=0.01)


def test_three_doctors() -> None:
    """Gross, Shortle, Thompson, Harris, 4th ed., example 2.2: 6 patients an hour, 20 minutes each, three doctors.

    8/9 of a patient waits on average, for 4/27 of an hour.
    """
    wait_h = mmc_mean_wait_s(6, 1 / 3, 3)
    assert erlang_c(3, 2) == pytest.approx(4 / 9)
    assert wait_h == pytest.approx(4 / 27)
    assert littles_jobs(6, wait_h) == pytest.approx(8 / 9)


def test_one_server_has_the_elementary_formulas() -> None:
    assert erlang_c(1, 0.8) == pytest.approx(0.8)
    assert mmc_mean_wait_s(0.8, 1, 1) == pytest.approx(4)
    # P(W > t) = ρ exp(−(μ − λ) t), inverted by hand.
    assert mmc_wait_quantile_s(0.95, 0.8, 1, 1) == pytest.approx(math.log(16) / 0.2)


def test_a_quantile_is_zero_where_nearly_nobody_waits() -> None:
    assert mmc_wait_quantile_s(0.95, 0.04, 1, 1) == 0


def test_many_servers_do_not_overflow() -> None:
    assert 0 < erlang_c(2000, 1950) < 1


def test_priorities_of_a_hospital() -> None:
    """Hillier and Lieberman, County Hospital: 0.2, 0.6 and 1.2 patients an hour, 3 an hour and doctor.

    Waits in hours, printed to three digits: two doctors 0.029, 0.033, 0.048; one doctor 0.238 and 0.325.
    """
    rates = [0.2, 0.6, 1.2]
    assert cobham_mmc_mean_waits_s(rates, 1 / 3, 2) == pytest.approx((0.029, 0.033, 0.048), abs=5e-4)
    assert cobham_mmc_mean_waits_s(rates, 1 / 3, 1)[:2] == pytest.approx((0.238, 0.325), abs=5e-4)


def test_priorities_only_move_waits_around() -> None:
    """Kleinrock's conservation law: Σ ρ_i W_i is what it is without priorities."""
    rates, mean_s, servers = [0.5, 1.0, 0.9], 1.0, 3
    waits = cobham_mmc_mean_waits_s(rates, mean_s, servers)
    without = mmc_mean_wait_s(sum(rates), mean_s, servers)
    assert sum(r * w for r, w in zip(rates, waits, strict=True)) == pytest.approx(sum(rates) * without)
    single = cobham_mg1_mean_waits_s([0.2, 0.3], [1.0, 1.0], [1.0, 1.0])
    assert single == pytest.approx(cobham_mmc_mean_waits_s([0.2, 0.3], 1.0, 1))


def test_pollaczek_and_khinchine() -> None:
    """M/D/1 waits half as long as M/M/1 (any textbook); Allen–Cunneen is exact there."""
    assert cobham_mg1_mean_waits_s([0.8], [1.0], [0.0]) == pytest.approx((2.0,))
    assert allen_cunneen_mean_wait_s(0.8, 1, 1, arrival_scv=1, service_scv=0) == pytest.approx(2.0)
    assert allen_cunneen_mean_wait_s(0.8, 1, 1, arrival_scv=1, service_scv=3) == pytest.approx(8.0)
    assert allen_cunneen_mean_wait_s(6, 1 / 3, 3, arrival_scv=1, service_scv=1) == pytest.approx(4 / 27)


@pytest.mark.parametrize("rate", [1.0, 1.2])
def test_a_queue_that_grows_has_no_wait(rate: float) -> None:
    for call in (
        lambda: mmc_mean_wait_s(rate, 1, 1),
        lambda: mmc_wait_quantile_s(0.95, rate, 1, 1),
        lambda: cobham_mmc_mean_waits_s([rate / 2, rate / 2], 1, 1),
        lambda: cobham_mg1_mean_waits_s([rate], [1], [1]),
        lambda: allen_cunneen_mean_wait_s(rate, 1, 1, arrival_scv=1, service_scv=1),
    ):
        with pytest.raises(LabError, match="the queue grows"):
            call()


def test_what_cannot_be_is_refused() -> None:
    for call, words in (
        (lambda: erlang_c(0, 1), "servers=0"),
        (lambda: erlang_b(2, -1), "load=-1"),
        (lambda: mmc_mean_wait_s(1, 0, 2), "mean_service_s=0"),
        (lambda: mmc_mean_wait_s(math.nan, 1, 2), "rate_per_s=nan"),
        (lambda: mmc_wait_quantile_s(1.5, 1, 0.1, 2), "q=1.5"),
        (lambda: allen_cunneen_mean_wait_s(1, 0.1, 1, arrival_scv=-1, service_scv=1), "arrival_scv=-1"),
        (lambda: littles_jobs(-1, 1), "rate_per_s=-1"),
    ):
        with pytest.raises(LabError, match=words):
            call()
