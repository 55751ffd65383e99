"""Queues with priorities: capacity and rates, waits beside theory, growth instead of quantiles, and the answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from notebook_runs import run_notebook

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement.growth import Line
from fuze_bench.lab.judgement.tables import GROWS
from fuze_bench.lab.load.job_load import JobLoad
from fuze_bench.lab.questions import priorities, priority_answer, priority_plots
from fuze_bench.lab.queueing.formulas import cobham_mg1_mean_waits_s, cobham_mmc_mean_waits_s
from fuze_bench.lab.queueing.replay import replay
from fuze_bench.lab.runs.results import KNOWN, Run

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "queue_priorities.ipynb"
QUEUES = ("high", "default", "low")
CAPACITY_PER_S = 20.0


def experiment(utilisations, **options) -> Experiment:
    usual = {"workers": 2, "mean_ms": 100.0, "queues": "high:1,default:2,low:1", "duration_s": 100.0}
    return priorities.at_utilisations(
        utilisations, CAPACITY_PER_S, **{**usual, "blocks": 6, "seed": 1, **options}
    )


def simulated(utilisations, **options) -> Run:
    """A recorded run without a run: two workers without any overhead, jobs of 100 ms on average, put through the
    replay."""
    made = experiment(utilisations, **options)
    trials, events = [], []
    for planned in made.plan():
        c = planned.configuration
        random = np.random.default_rng(planned.block)
        count = random.poisson(c.rate_per_s * made.duration_s)
        came_s = np.sort(random.uniform(0, made.duration_s, count))
        queues = random.choice(3, count, p=[0.25, 0.5, 0.25])
        found = replay(came_s, random.exponential(0.1, count), 2, queues, strategy=c.strategy)
        came_ns, began_ns, ended_ns = (
            (each * 1e9).round().astype("int64") + 5 * 10**15
            for each in (found.arrivals_s, found.starts_s, found.ends_s)
        )
        shared = {
            "trial": planned.number,
            "block": planned.block,
            "label": planned.label,
            "copy": planned.copy,
        }
        events.append(
            pd.DataFrame(
                {
                    **shared,
                    "job": range(1, count + 1),
                    "queue": [QUEUES[n] for n in queues],
                    "intended_ns": came_ns,
                    "sent_ns": came_ns,
                    "queued_ns": came_ns,
                    "started_ns": began_ns,
                    "done_ns": ended_ns,
                    "status": "processed",
                    "wait_ms": (began_ns - came_ns) / 1e6,
                    "ack_ms": 1.0,
                    "total_ms": (ended_ns - came_ns) / 1e6,
                }
            )
        )
        trials.append(
            {
                **shared,
                **c.to_mapping(),
                "status": "ok",
                "problem": None,
                "window_s": made.duration_s,
                "throughput_per_s": 1.0,
                "processed": count,
                "failed": 0,
                "cpu_s": 1.0,
                "peak_pss_bytes": 1,
                "drained": True,
            }
        )
    return Run(
        folder=Path("run"),
        experiment=made,
        settings={},
        machine={},
        trials=pd.DataFrame(trials),
        events=pd.concat(events, ignore_index=True),
        series=pd.DataFrame(columns=["trial", "t_s", "thing", "metric", "value"]),
        ended="all 6 blocks done",
    )


@pytest.fixture(scope="module")
def run() -> Run:
    return simulated({"strict": [0.5, 0.8, 1.1], "round_robin": [0.8, 1.1], "random": [0.8, 1.1]})


def test_utilisations_become_rates_of_the_capacity():
    made = experiment({"strict": [0.5, 1.1], "random": [0.8]})
    found = [(c.strategy, c.rate_per_s, c.workers) for c in made.configurations]
    assert found == [("strict", 10.0, 2), ("strict", 22.0, 2), ("random", 16.0, 2)]


def test_a_block_has_the_same_jobs_for_all_and_the_next_has_others(tmp_path: Path):
    made = experiment({"strict": [0.8], "random": [0.8]}, duration_s=10.0, blocks=2)
    drawn = {(p.block, p.label): JobLoad(p, made, tmp_path).planned_jobs() for p in made.plan()}
    (first, same), (other, _) = ([jobs for (n, _), jobs in drawn.items() if n == block] for block in (1, 2))
    assert len(first) > 100
    assert first == same
    assert first[:100] != other[:100]


@pytest.mark.parametrize(
    "wrong", [{}, {"strict": [1.1]}, {"strict": [0.0]}, {"strict": [float("inf"), 0.5]}, [0.5]], ids=str
)
def test_utilisations_without_any_that_settles_are_refused(wrong):
    with pytest.raises(LabError, match="utilisations"):
        experiment(wrong)


def test_capacity_is_what_the_calibration_did_or_its_problem():
    made = priorities.calibration(2, 20.0, 10)
    of_trial = {"trial": 1, "block": 1, "arrivals": "backlog"}
    trials = pd.DataFrame([{**of_trial, "status": "ok", "problem": None, "throughput_per_s": 57.5}])
    none = pd.DataFrame(columns=["trial"])
    calibrated = Run(Path("run"), made, {}, {}, trials, none, none, "all 1 block done")
    assert priorities.capacity_per_s(calibrated) == 57.5
    trials[["status", "problem"]] = ["failed", "the workers ended with code 1"]
    with pytest.raises(LabError, match="the workers ended with code 1"):
        priorities.capacity_per_s(calibrated)


def test_depths_are_counted_from_the_stamps():
    stamps = pd.DataFrame(
        [("low", 0, 0, 4), ("low", 1, 1, 6), ("high", 2, 2, 2)],
        columns=["queue", "intended_ns", "queued_ns", "started_ns"],
    )
    stamps.iloc[:, 1:] *= 10**9
    found = priorities.depths(stamps, 12.0)
    assert list(found.columns) == ["low", "high"]
    assert [found["low"].loc[t] for t in (0.0, 1.0, 3.0, 4.0, 5.0, 6.0, 12.0)] == [1, 2, 2, 1, 1, 0, 0]
    assert found["high"].max() == 0


def test_prediction_is_cobhams_for_exponential_times_and_less_for_steadier_ones():
    random = np.random.default_rng(1)
    drawn = random.exponential(0.1, 200_000)
    rates = [2.0, 4.0, 2.0]
    exponential = priorities.predicted_waits_s(rates, drawn.tolist(), 2, 0.0)
    assert exponential == pytest.approx(cobham_mmc_mean_waits_s(rates, 0.1, 2), rel=0.02)
    constant = priorities.predicted_waits_s([2.0, 4.0], [0.1] * 100, 1, 0.0)
    assert constant == pytest.approx(cobham_mg1_mean_waits_s([2.0, 4.0], [0.1, 0.1], [0.0, 0.0]))
    # Idle workers take 5 ms to begin: with next to nothing to do, that is the wait.
    assert priorities.predicted_waits_s([0.001], [0.1] * 100, 1, 0.005) == pytest.approx([0.005], rel=0.01)
    assert priorities.predicted_waits_s([20.0, 1.0], [0.1] * 100, 2, 0.0) == [None, None]


def test_by_trial_meets_the_simulated_queue_and_cobham(run: Run):
    table = priorities.by_trial(run, CAPACITY_PER_S)
    # The very jobs, put through the very queue; random draws anew.
    same = table[table["strategy"] != "random"]
    assert np.allclose(
        same["mean_wait_s"].astype(float), same["replay_s"].astype(float), rtol=1e-6, atol=1e-6
    )
    random = table[table["strategy"] == "random"].groupby("utilisation")[["mean_wait_s", "replay_s"]].mean()
    assert random.loc[0.8, "mean_wait_s"] == pytest.approx(random.loc[0.8, "replay_s"], rel=0.05)
    strict = table[(table["strategy"] == "strict") & ~table["copy"]]
    half = (
        strict[strict["utilisation"] == 0.5].groupby("queue")[["mean_wait_s", "cobham_s", "recorded"]].mean()
    )
    assert half["recorded"].to_numpy() == pytest.approx(0.5, rel=0.05)
    for queue in QUEUES:
        assert half.loc[queue, "mean_wait_s"] == pytest.approx(half.loc[queue, "cobham_s"], rel=0.15)
    assert table[table["strategy"] != "strict"]["cobham_s"].isna().all()
    must_grow = table[table["must_grow"]].groupby("strategy")["queue"].unique()
    assert {strategy: list(queues) for strategy, queues in must_grow.items()} == {
        "strict": ["low"],
        "round_robin": ["default"],
        "random": ["default"],
    }


def test_a_queue_that_grows_has_no_quantile_and_says_by_how_much(run: Run):
    table = priorities.waits_table(run, CAPACITY_PER_S)
    low = table.loc["110% strict: low"]
    assert (low["mean wait, ms"], low["p95 wait, ms"]) == (GROWS, GROWS)
    # 20 of 22 jobs a second are done, so that two a second are left over.
    assert float(low["growth, jobs per second"].split()[0]) == pytest.approx(2.0, rel=0.5)
    high = table.loc["110% strict: high"]
    assert high["p95 wait, ms"] > high["mean wait, ms"] > 0
    assert list(table.index[:4]) == [
        "50% strict: high",
        "50% strict: default",
        "50% strict: low",
        "80% strict: high",
    ]


@pytest.mark.parametrize(
    ("slopes", "grew", "grows"),
    [
        ([2.0, 2.2, 1.8], [True, True, False], True),
        ([2.0, -2.0, 0.5], [True, True, False], False),
        ([0.2, 0.21, 0.22], [False, True, False], False),
    ],
    ids=["clear", "scattered", "filling up"],
)
def test_growth_over_several_trials_is_in_their_mean_and_in_most_of_them(slopes, grew, grows):
    rows = pd.DataFrame({"slope": [Line(0, s, s - 9, s + 9, 5, 30.0) for s in slopes], "grew": grew})
    slope = priorities.slope_of(rows)
    assert slope.mean == pytest.approx(sum(slopes) / 3)
    assert slope.grows is grows
    assert str(slope).startswith("grows by") is grows


def test_growth_of_one_trial_is_its_own_verdict_and_of_none_unknown():
    rows = pd.DataFrame({"slope": [Line(0, 2.0, 1.0, 3.0, 5, 30.0)], "grew": True})
    assert str(priorities.slope_of(rows)) == "grows by 2 per second (1 to 3)"
    assert priorities.slope_of(pd.DataFrame({"slope": [None], "grew": False})) is None


def test_a_queue_that_has_to_grow_has_no_wait_even_where_that_was_not_seen():
    rows = pd.DataFrame({"slope": [None], "grew": False, "must_grow": [True]})
    assert priorities.has_no_wait(rows)
    assert not priorities.has_no_wait(rows.assign(must_grow=False))


def test_the_interval_of_a_run_that_its_precision_ended_is_wider(run: Run):
    bounds = []
    for ended in (run.ended, f"{KNOWN} 5% after 6 blocks"):
        sentence = priority_answer.do_priorities_work(replace(run, ended=ended), CAPACITY_PER_S).sentence
        [found] = re.findall(r"times as long as high \(([\d.]+) to ([\d.]+)\)", sentence)
        bounds.append([float(bound) for bound in found])
    (low, high), (early_low, early_high) = bounds
    assert early_low < low < high < early_high


def test_the_answer_says_that_priorities_work_and_who_starves(run: Run):
    answer = priority_answer.do_priorities_work(run, CAPACITY_PER_S)
    assert answer.sentence.startswith("Priorities work: at 80% with strict, low waited ")
    interval = r"[\d.]+ times \([\d.]+ to [\d.]+\)"
    unclear = "(, a difference that was not shown)?"
    said = rf"The same with round robin {interval}{unclear}; with random {interval}{unclear}\."
    assert re.search(said, answer.sentence)
    assert "At 110% with strict: low grows by" in answer.sentence
    assert "high and default did not." in answer.sentence
    assert "At 110% with round robin: default grows by" in answer.sentence
    assert not [doubt for doubt in answer.doubts if "calibrated" in doubt]


def test_what_a_batch_worker_holds_is_a_doubt() -> None:
    of_batch, of_simple = (simulated({"strict": [0.8]}, kind=kind, blocks=1) for kind in ("batch", "simple"))
    doubts = [priority_answer.do_priorities_work(run, CAPACITY_PER_S).doubts for run in (of_batch, of_simple)]
    assert [any("batch worker holds" in each for each in found) for found in doubts] == [True, False]


def test_the_answer_of_one_block_is_exploratory_and_doubts_the_calibration():
    once = simulated({"strict": [0.5], "random": [0.5]}, blocks=1)
    answer = priority_answer.do_priorities_work(once, CAPACITY_PER_S)
    assert answer.sentence.startswith("Exploratory: At 50% with strict, low waited ")
    assert "starves" not in answer.sentence
    # The workers were half as fast as the calibration had it: what was to be 25 % of it kept them busy for 50 %.
    slower = priority_answer.do_priorities_work(once, 2 * CAPACITY_PER_S)
    assert any("At 25% of the calibrated capacity" in doubt for doubt in slower.doubts)


def test_plots_name_every_strategy_and_leave_nothing_cut_off(run: Run):
    waits = priority_plots.waits(run, CAPACITY_PER_S)
    (legend,) = waits.figure.legends
    named = " ".join(text.get_text() for text in legend.get_texts())
    assert all(word in named for word in ("strict", "round robin", "random", "Cobham"))
    assert [axes.get_title() for axes in waits.figure.axes] == [
        "50% of capacity: lower is better",
        "80% of capacity: lower is better",
    ]
    depth = priority_plots.depth_over_time(run, CAPACITY_PER_S)
    assert len(depth.figure.axes) == 3
    for axes in depth.figure.axes:
        assert max(line.get_ydata().max() for line in axes.lines) <= axes.get_ylim()[1]
    assert depth.png().startswith(b"\x89PNG")


def test_of_a_run_that_was_stopped_after_the_baselines_copy_nothing_is_drawn(run: Run):
    stopped = replace(run, trials=run.trials[run.trials["trial"] == 1].assign(copy=True))
    for plot in (priority_plots.waits, priority_plots.depth_over_time):
        found = plot(stopped, CAPACITY_PER_S)
        assert found.description.startswith("Nothing to draw")
        assert found.png().startswith(b"\x89PNG")


@pytest.mark.xdist_group("report")
def test_the_notebook_measures_and_reads_back(tmp_path: Path):
    tiny = "{utilisations: {strict: [0.5]}, workers: 1, mean_ms: 10.0, calibration_jobs: 10, duration_s: 1}"
    run_notebook(NOTEBOOK, tmp_path, tiny)
    folders = sorted((tmp_path / "data" / "runs").iterdir())
    assert [folder.name.split("-", 1)[1] for folder in folders] == ["calibration", "queue-priorities"]
    again = run_notebook(NOTEBOOK, tmp_path, f"{{run_dirs: [{folders[0]}, {folders[1]}]}}")
    assert sorted((tmp_path / "data" / "runs").iterdir()) == folders
    # Beside other tests it may be that every trial is late: then nothing is claimed.
    assert re.search("Exploratory: |Unknown, as no trial counts", again)
