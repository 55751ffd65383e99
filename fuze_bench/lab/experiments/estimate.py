"""About how long an experiment will take, before anything is measured."""

from __future__ import annotations

import os

from fuze_bench.lab.experiments.factors import LOCUST, Configuration
from fuze_bench.lab.experiments.progress import duration
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.workloads import Bookmarks, Synthetic

#: Rough guesses of an ordinary machine; the measured times replace them after the first trial.
_SET_UP_S = 3.0
_SET_UP_OF_JOBS_S = 1.0
_MODEL_S = 8.0
_LOCUST_S = 3.0
_BOOKMARK_CPU_S = 0.12
_JOB_S = 0.01
_OVERHEAD_S = {"simple": 0.0, "fork": 0.1, "spawn": 7.0, "pool": 7.0, "batch": 0.0}


def plan_in_words(experiment: Experiment) -> str:
    """The trials of all blocks, a line each, and about how long they take."""
    lines = [
        f"{planned.number:>4}  block {planned.block}  {planned.label}{' (again)' if planned.copy else ''}"
        for planned in experiment.plan()
    ]
    total_s = sum(trial_s(experiment, planned.configuration) for planned in experiment.plan())
    if isinstance(experiment.workload, Bookmarks) and any(
        c.fresh == "data" for c in experiment.configurations
    ):
        total_s += _MODEL_S
    return "\n".join([*lines, f"{len(lines)} trials, about {duration(total_s)}"])


def trial_s(experiment: Experiment, configuration: Configuration) -> float:
    """About how long one trial takes, seconds."""
    arrivals = experiment.arrivals_of(configuration)
    jobs = len(arrivals.times(experiment.seed))
    overhead_s = _OVERHEAD_S[configuration.kind]
    if isinstance(experiment.workload, Synthetic):
        busy_s = experiment.workload.service.mean_ms / 1e3 + overhead_s / 10 + _JOB_S
        drain_s = jobs * busy_s / configuration.workers
    else:
        cores = min(configuration.workers, os.cpu_count() or 1)
        drain_s = jobs * max(
            (_BOOKMARK_CPU_S + overhead_s) / cores,
            (_BOOKMARK_CPU_S + overhead_s + configuration.origin_latency_ms / 1e3) / configuration.workers,
        )
    if experiment.drain_limit_s is not None:
        drain_s = min(drain_s, arrivals.window_s + experiment.drain_limit_s)
    return _begin_s(experiment, configuration) + max(arrivals.window_s, drain_s)


def _begin_s(experiment: Experiment, configuration: Configuration) -> float:
    """Until a trial's parts are ready; jobs that are no bookmarks need no model, no web site and no database."""
    if not isinstance(experiment.workload, Bookmarks):
        return _SET_UP_OF_JOBS_S
    return (
        _SET_UP_S
        + (_MODEL_S if configuration.fresh == "processes" else 0)
        + (_LOCUST_S if configuration.sender == LOCUST else 0)
    )
