"""Textbook queueing formulas: what the replay is checked against, and quick answers in closed form; pure.

Rates are jobs a second, times are seconds, `servers` is the number of workers. `load` is the mean number of busy
servers, rate × mean service time, in erlangs; load / servers is the utilisation. A queue that grows has no waits to
state: every function that gives one raises LabError then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fuze_bench.errors import LabError


def littles_jobs(rate_per_s: float, mean_time_s: float) -> float:
    """The mean number of jobs inside, L = λ W: in the queue for a wait, in the system for wait and service.

    Little 1961, «A proof for the queuing formula L = λW», Operations Research 9.
    """
    _check_not_negative(rate_per_s=rate_per_s, mean_time_s=mean_time_s)
    return rate_per_s * mean_time_s


def erlang_b(servers: int, load: float) -> float:
    """The share of arrivals that find all servers busy where nobody waits (M/G/c/c).

    By the recursion B(0) = 1, B(k) = a B(k−1) / (k + a B(k−1)), which neither overflows nor cancels. Erlang 1917;
    Gross, Shortle, Thompson, Harris, Fundamentals of Queueing Theory, 4th ed., section 2.5.
    """
    _check_servers(servers)
    _check_not_negative(load=load)
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """The share of jobs that have to wait in an M/M/c queue.

    C = c B / (c − a (1 − B)) with B of `erlang_b`. Gross et al., section 2.3.
    """
    _check_stable(load / _check_servers(servers))
    blocked = erlang_b(servers, load)
    return servers * blocked / (servers - load * (1 - blocked))


def mmc_mean_wait_s(rate_per_s: float, mean_service_s: float, servers: int) -> float:
    """The mean wait, over all jobs, of an M/M/c queue served in order of arrival: C / (c μ − λ). Gross et al., 2.3."""
    _check_load(rate_per_s, mean_service_s)
    waiting = erlang_c(servers, rate_per_s * mean_service_s)
    return waiting / (servers / mean_service_s - rate_per_s)


def mmc_wait_quantile_s(q: float, rate_per_s: float, mean_service_s: float, servers: int) -> float:
    """The wait that the share `q` of an M/M/c queue's jobs does not exceed, served in order of arrival.

    P(wait > t) = C exp(−(c μ − λ) t), hence ln(C / (1 − q)) / (c μ − λ), and 0 where fewer than 1 − q have to wait.
    Gross et al., 2.3.
    """
    if not 0 < q < 1:
        raise LabError(f"q={q!r}: a quantile lies between 0 and 1")
    _check_load(rate_per_s, mean_service_s)
    waiting = erlang_c(servers, rate_per_s * mean_service_s)
    if waiting <= 1 - q:
        return 0.0
    return math.log(waiting / (1 - q)) / (servers / mean_service_s - rate_per_s)


def allen_cunneen_mean_wait_s(
    rate_per_s: float, mean_service_s: float, servers: int, *, arrival_scv: float, service_scv: float
) -> float:
    """About the mean wait of a G/G/c queue: that of M/M/c times (c_a² + c_s²) / 2.

    `arrival_scv`, `service_scv`: squared coefficients of variation of the gaps and of the service times (variance over
    mean squared: 0 constant, 1 exponential). Exact for M/M/c and M/G/1, best where the queue is busy. Allen 1990,
    Probability, Statistics, and Queueing Theory, 2nd ed., section 5.4; Bolch et al. 2006, Queueing Networks and Markov
    Chains, 2nd ed., section 6.3.
    """
    _check_not_negative(arrival_scv=arrival_scv, service_scv=service_scv)
    return mmc_mean_wait_s(rate_per_s, mean_service_s, servers) * (arrival_scv + service_scv) / 2


def cobham_mmc_mean_waits_s(
    rates_per_s: Sequence[float], mean_service_s: float, servers: int
) -> tuple[float, ...]:
    """The mean wait in each queue of an M/M/c with non-preemptive priorities, the first queue first.

    W_k = W_0 / ((1 − σ_{k−1}) (1 − σ_k)), σ_k the utilisation by queues 1 to k, W_0 = C / (c μ) the mean time until a
    server gets free. All queues share one service law. Cobham 1954, «Priority assignment in waiting line problems»,
    Operations Research 2; Hillier and Lieberman, Introduction to Operations Research, section 17.8.
    """
    _check_not_negative(**{f"rates_per_s[{i}]": rate for i, rate in enumerate(rates_per_s)})
    _check_load(sum(rates_per_s), mean_service_s)
    residual_s = erlang_c(servers, sum(rates_per_s) * mean_service_s) * mean_service_s / servers
    return _cobham(residual_s, [rate * mean_service_s / servers for rate in rates_per_s])


def cobham_mg1_mean_waits_s(
    rates_per_s: Sequence[float], mean_services_s: Sequence[float], service_scvs: Sequence[float]
) -> tuple[float, ...]:
    """The mean wait in each queue of an M/G/1 with non-preemptive priorities, the first queue first.

    Each queue has a service law of its own, given by its mean and squared coefficient of variation. As in
    `cobham_mmc_mean_waits_s` with W_0 = Σ λ_i E[S_i²] / 2. With one queue it is the formula of Pollaczek and
    Khinchine. Cobham 1954; Kleinrock 1976, Queueing Systems volume II, section 3.6.
    """
    residual_s, utilisations = 0.0, []
    for rate, mean, scv in zip(rates_per_s, mean_services_s, service_scvs, strict=True):
        _check_not_negative(rate_per_s=rate, mean_service_s=mean, service_scv=scv)
        residual_s += rate * mean**2 * (1 + scv) / 2
        utilisations.append(rate * mean)
    _check_stable(sum(utilisations))
    return _cobham(residual_s, utilisations)


def _cobham(residual_s: float, utilisations: Sequence[float]) -> tuple[float, ...]:
    waits, before = [], 0.0
    for utilisation in utilisations:
        upto = before + utilisation
        waits.append(residual_s / ((1 - before) * (1 - upto)))
        before = upto
    return tuple(waits)


def _check_servers(servers: int) -> int:
    if servers < 1 or int(servers) != servers:
        raise LabError(f"servers={servers!r}: give a whole number from 1")
    return servers


def _check_load(rate_per_s: float, mean_service_s: float) -> None:
    _check_not_negative(rate_per_s=rate_per_s)
    if not 0 < mean_service_s < math.inf:
        raise LabError(f"mean_service_s={mean_service_s!r}: give more than 0 seconds")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise LabError(f"{name}={value!r}: give a number, 0 or more")


def _check_stable(utilisation: float) -> None:
    if not utilisation < 1:
        raise LabError(
            f"the servers would have to work {utilisation:.0%} of the time, so the queue grows and has no wait to state:"
            " take more servers or a lower rate"
        )
