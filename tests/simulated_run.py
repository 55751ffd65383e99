"""A recorded run's tables without a run: workers simulated by Ciw, which shares no code with the lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ciw
import numpy as np
import pandas as pd

QUEUES = ("high", "default", "low")
_MIB = 2**20


def simulated_waits(
    workers: int,
    rates_per_s: Mapping[str, float],
    *,
    mean_service_s: float = 1.0,
    jobs: int = 1000,
    seed: int = 1,
) -> pd.DataFrame:
    """Jobs through a queue with Poisson arrivals, exponential service times and strict priorities.

    Columns queue, queued_s, started_s, done_s; in the order of arrival, about `jobs` of them, without those that
    came before the queue had filled.
    """
    ciw.seed(seed)
    rng = np.random.default_rng(seed)
    window_s = 1.1 * jobs / sum(rates_per_s.values())
    arrivals = {
        queue: np.sort(rng.uniform(0, window_s, rng.poisson(rate * window_s)))
        for queue, rate in rates_per_s.items()
    }
    network = ciw.create_network(
        arrival_distributions={
            # After the last, none for so long that everything is done by then.
            queue: [ciw.dists.Sequential([*np.diff(times, prepend=0).tolist(), 1e9])]
            for queue, times in arrivals.items()
        },
        service_distributions={queue: [ciw.dists.Exponential(1 / mean_service_s)] for queue in rates_per_s},
        number_of_servers=[workers],
        **({"priority_classes": {q: QUEUES.index(q) for q in rates_per_s}} if len(rates_per_s) > 1 else {}),
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(1e8)
    records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
    records = [record for record in records if record.arrival_date > window_s / 11]
    return pd.DataFrame(
        {
            "queue": [record.customer_class for record in records],
            "queued_s": [record.arrival_date for record in records],
            "started_s": [record.service_start_date for record in records],
            "done_s": [record.service_end_date for record in records],
        }
    )


def simulated_run(
    counts: Sequence[int],
    rates_per_s: Mapping[str, float],
    *,
    blocks: int = 6,
    jobs: int = 600,
    mean_services_s: Mapping[int, float] | None = None,
    seed: int = 1,
    **factors: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(events, trials) of a run with a trial for each worker count and block; a worker takes 100 MiB.

    `mean_services_s`: by worker count; 1 s where it is not given. `factors`: further columns of the trials.
    """
    events, trials = [], []
    for block in range(1, blocks + 1):
        for workers in counts:
            trial = len(trials) + 1
            mean_s = (mean_services_s or {}).get(workers, 1.0)
            table = simulated_waits(
                workers, rates_per_s, mean_service_s=mean_s, jobs=jobs, seed=seed * 1000 + trial
            )
            stamps = {
                f"{name}_ns": (table[f"{name}_s"] * 1e9).round().astype("int64") + 7 * 10**18
                for name in ("queued", "started", "done")
            }
            events.append(
                pd.DataFrame(
                    {"trial": trial, "block": block, "queue": table["queue"], "status": "processed", **stamps}
                )
            )
            trials.append(
                {
                    "trial": trial,
                    "block": block,
                    "workers": workers,
                    "status": "ok",
                    "kind": "simple",
                    "strategy": "strict",
                    "arrivals": "poisson",
                    "rate_per_s": sum(rates_per_s.values()),
                    "drained": True,
                    "processed": len(table),
                    "failed": 0,
                    "cpu_s": 0.2 * len(table),
                    "peak_pss_bytes": workers * 100 * _MIB,
                    **factors,
                }
            )
    return pd.concat(events, ignore_index=True), pd.DataFrame(trials)
