"""The decision: the cheapest option that meets the target, and no other; why; and how sure."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from backlog_runs import backlog_run

from fuze_bench.errors import LabError
from fuze_bench.lab.planning import decision_text
from fuze_bench.lab.planning.decision import SHARE_OF_BEST, can_decide, decide
from fuze_bench.lab.planning.plan_evidence import MEASURED_ONLY
from fuze_bench.lab.planning.plan_text import duration, size
from fuze_bench.lab.runs.results import Run

FACTORS = {"kind": ["simple", "fork"], "workers": [1, 2, 4]}
MEANS_S = {"simple": 0.5, "fork": 0.6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return backlog_run(tmp_path_factory.mktemp("run") / "a-run", factors=FACTORS, mean_service_s=MEANS_S)


@pytest.mark.parametrize(
    ("rate_per_s", "wait_p95_s"), [(0.5, 5), (1.5, 0.3), (1.5, 10), (3, 1), (6, 3), (7.5, 0.5), (20, 60)]
)
def test_the_pick_is_what_brute_force_finds_in_the_recorded_table(run: Run, rate_per_s, wait_p95_s):
    decision = decide(run, rate_per_s=rate_per_s, wait_p95_s=wait_p95_s)
    found = decision_text.mapping(decision)
    best, best_cost = None, (math.inf,)
    for row in found["options"]:
        wait, trials = row["wait_p95_s"], run.trials[run.trials["label"] == row["label"]]
        trials = trials[~trials["copy"]]
        if wait is None or wait["value"] > wait_p95_s or wait["high"] is None or wait["high"] > wait_p95_s:
            continue
        if trials["lost"].sum() or trials["duplicated"].sum():
            continue
        cost = (
            trials["workers"].iloc[0],
            trials["peak_pss_bytes"].max(),
            (trials["cpu_s"] / trials["processed"]).median(),
        )
        if cost < best_cost:
            best, best_cost = row["label"], cost
    assert found["pick"] == best
    assert len(found["options"]) == 6


def test_workers_that_take_several_jobs_at_once_are_measured_and_not_modelled(tmp_path: Path):
    run = backlog_run(
        tmp_path / "run",
        factors={"kind": ["simple", "batch"], "workers": [1, 2]},
        mean_service_s={"simple": 0.5, "batch": 0.1},
    )
    decision = decide(run, rate_per_s=1, wait_p95_s=10)
    assert decision.pick is not None
    assert decision.pick.kind == "simple"
    of_batch = [option for option in decision.options if option.kind == "batch"]
    assert [option.problems for option in of_batch] == [(MEASURED_ONLY,)] * 2
    assert all(option.throughput_per_s and option.drain_s and option.memory_mib for option in of_batch)
    assert [decision_text.cells(option, decision)[1] for option in of_batch] == ["not modelled"] * 2
    assert [line for line in decision_text.why_not_others(decision) if MEASURED_ONLY in line]
    told = "as of 1 batch worker and 2 batch workers the wait cannot be told"
    assert f"There may be a better one than the pick, {told}." in decision_text.how_sure(decision)
    # What they do must not set a rate that only they could be the pick for.
    derived = decide(run)
    best = run.trials[run.trials["label"] == "2 simple workers"]["throughput_per_s"].median()
    assert derived.asked.rate_per_s == pytest.approx(SHARE_OF_BEST * best, rel=0.05)
    assert derived.pick is not None
    assert "any option did whose wait can be told" in decision_text.question(derived)
    none = decision_text.answer(decide(run, rate_per_s=15))
    assert none.startswith(f"No measured option whose wait can be told meets the target, {told}.")


def test_where_no_wait_can_be_told_none_is_said_to_be_too_long(tmp_path: Path):
    run = backlog_run(
        tmp_path / "run", factors={"kind": ["batch"], "workers": [1, 2]}, mean_service_s={"batch": 0.1}
    )
    assert decision_text.answer(decide(run)).startswith(
        "Unknown: of no measured option can the wait be told."
    )


def test_waits_are_those_of_a_queue_simulated_by_itself(run: Run):
    decision = decide(run, rate_per_s=3, wait_p95_s=10)
    for option in decision.options:
        trials = run.trials[(run.trials["label"] == option.label) & ~run.trials["copy"]]
        jobs = run.events[run.events["trial"].isin(trials["trial"])]
        services_s = (jobs["service_ms"] / 1e3).to_numpy(dtype=float)
        if 3 * services_s.mean() >= option.workers:
            assert option.p95_s is None
            assert option.growth is not None
            assert option.growth.per_s == pytest.approx(3 - option.workers / services_s.mean(), rel=0.02)
            continue
        assert option.p95_s is not None
        assert option.p95_s.value == pytest.approx(simulated_p95_s(services_s, option.workers, 3), rel=0.2)


def simulated_p95_s(services_s: np.ndarray, workers: int, rate_per_s: float) -> float:
    """By stepping through arrivals and picking whichever worker is free first."""
    draw = random.Random(5)
    free, now, waits = [0.0] * workers, 0.0, []
    for _ in range(60_000):
        now += draw.expovariate(rate_per_s)
        worker = min(range(workers), key=free.__getitem__)
        start = max(now, free[worker])
        waits.append(start - now)
        free[worker] = start + draw.choice(services_s)
    return float(np.percentile(waits[6_000:], 95))


def test_it_says_why_not_one_fewer_and_why_not_one_more(run: Run):
    decision = decide(run, rate_per_s=2.5, wait_p95_s=5)
    assert decision_text.answer(decision).startswith(
        "Run 2 simple workers: 95 % of the jobs are taken up within"
    )
    assert decision_text.why_not_fewer(decision).startswith("1 simple worker: the queue default grows by")
    more = decision_text.why_not_more(decision)
    assert more.startswith("3 simple workers (not measured, extrapolated): taken up within")
    assert "for 100 MiB more memory" in more
    assert decision_text.why_not_others(decision) == [
        "2 fork workers: meets the target as well, with 40 MiB more memory."
    ]
    sure = " ".join(decision_text.how_sure(decision))
    assert "6 blocks: enough for a claim." in sure
    assert "95 % interval of the pick's wait: " in sure


def test_the_target_is_derived_from_the_run_and_said_to_be(run: Run):
    decision = decide(run)
    best = run.trials[~run.trials["copy"]].groupby("label")["throughput_per_s"].median().max()
    assert decision.asked.rate_per_s == pytest.approx(SHARE_OF_BEST * best, rel=0.05)
    assert decision.asked.rate_is_derived
    assert "70 % of the most that any option did" in decision_text.question(decision)
    assert "default" not in decision_text.question(decide(run, rate_per_s=1, wait_p95_s=3))
    assert "keep up with 1,500 jobs a second, so" in decision_text.question(decide(run, rate_per_s=1500.0))


def test_below_six_blocks_it_is_exploratory(tmp_path: Path):
    few = backlog_run(tmp_path / "run", factors=FACTORS, mean_service_s=MEANS_S, blocks=2)
    decision = decide(few, rate_per_s=3)
    assert decision.is_exploratory
    assert decision_text.answer(decision).startswith("Exploratory: ")
    assert decision.pick is not None
    assert decision_text.how_sure(decision)[0] == "Exploratory: 2 blocks of 6 or more that a claim needs."


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"lost": 1}, "2 jobs were lost"),
        ({"duplicated": 2}, "4 jobs were done twice"),
        ({"drained": False, "lost": None}, "the backlog was not drained in 2 of 2 trials"),
        ({"status": "failed", "problem": "it broke"}, "no trial of it counts"),
    ],
)
def test_what_loses_doubles_or_fails_is_not_picked(tmp_path: Path, broken, words):
    run = backlog_run(
        tmp_path / "run",
        factors=FACTORS,
        mean_service_s=MEANS_S,
        blocks=2,
        broken={"2 simple workers": broken},
    )
    decision = decide(run, rate_per_s=3, wait_p95_s=20)
    assert decision.pick is not None
    assert decision.pick.label == "2 fork workers"
    assert f"2 simple workers: {words}." in decision_text.why_not_others(decision)
    [option] = [option for option in decision.options if option.label == "2 simple workers"]
    assert option.lost == (None if "drained" in broken or "status" in broken else 2 * broken.get("lost", 0))


def test_where_nothing_meets_the_target_there_is_no_pick(run: Run):
    decision = decide(run, rate_per_s=100, wait_p95_s=1)
    assert decision.pick is None
    assert decision_text.answer(decision).startswith("No measured option meets the target.")
    assert len(decision_text.why_not_others(decision)) == 6
    json.dumps(decision_text.mapping(decision), allow_nan=False)


def test_of_several_conditions_the_hardest_decides(tmp_path: Path):
    run = backlog_run(
        tmp_path / "run",
        factors={**FACTORS, "origin_latency_ms": [0, 300]},
        mean_service_s=MEANS_S,
        blocks=2,
    )
    decision = decide(run, rate_per_s=1)
    assert decision.given == {"origin_latency_ms": 300}
    assert [option.label for option in decision.options][:2] == ["1 simple worker", "2 simple workers"]
    assert "Figures are for origin latency 300 ms, the hardest" in decision_text.question(decision)


def test_a_run_that_varies_no_workers_decides_nothing(tmp_path: Path):
    run = backlog_run(
        tmp_path / "run", factors={"kind": ["simple"]}, mean_service_s=MEANS_S, blocks=1, jobs=5
    )
    assert not can_decide(run)
    assert decide(run).pick is None


def test_a_rate_must_be_one(run: Run):
    with pytest.raises(LabError, match="rate=0: give a value above 0"):
        decide(run, rate_per_s=0)
    with pytest.raises(LabError, match="wait-p95=-1: give a value above 0"):
        decide(run, wait_p95_s=-1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.57e-10, "0 ms"),
        (0.00214, "2.14 ms"),
        (0.35, "350 ms"),
        (3.1, "3.1 s"),
        (720, "12 min"),
        (9000, "2.5 h"),
        (3.7e6, "1,028 h"),
    ],
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("mib", "text"), [(100, "100 MiB"), (1010, "1,010 MiB"), (1536, "1.5 GiB")])
def test_memory_is_for_people(mib: int, text: str) -> None:
    assert size(mib * 2**20) == text
