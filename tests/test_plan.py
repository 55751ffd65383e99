"""The capacity plan: known answers, its reasons, and what it refuses to say; runs simulated by Ciw."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated_run import simulated_run, simulated_waits

from fuze_bench.errors import LabError
from fuze_bench.lab.planning.plan import Plan, plan
from fuze_bench.lab.planning.plan_evidence import gather
from fuze_bench.lab.planning.plan_model import Case, Model
from fuze_bench.lab.planning.plan_wanted import Wanted
from fuze_bench.lab.queueing.formulas import cobham_mmc_mean_waits_s, mmc_wait_quantile_s
from fuze_bench.lab.queueing.worker_overhead import WorkerOverhead

Tables = tuple[pd.DataFrame, pd.DataFrame]
MIB = 2**20


@pytest.fixture(scope="module")
def one_queue() -> Tables:
    """Jobs of 1 s on average, exponential; 3, 4 and 6 workers at 2.4 a second."""
    return simulated_run([3, 4, 6], {"default": 2.4})


@pytest.fixture(scope="module")
def priorities() -> Tables:
    return simulated_run([3, 4], {"high": 0.6, "default": 1.2, "low": 0.6})


@pytest.mark.parametrize(("rate", "target_s"), [(3.0, 4.0), (4.5, 2.5), (5.0, 0.4)])
def test_it_gives_the_textbooks_number(one_queue: Tables, rate: float, target_s: float) -> None:
    """M/M/c: the smallest c whose 95th percentile of waits is below the target."""
    found = plan(*one_queue, Wanted(rate, {"default": target_s}))
    stable = range(int(rate) + 1, 20)
    expected = next(c for c in stable if mmc_wait_quantile_s(0.95, rate, 1, c) <= target_s)
    assert found.workers == found.needed == expected
    (wait,) = found.chosen.waits
    assert wait.p95_s is not None
    assert wait.p95_s.value == pytest.approx(mmc_wait_quantile_s(0.95, rate, 1, expected), rel=0.15, abs=0.05)
    assert wait.p95_s.low is not None
    assert wait.p95_s.low < wait.p95_s.value < wait.p95_s.upper <= target_s


def test_workers_that_take_several_jobs_at_once_are_refused() -> None:
    with pytest.raises(LabError, match=r"kind=batch: .* measured only; plan from a run of another kind"):
        plan(*simulated_run([2], {"default": 1.0}, kind="batch", jobs=60), Wanted(1.0))
    events, trials = simulated_run([1, 2], {"default": 1.0}, jobs=60)
    trials["kind"] = trials["workers"].map({1: "batch", 2: "simple"})
    with pytest.raises(
        LabError, match="the run has kind batch and simple: choose one with --only kind=simple"
    ):
        plan(events, trials, Wanted(1.0))


def test_the_prediction_is_then_measured(priorities: Tables) -> None:
    """Waits predicted for twice the load and workers, against Ciw with that many."""
    found = plan(*priorities, Wanted(4.8, {"high": 1.0, "low": 60.0}))
    assert found.needed is not None
    measured = simulated_waits(found.needed, {"high": 1.2, "default": 2.4, "low": 1.2}, jobs=40_000, seed=77)
    for wait in found.chosen.waits:
        own = measured[measured["queue"] == wait.queue]
        assert wait.p95_s is not None
        assert wait.p95_s.low is not None
        seen = float(np.quantile(own["started_s"] - own["queued_s"], 0.95))
        # The measured one scatters as well: 40,000 jobs of a busy queue, that follow each other, by some per cent.
        assert 0.95 * wait.p95_s.low <= seen <= 1.05 * wait.p95_s.upper
    assert found.queues == ("high", "default", "low")
    waits = [wait.p95_s.value for wait in found.chosen.waits if wait.p95_s]
    assert waits == sorted(waits)
    # And in Cobham's order of magnitude: means lie below 95th percentiles.
    assert waits[0] > cobham_mmc_mean_waits_s([1.2, 2.4, 1.2], 1, found.needed)[0]


def test_why_not_one_fewer_and_not_one_more(one_queue: Tables) -> None:
    found = plan(*one_queue, Wanted(3.0, {"default": 2.0}))
    assert found.needed == 5
    assert found.fewer is not None
    assert found.more is not None
    assert found.fewer.meets is False
    assert found.more.meets
    text = str(found)
    assert "Run 5 workers for 3 jobs a second." in text
    assert "Why not one fewer: 95 % of default start within" in text
    assert "Why not one more: not needed: workers would be busy 50% instead of 60%" in text
    assert "for 100 MiB more memory" in text


def test_a_growing_queue_is_never_given_a_quantile(one_queue: Tables) -> None:
    """4.5 a second on 4 workers of about 1/s each: grows by about 0.5; what comes after t waits for what is before it."""
    found = plan(*one_queue, Wanted(4.5, {"default": 2.0}, memory_bytes=400 * MIB))
    assert found.workers is None
    assert found.fewer is not None
    wait = found.fewer.waits[0]
    assert found.fewer.workers == 4
    assert wait.p95_s is None
    assert wait.growth is not None
    events, trials = one_queue
    of_four = events[events["trial"].isin(trials[trials["workers"] == 4]["trial"])]
    served = 4 / ((of_four["done_ns"] - of_four["started_ns"]).mean() / 1e9)
    assert served == pytest.approx(4, rel=0.05)
    assert wait.growth.per_s == pytest.approx(4.5 - served, abs=1e-6)
    (problem,) = found.fewer.problems
    assert problem.startswith("default grows by 0.")
    assert "its 2 s are broken after" in problem
    assert wait.growth.breaks_after_s(2.0) == pytest.approx(2 * served / (4.5 - served), rel=1e-3)
    assert "No number of workers does it for 4.5 jobs a second." in str(found)


def test_with_priorities_the_last_queue_starves(priorities: Tables) -> None:
    found = plan(*priorities, Wanted(4.2, {"high": 5.0, "low": 60.0}, memory_bytes=400 * MIB))
    assert found.fewer is not None
    growing = {wait.queue: wait.growth for wait in found.fewer.waits}
    assert growing["high"] is None
    assert growing["default"] is None
    assert growing["low"] is not None
    assert all(wait.p95_s is None for wait in found.fewer.waits)


def test_what_would_change_it(one_queue: Tables) -> None:
    found = plan(*one_queue, Wanted(4.0, {"default": 1.0}))
    changes = {change.what: change.workers for change in found.changes}
    for what, rate, service_s in (
        ("+20 % rate", 4.8, 1.0),
        ("-20 % rate", 3.2, 1.0),
        ("+20 % service time", 4.0, 1.2),
    ):
        c = next(
            c
            for c in range(3, 20)
            if c > rate * service_s and mmc_wait_quantile_s(0.95, rate, service_s, c) <= 1
        )
        assert changes[what] in (c, c + 1), what
    assert found.workers is not None
    assert changes["-20 % rate"] < found.workers <= changes["+20 % rate"]  # type: ignore[operator]


def test_spare_workers_are_added_and_explained(one_queue: Tables) -> None:
    without = plan(*one_queue, Wanted(3.0, {"default": 2.0}))
    found = plan(*one_queue, Wanted(3.0, {"default": 2.0}, spare=2))
    assert found.needed == without.needed == 5
    assert found.workers == 7
    assert [change.workers for change in found.changes] == [
        c.workers + 2 for c in without.changes if c.workers
    ]
    assert "Run 7 workers for 3 jobs a second: 5 needed and 2 spare." in str(found)
    assert "with 2 down, 4 would be left: 95 % of default" in str(found)
    assert found.chosen.memory_bytes == 700 * MIB


def test_memory_for_the_spare_ones_is_needed_too(one_queue: Tables) -> None:
    wanted = {"rate_per_s": 3.0, "wait_p95_s": {"default": 2.0}, "memory_bytes": 550 * MIB}
    assert plan(*one_queue, Wanted(**wanted)).workers == 5  # type: ignore[arg-type]
    found = plan(*one_queue, Wanted(**wanted, spare=1))  # type: ignore[arg-type]
    assert found.workers is None
    assert "there are 550 MiB" in str(found)


def test_a_backlog_is_drained_in_time(one_queue: Tables) -> None:
    """While 3 a second go on, c workers of 1/s leave c − 3 a second for the backlog: 1,800 in 10 minutes need 6."""
    found = plan(*one_queue, Wanted(3.0, backlog=1650, drain_s=600))
    assert found.needed == 6
    assert found.chosen.drain_s is not None
    assert found.chosen.drain_s.value == pytest.approx(1650 / 3, rel=0.1)
    assert found.fewer is not None
    assert "a backlog of 1,650 takes" in found.fewer.problems[0]


def test_the_cpus_limit_every_number_of_workers(one_queue: Tables) -> None:
    """0.2 s of CPU time a job: one core does 5 a second."""
    assert plan(*one_queue, Wanted(4.0), cores=1).workers is not None
    found = plan(*one_queue, Wanted(6.0), cores=1)
    assert found.workers is None
    assert (
        "the machine's 1 CPUs do 5 jobs a second, whatever the number of workers: what waits grows by 1 a"
        in str(found)
    )
    assert any(
        "80% of the machine's 1 CPUs" in doubt for doubt in plan(*one_queue, Wanted(4.0), cores=1).doubts
    )


def test_service_times_are_those_of_the_count_or_the_nearest() -> None:
    """With four workers jobs take twice as long: what was measured there is used there and above."""
    events, trials = simulated_run([2, 4], {"default": 1.0}, mean_services_s={2: 1.0, 4: 2.0})
    found = plan(events, trials, Wanted(1.2, {"default": 30.0}))
    assert found.needed == 2
    assert found.chosen.source == "modelled"
    assert found.more is not None
    assert found.more.source == "extrapolated"
    assert found.more.utilisation.value == pytest.approx(1.2 * 2 / 3, rel=0.1)
    more = plan(events, trials, Wanted(3.0, {"default": 30.0}))
    assert more.chosen.source == "extrapolated"
    assert any("service times are those of 4" in doubt for doubt in more.doubts)


def test_a_rate_that_was_measured_is_not_modelled(one_queue: Tables) -> None:
    events, trials = one_queue
    found = plan(events, trials, Wanted(2.4, {"default": 4.0}))
    assert found.needed == 4
    (wait,) = found.chosen.waits
    assert wait.source == "measured"
    of_four = events[events["trial"].isin(trials[trials["workers"] == 4]["trial"])]
    recorded = np.sort((of_four["started_ns"] - of_four["queued_ns"]).to_numpy() / 1e9)
    assert wait.p95_s is not None
    assert wait.p95_s.value == pytest.approx(recorded[int(np.ceil(0.95 * len(recorded))) - 1])
    assert plan(events, trials, Wanted(2.3, {"default": 2.0})).chosen.waits[0].source == "modelled"
    constant = trials.assign(arrivals="constant")
    assert plan(events, constant, Wanted(2.4, {"default": 2.0})).chosen.waits[0].source == "modelled"
    cut_off = trials.assign(drained=False)
    assert plan(events, cut_off, Wanted(2.4, {"default": 4.0})).chosen.waits[0].source == "modelled", (
        "the longest waits of what was cut off are not in the record"
    )


def test_memory_says_where_it_comes_from(one_queue: Tables) -> None:
    def memory(needed: int, spare: int = 0) -> tuple[Any, Any]:
        found = plan(*one_queue, Wanted(needed - 0.9, spare=spare)).chosen
        assert found.workers == needed
        return found.memory_bytes, found.memory_source

    assert memory(4) == (400 * MIB, "measured")
    assert memory(5) == (pytest.approx(500 * MIB), "modelled")
    assert memory(6, spare=2) == (pytest.approx(800 * MIB), "extrapolated")


def test_memory_is_the_most_that_was_seen(one_queue: Tables) -> None:
    events, trials = one_queue
    uneven = trials.assign(peak_pss_bytes=trials["peak_pss_bytes"] + trials["block"] * MIB)
    assert gather(events, uneven).peak_bytes == {3: 306 * MIB, 4: 406 * MIB, 6: 606 * MIB}


@pytest.mark.parametrize(
    ("overhead", "taken"),
    [
        (WorkerOverhead(0.02, 9, 0.005, 9), (0.02, 0.005)),
        (WorkerOverhead(0.02, 9, None, 0), (0.02, 0.02)),
        (WorkerOverhead(None, 0, 0.03, 9), (0.03, 0.03)),
        (WorkerOverhead(None, 0, None, 0), (0.0, 0.0)),
    ],
)
def test_an_overhead_that_is_not_known_is_the_other_one(
    one_queue: Tables, overhead: WorkerOverhead, taken: tuple[float, float]
) -> None:
    """A worker between two jobs needs no less than one that was idle; of nothing known nothing is made up."""
    evidence = gather(*one_queue)
    counts = {workers: replace(count, overhead=overhead) for workers, count in evidence.counts.items()}
    assert replace(evidence, counts=counts).overhead_s(4) == taken


def test_a_queue_that_is_too_rare_gets_no_quantile(one_queue: Tables) -> None:
    """One job in 400: of the jobs that are replayed fewer than 10 lie beyond its 95th percentile."""
    events, trials = one_queue
    rare = events.assign(queue=np.where(np.arange(len(events)) % 400 == 7, "high", "default"))
    high, default = Model(gather(rare, trials)).waits(4, Case(3.0))
    assert (high.queue, high.p95_s) == ("high", None)
    assert default.p95_s is not None


@pytest.mark.parametrize(("blocks", "is_exploratory"), [(1, True), (5, True), (6, False)])
def test_few_blocks_are_exploratory(one_queue: Tables, blocks: int, is_exploratory: bool) -> None:
    events, trials = one_queue
    found = plan(events, trials[trials["block"] <= blocks], Wanted(3.0, {"default": 4.0}))
    assert found.is_exploratory == is_exploratory
    assert str(found).startswith("Exploratory: run") == is_exploratory
    assert any("6 or more are needed" in doubt for doubt in found.doubts) == is_exploratory
    wait = found.chosen.waits[0].p95_s
    assert wait is not None
    assert (wait.high is None) == (blocks == 1)


def test_one_worker_is_the_least(one_queue: Tables) -> None:
    found = plan(*one_queue, Wanted(0.1))
    assert found.workers == 1
    assert "Why not one fewer: somebody has to do the work." in str(found)


def test_the_same_run_gives_the_same_plan(priorities: Tables) -> None:
    wanted = Wanted(3.0, {"high": 2.0})
    assert plan(*priorities, wanted) == plan(*priorities, wanted)


def test_machines_and_notebooks_can_read_it(priorities: Tables) -> None:
    found: Plan = plan(*priorities, Wanted(3.0, {"high": 2.0}, backlog=100, drain_s=600, spare=1), cores=2)
    content = json.loads(json.dumps(found.to_mapping(), allow_nan=False))
    assert content["workers"] == found.workers
    assert content["chosen"]["meets"] is True
    assert content["fewer"]["meets"] is False
    assert [wait["queue"] for wait in content["chosen"]["waits"]] == ["high", "default", "low"]
    assert {change["what"] for change in content["changes"]} == {
        "+20 % rate",
        "-20 % rate",
        "+20 % service time",
    }
    html = found._repr_html_()
    assert found.to_mapping()["headline"] in html
    assert html.count("<tr>") == 1 + len(content["chosen"]["waits"]) + 4


def test_queue_names_are_text_in_html(one_queue: Tables) -> None:
    events, trials = one_queue
    found = plan(events.assign(queue="<b>"), trials, Wanted(2.0))
    assert "<b>" not in found._repr_html_()
    assert "&lt;b&gt;" in found._repr_html_()


def test_trials_of_several_kinds_need_a_choice(one_queue: Tables) -> None:
    events, trials = one_queue
    kinds = trials.assign(kind=np.where(trials["workers"] == 3, "fork", "simple"))
    with pytest.raises(LabError, match="the run has kind fork and simple: choose one with --only kind=fork"):
        plan(events, kinds, Wanted(2.0))
    assert plan(events, kinds, Wanted(2.0), only={"kind": "fork"}).measured_counts == (3,)
    with pytest.raises(LabError, match="no good trial has kind 'frok': did you mean 'fork'"):
        plan(events, kinds, Wanted(2.0), only={"kind": "frok"})
    with pytest.raises(LabError, match="no factor 'kin' to choose by: did you mean 'kind'"):
        plan(events, kinds, Wanted(2.0), only={"kin": "fork"})


def test_a_run_that_cannot_answer_says_so(one_queue: Tables) -> None:
    events, trials = one_queue
    with pytest.raises(LabError, match="no jobs on queue 'defualt' to plan from: did you mean 'default'"):
        plan(events, trials, Wanted(2.0, {"defualt": 1.0}))
    with pytest.raises(LabError, match="no good trial"):
        plan(events, trials.assign(status="failed"), Wanted(2.0))
    with pytest.raises(LabError, match="no good trial of the run has a finished job"):
        plan(events.assign(done_ns=None), trials, Wanted(2.0))
    with pytest.raises(LabError, match="events have no column 'queue'"):
        plan(events.drop(columns="queue"), trials, Wanted(2.0))
    with pytest.raises(LabError, match="did not record the workers' memory"):
        plan(events, trials.drop(columns="peak_pss_bytes"), Wanted(2.0, memory_bytes=MIB))
    with pytest.raises(LabError, match=r"trial \d+: more than 1 jobs ran at once"):
        plan(events, trials.assign(workers=1), Wanted(2.0))
    rare = events.assign(queue=["high"] * 5 + ["default"] * (len(events) - 5))
    with pytest.raises(LabError, match="the run has 5 jobs on queue 'high', 20 are needed"):
        plan(rare, trials, Wanted(2.0, {"high": 1.0}))


def test_failed_trials_and_unfinished_jobs_do_not_count(one_queue: Tables) -> None:
    events, trials = one_queue
    status = np.where(trials["workers"] == 6, "failed", "ok")
    done = events["done_ns"].astype("Int64").mask(events.index % 50 == 0)
    found = plan(events.assign(done_ns=done), trials.assign(status=status), Wanted(2.0))
    assert found.measured_counts == (3, 4)
    assert found.workers == 3


def test_a_job_that_never_ended_is_no_overhead(one_queue: Tables) -> None:
    """Its worker looks idle from then on, and every later gap would be one of minutes."""
    events, trials = one_queue
    hung = events.groupby("trial").nth(300).index
    done = events["done_ns"].astype("Int64").mask(events.index.isin(hung))
    evidence = gather(events.assign(done_ns=done), trials)
    for count in evidence.counts.values():
        assert count.overhead.between_jobs > 50
        assert count.overhead.between_s == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_per_s": 0.0}, "rate=0"),
        ({"rate_per_s": float("nan")}, "rate=nan"),
        ({"wait_p95_s": {"default": 0.0}}, "wait-p95 of default=0"),
        ({"backlog": 5}, "belong together"),
        ({"backlog": 0, "drain_s": 5.0}, "backlog=0"),
        ({"memory_bytes": 0}, "memory=0"),
        ({"spare": -1}, "spare=-1"),
    ],
)
def test_what_cannot_be_wanted_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Wanted(**{"rate_per_s": 1.0, **options})
