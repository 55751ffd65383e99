"""Queues that take in more than their servers work off: how fast each grows, and when its wait breaks a target; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.queueing.replay import STRATEGIES


@dataclass(frozen=True)
class Growth:
    """A queue's balance in the long run, jobs a second."""

    arriving_per_s: float
    served_per_s: float

    @property
    def per_s(self) -> float:
        """By how many jobs a second it grows; 0 where everything is served."""
        return max(0.0, self.arriving_per_s - self.served_per_s)

    def breaks_after_s(self, wait_s: float) -> float | None:
        """Jobs that arrive later than so many seconds after the start wait longer than `wait_s`; None: it does not grow.

        A job that arrives at t finds (λ − μ) t before it and waits (λ − μ) t / μ. A queue that is not served at all
        breaks its target at once.
        """
        return None if self.per_s <= 0 else wait_s * self.served_per_s / self.per_s


def utilisation(rates_per_s: Sequence[float], mean_services_s: Sequence[float], servers: int) -> float:
    """The share of their time that the servers would have to work; from 1 on, something grows."""
    return sum(rate * service for rate, service in zip(rates_per_s, mean_services_s, strict=True)) / servers


def growth(
    rates_per_s: Sequence[float],
    mean_services_s: Sequence[float],
    servers: int,
    *,
    strategy: str = "strict",
) -> list[Growth]:
    """Each queue's balance, the first queue first; a service time includes the worker's overhead.

    With `strict`, a queue gets what those before it leave over. With `round_robin` and `random`, queues that always
    hold a job are served equally often, and what the others do not need is theirs.
    """
    if strategy not in STRATEGIES:
        raise LabError(f"strategy={strategy!r} is not one: {nearest(strategy, STRATEGIES)}")
    if strategy == "strict":
        served = _in_order(rates_per_s, mean_services_s, servers)
    else:
        served = _equally_often(rates_per_s, mean_services_s, servers)
    return [Growth(rate, rate_served) for rate, rate_served in zip(rates_per_s, served, strict=True)]


def _in_order(rates: Sequence[float], services: Sequence[float], servers: float) -> list[float]:
    served, left = [], float(servers)
    for rate, service in zip(rates, services, strict=True):
        given = min(rate, left / service) if service > 0 else rate
        left = max(0.0, left - given * service)
        served.append(given)
    return served


def _equally_often(rates: Sequence[float], services: Sequence[float], servers: float) -> list[float]:
    # The least demanding queues first: each is served whole while an equal turn for all the others suffices.
    left, open_services = float(servers), sum(services)
    served = [0.0] * len(rates)
    for number in sorted(range(len(rates)), key=lambda number: rates[number]):
        turn = left / open_services if open_services > 0 else float("inf")
        served[number] = min(rates[number], turn)
        left = max(0.0, left - served[number] * services[number])
        open_services -= services[number]
    return served
