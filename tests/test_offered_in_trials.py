"""What real trials offer: the distance to Redis that was set, every arrival law, and a generator beyond its ceiling."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fuze_bench.lab.experiments.run import run_experiment
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement import checks
from fuze_bench.lab.judgement.summaries import comparisons, figures
from fuze_bench.lab.judgement.trial_verdicts import CEILING_SHARE, invalid_trials
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.load.sender_ceiling import measure_ceiling
from fuze_bench.lab.runs.results import Run, load_run
from fuze_bench.pipeline.settings import Settings

SLEEPS = {"kind": "synthetic", "mean_ms": 1}
RTT_MS = 40.0
#: RQ's enqueue takes 300 µs and more.
ABSURD_PER_S = 20_000
TRACE = """time,url,queue
100.0,https://example.org/a,high
100.2,https://example.org/b,low
100.2,https://example.org/a,
100.9,https://example.org/c,high
"""


def measured(folder: Path, **spec: Any) -> Run:
    experiment = Experiment.from_mapping({"workload": SLEEPS, "blocks": 1, "baseline_copy": False, **spec})
    return run_experiment(experiment, Settings(data_dir=folder, embedding_model="off"), out=folder / "run")


def jobs_of(run: Run, **factors: Any) -> pd.DataFrame:
    """The jobs of the one trial with these values."""
    trials = run.trials
    for name, value in factors.items():
        trials = trials[trials[name] == value]
    [number] = trials["trial"]
    return run.events[run.events["trial"] == number].sort_values("job")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same jobs with a Redis beside them and one that is 40 ms away."""
    return measured(
        tmp_path_factory.mktemp("far"),
        factors={"redis_rtt_ms": [0, RTT_MS]},
        fixed={"workers": 1, "arrivals": "constant", "rate_per_s": 4},
        duration_s=2,
    )


def test_sending_a_job_takes_longer_by_the_set_distance(far: Run) -> None:
    """One round trip. What else the machine does only ever adds, so that the fastest of eight counts."""
    near_ms, far_ms = (
        float(jobs_of(far, redis_rtt_ms=rtt_ms)["ack_service_ms"].min()) for rtt_ms in (0.0, RTT_MS)
    )
    assert far_ms - near_ms == pytest.approx(RTT_MS, abs=0.1 * RTT_MS)


def test_workers_are_as_far_away(far: Run) -> None:
    """From queued to taken up: the job goes there (a round trip), and comes back to the worker by several more."""
    near_ms, far_ms = (float(jobs_of(far, redis_rtt_ms=rtt_ms)["wait_ms"].min()) for rtt_ms in (0.0, RTT_MS))
    assert far_ms - near_ms >= 2 * RTT_MS


@pytest.fixture(scope="module")
def laws(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial for each law that is made of more than a rate."""
    folder = tmp_path_factory.mktemp("laws")
    (folder / "traffic.csv").write_text(TRACE)
    return measured(
        folder,
        factors={"arrivals": ["step", "burst", "trace"]},
        fixed={"workers": 1},
        arrivals={
            "steps": [[5, 1], [20, 0.5]],
            "burst_size": 4,
            "burst_every_s": 0.5,
            "trace": str(folder / "traffic.csv"),
        },
        duration_s=1,
    )


@pytest.mark.parametrize(
    ("law", "times_s"),
    [
        ("step", [*(n / 5 for n in range(5)), *(1 + n / 20 for n in range(10))]),
        ("burst", [0.0] * 4 + [0.5] * 4),
        ("trace", [0.0, 0.2, 0.2, 0.9]),
    ],
)
def test_a_law_is_what_is_sent(laws: Run, law: str, times_s: list[float]) -> None:
    """Intended exactly so, and sent then: no earlier, in order, and most of them within a moment."""
    jobs = jobs_of(laws, arrivals=law)
    begin_ns = int(jobs["intended_ns"].min())
    assert [(int(ns) - begin_ns) / 1e9 for ns in jobs["intended_ns"]] == pytest.approx(times_s, abs=1e-6)
    assert list(jobs["status"]) == ["processed"] * len(times_s)
    assert (jobs["late_ms"] >= 0).all()
    assert jobs["late_ms"].median() < 50, "as the gaps are: none of a step, a burst or a line is skipped"
    assert all(a <= b for a, b in itertools.pairwise(jobs["sent_ns"]))


def test_a_trace_says_the_queues(laws: Run) -> None:
    assert list(jobs_of(laws, arrivals="trace")["queue"]) == ["high", "low", "default", "high"]
    assert set(jobs_of(laws, arrivals="step")["queue"]) == {"default"}


def assert_only_the_absurd_is_invalid(run: Run, absurd_per_s: float) -> None:
    ceilings = run.trials["sender_ceiling_per_s"]
    assert ceilings.notna().all()
    assert ceilings.between(100, absurd_per_s / CEILING_SHARE).all(), "an absurd rate is above it"
    [quiet, absurd] = [
        int(run.trials[run.trials["rate_per_s"] == rate]["trial"].iloc[0]) for rate in (20, absurd_per_s)
    ]
    verdicts = checks.verdicts_on(run)
    saturated = {v.trial: v.answer for v in verdicts if v.name == "load generator saturated"}
    assert saturated == {quiet: Answer.NO, absurd: Answer.YES}
    assert absurd in invalid_trials(verdicts)
    assert absurd not in set(figures(run)["trial"]), "an invalid trial counts in no figure"
    assert all(c.ratio is None for c in comparisons(run)), "nor in a ratio"
    assert any(
        doubt.startswith(f"Load generator saturated (trial {absurd}, which does not count): it sent ")
        for doubt in checks.doubts(run)
    )


def test_a_generator_beyond_its_ceiling_makes_the_trial_invalid(tmp_path: Path) -> None:
    run = measured(
        tmp_path,
        factors={"rate_per_s": [20, ABSURD_PER_S]},
        fixed={"workers": 1, "arrivals": "constant"},
        duration_s=0.1,
        drain_limit_s=0.2,
    )
    assert_only_the_absurd_is_invalid(load_run(run.folder), ABSURD_PER_S)


def test_so_does_the_sender_of_saves(tmp_path: Path) -> None:
    """Several times what it managed a moment ago: a machine that was busy then may do more now."""
    absurd_per_s = min(100_000, round(4 * measure_ceiling(tmp_path / "before")))
    run = measured(
        tmp_path,
        workload="bookmarks",
        factors={"rate_per_s": [20, absurd_per_s]},
        fixed={"mode": "thread", "arrivals": "constant"},
        duration_s=0.1,
        drain_limit_s=0.2,
        warm_up=0,
    )
    assert run.trials["sender_ceiling_per_s"].nunique() == 1, "measured once, before the first trial"
    assert_only_the_absurd_is_invalid(load_run(run.folder), absurd_per_s)
