"""Every kind of worker against RQ's own pool, the baseline: in a run of its own, as the pool loads the model in every job."""

from __future__ import annotations

from collections.abc import Sequence

from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement import summaries
from fuze_bench.lab.judgement.comparison import Comparison, bounds_in_words, not_shown
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.runs.results import Run

_POOL = "pool"


def against_pool(
    kinds: Sequence[str], *, workers: int, origin_latency_ms: float, jobs: int, pages: str | None, seed: int
) -> Experiment:
    """One block: a backlog on RQ's own pool, and the same on each of the other `kinds`. Raises LabError."""
    return Experiment(
        name="worker_pool",
        factors={"kind": [_POOL, *(kind for kind in kinds if kind != _POOL)]},
        fixed={"workers": workers, "origin_latency_ms": origin_latency_ms, "pages": pages},
        jobs=jobs,
        blocks=1,
        seed=seed,
        baseline_copy=False,
    )


def against_pool_in_words(run: Run) -> str:
    """How many times what the pool did each other kind did, in one sentence; empty if there was no other."""
    labels = list(run.experiment.labels.values())
    found = [c for c in summaries.comparisons(run, "throughput_per_s") if c.name in labels]
    blocks = int(run.good_trials()["block"].nunique())
    size = f"{run.experiment.jobs} jobs, {blocks} block{'' if blocks == 1 else 's'}"
    if blocks < BLOCKS_TO_CONCLUDE:
        size += ", exploratory"
    return f"Against RQ's own pool ({size}): {'; '.join(map(_words, found))}." if found else ""


def _words(comparison: Comparison) -> str:
    ratio = comparison.ratio
    if ratio is None:
        return f"{comparison.name} cannot be compared, as no block counts for both"
    return (
        f"{comparison.name} did {cell(ratio.mean)} times what {comparison.baseline} did{bounds_in_words(ratio)}"
        f"{not_shown(ratio)}"
    )
