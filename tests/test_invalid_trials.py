"""A trial that ended well and that a verdict makes invalid counts nowhere: in no table, no plan, no answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from built_run import built_run
from run_folders import event_row, new_run, trial_row
from test_fallback_timeline import by_hand
from test_prediction import experiment_of
from test_priorities import CAPACITY_PER_S, simulated

from fuze_bench.cli import main
from fuze_bench.errors import LabError
from fuze_bench.lab.experiments import run as run_module
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Trial
from fuze_bench.lab.judgement import checks, stats, summaries, tables, trial_verdicts
from fuze_bench.lab.judgement.verdicts import Answer, Verdict
from fuze_bench.lab.planning.plan import plan
from fuze_bench.lab.planning.plan_wanted import Wanted
from fuze_bench.lab.questions import (
    answers,
    fallback_timeline,
    plots,
    prediction,
    prediction_plots,
    priorities,
    priority_answer,
    priority_plots,
)
from fuze_bench.lab.questions.plots import Plot
from fuze_bench.lab.report.findings import Finding, Findings, trials_table
from fuze_bench.lab.runs.records import EventRow
from fuze_bench.lab.runs.results import Run, RunWriter, load_run
from fuze_bench.pipeline.settings import Settings

_LATE_NS = 50_000_000


def late(run: Run, *trials: int) -> Run:
    """The run with every send of these trials 50 ms late; of none: of all trials."""
    events = run.events.copy()
    mine = events["trial"].isin(trials or run.trials["trial"])
    events.loc[mine, "sent_ns"] = events.loc[mine, "intended_ns"] + _LATE_NS
    for name in ("acknowledged_ns", "queued_ns", "started_ns", "done_ns"):
        if name in events:
            events.loc[mine, name] = events.loc[mine, name] + _LATE_NS
    return replace(run, events=events)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six blocks of one worker, offered jobs at random times; the second trial has a late generator."""
    folder = tmp_path_factory.mktemp("built")
    whole = built_run(folder / "whole", experiment_of(12, workers=[1], duration_s=20))
    (folder / "run").mkdir()
    writer = RunWriter.new(folder / "run", whole.experiment, settings={}, machine=dict(whole.machine))
    for planned in whole.experiment.plan():
        row = whole.trials[whole.trials["trial"] == planned.number].iloc[0]
        changed = late(whole, planned.number) if planned.number == 2 else whole
        of_trial = changed.events[changed.events["trial"] == planned.number]
        names = [field.name for field in dataclasses.fields(EventRow)]
        events = [
            EventRow(**{n: None if pd.isna(v) else v for n, v in zip(names, values, strict=True)})
            for values in of_trial[names].itertuples(index=False, name=None)
        ]
        kept = ("window_s", "offered", "sent", "acknowledged", "processed", "drain_s", "throughput_per_s")
        writer.add(planned, trial_row(planned, **{name: row[name] for name in kept}), events)
    return load_run(folder / "run")


def test_what_counts_leaves_it_out(built: Run) -> None:
    assert built.invalid == {2}
    assert list(built.good_trials()["trial"]) == [1, 3, 4, 5, 6]
    assert set(built.good_events()["trial"]) == {1, 3, 4, 5, 6}
    assert list(summaries.figures(built)["trial"]) == [1, 3, 4, 5, 6]
    [jobs] = summaries.times_table(built)["jobs"]
    assert jobs == (built.events["trial"] != 2).sum()


def test_its_block_is_none_for_a_claim(built: Run) -> None:
    assert built.experiment.blocks == stats.BLOCKS_TO_CONCLUDE
    [few] = [v for v in checks.verdicts_on(built) if v.name == "too few blocks"]
    assert (few.answer, few.reason) == (Answer.YES, "5 blocks, 6 are needed for a claim")
    doubts = checks.doubts(built)
    assert any(doubt.startswith("Only 5 blocks: exploratory") for doubt in doubts)
    assert any(doubt.startswith("Load generator late (trial 2, which does not count)") for doubt in doubts)


def test_a_plan_is_made_without_it(built: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--run", str(built.folder), "--rate", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["blocks"] == 5
    counted = (built.events["trial"] != 2).sum()
    assert prediction.calibrate(built).recorded_jobs == counted
    assert len(prediction.measured_waits(built, "1 simple worker")) == 5


def test_a_prediction_is_made_without_it(built: Run) -> None:
    """One job of the trial that does not count takes an hour."""
    events = built.events.copy()
    events.loc[events[events["trial"] == 2].index[0], "done_ns"] += 3_600_000_000_000
    [with_it], [without] = (
        prediction.forecasts(run, experiment_of(12, workers=[1], duration_s=5), seed=3)
        for run in (replace(built, events=events), built)
    )
    assert with_it.figures == without.figures


def test_the_reports_table_says_so(built: Run) -> None:
    texts = dict.fromkeys(("name", "title", "plot", "plot_description"), "x")
    finding = Finding(**texts, failure=None, took_s=0.0, answer=None, runs=(built,), node=None)
    table = trials_table(Findings((finding,), None, "")).set_index("trial")
    assert list(table["status"]) == ["ok", "does not count", "ok", "ok", "ok", "ok"]
    assert table["median wait, s"].isna().tolist() == [False, True, False, False, False, False]


def test_priorities_are_answered_without_it() -> None:
    run = simulated({"strict": [0.5]}, blocks=2, duration_s=20.0)
    first = run.experiment.plan()[0].number
    found = late(run, first)
    assert first in set(priorities.by_trial(run, CAPACITY_PER_S)["trial"])
    assert first not in set(priorities.by_trial(found, CAPACITY_PER_S)["trial"])


def test_the_fallback_is_told_without_it() -> None:
    run = by_hand(blocks=2)
    away = run.trials[run.trials["faults"].notna()]["trial"]
    found = late(run, int(away.iloc[0]))
    assert list(fallback_timeline.outages_table(run).index) == list(away)
    assert list(fallback_timeline.outages_table(found).index) == list(away)[1:]
    before, after = (fallback_timeline.saves_table(each)["saves"].sum() for each in (run, found))
    assert after == before - 10


def shown(*cells: object) -> list[str]:
    """What cells of a notebook show: of a plot its description, of a table how many rows it has."""
    words = [f"{len(cell)} rows" if isinstance(cell, pd.DataFrame) else str(cell) for cell in cells]
    for cell in cells:
        if isinstance(cell, Plot):
            assert cell.png().startswith(b"\x89PNG")
        elif isinstance(cell, pd.DataFrame):
            tables.show(cell)
    return words


def test_where_none_counts_priorities_are_unknown() -> None:
    run = late(simulated({"strict": [0.5, 1.1], "random": [1.1]}, blocks=2, duration_s=10.0))
    table, *plots, answer = shown(
        priorities.waits_table(run, CAPACITY_PER_S),
        priority_plots.waits(run, CAPACITY_PER_S),
        priority_plots.depth_over_time(run, CAPACITY_PER_S),
        priority_answer.do_priorities_work(run, CAPACITY_PER_S),
    )
    assert table == "0 rows"
    assert plots == ["Nothing to draw: no trial counts."] * 2
    assert answer.startswith(
        "Unknown, as no trial counts: whether priorities work.\n- Load generator late (trials 1"
    )


def test_where_none_counts_the_fallback_is_unknown() -> None:
    run = late(by_hand(blocks=2))
    plot, saves, outages, answer = shown(
        fallback_timeline.timeline(run),
        fallback_timeline.saves_table(run),
        fallback_timeline.outages_table(run),
        fallback_timeline.what_the_fallback_costs(run),
    )
    assert (plot, saves, outages) == ("Nothing to draw: no trial counts.", "3 rows", "0 rows")
    assert answer.startswith("Unknown, as no trial counts: what the fallback costs.\n- Load generator late")


def test_where_none_counts_worker_counts_are_unknown(built: Run) -> None:
    run = late(built)
    plot, *found, answer = shown(
        plots.against(run, "workers", plots.OF_WORKERS),
        summaries.comparison_table(run, "throughput_per_s"),
        summaries.times_table(run),
        summaries.stages_table(run),
        summaries.resources_table(run),
        answers.how_many_workers(run),
    )
    assert plot == "Nothing to draw: no trial counts."
    assert found == ["1 rows"] * 4
    first, *doubts = answer.splitlines()
    assert first == "Unknown, as no trial counts: which configuration is fastest."
    assert any(doubt.startswith("- Load generator late (trials 1, 2, 3") for doubt in doubts)


def test_where_none_counts_a_prediction_is_unknown(built: Run, tmp_path: Path) -> None:
    made = plan(
        built.events, built.trials, Wanted(rate_per_s=20, wait_p95_s={"default": 1.0}), cores=2, seed=1
    )
    forecast = prediction.forecasts(built, experiment_of(20, workers=[2, 3], duration_s=5), target_s=1.0)
    run = late(built_run(tmp_path / "run", experiment_of(20, workers=[2, 3], duration_s=5)))
    table, plot, answer = shown(
        prediction.checks_table(prediction.checked(forecast, run), run),
        prediction_plots.waits(forecast, run),
        prediction.whether_it_held(made, forecast, run),
    )
    assert (table, plot) == ("0 rows", "Nothing to draw: no trial counts.")
    assert answer.startswith("Unknown, as no trial counts: whether it is true that the plan says")


def test_where_all_failed_there_is_an_error(tmp_path: Path) -> None:
    """Nothing was busy then: something is broken."""
    writer, experiment = new_run(tmp_path, blocks=1)
    for planned in experiment.plan():
        writer.add(planned, trial_row(planned, status="failed", problem="no space left"), [])
    with pytest.raises(LabError, match="holds no trial that counts: see `problem`"):
        answers.how_many_workers(load_run(tmp_path))


def test_a_trial_that_was_late_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that oversleeps in the first attempt at the first trial, and in every one at the third."""
    seen: list[int] = []

    class Sleepy(Trial):
        def measure(self, on_progress: Callable[[int, int], None]) -> None:
            super().measure(on_progress)
            number = self.row().trial
            seen.append(number)
            if number == 3 or seen == [1]:
                self.events[:] = [replace(e, sent_ns=e.intended_ns + _LATE_NS) for e in self.events]

    monkeypatch.setattr(run_module, "Trial", Sleepy)
    experiment = Experiment.from_mapping(
        {
            "workload": {"kind": "synthetic", "mean_ms": 1},
            "fixed": {"workers": 1, "arrivals": "constant", "rate_per_s": 10},
            "duration_s": 0.5,
            "blocks": 3,
            "baseline_copy": False,
        }
    )
    run = run_module.run_experiment(experiment, Settings(data_dir=tmp_path))
    assert seen == [1, 1, 2, 3, 3, 3]
    assert list(run.trials["late_before"]) == [1, 0, 2]
    assert list(run.good_trials()["trial"]) == [1, 2]
    assert list(run.events.groupby("trial")["job"].count()) == [5, 5, 5]


def test_any_verdict_may_make_a_trial_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name in INVALIDATING is all that it takes, as CONTRIBUTING says."""
    writer, experiment = new_run(tmp_path)
    first, second, *_ = experiment.plan()
    writer.add(first, trial_row(first, lost=1), [event_row(first)])
    writer.add(second, trial_row(second), [event_row(second)])
    assert list(load_run(tmp_path).good_trials()["trial"]) == [1, 2]
    monkeypatch.setattr(trial_verdicts, "INVALIDATING", frozenset({"lost"}))
    assert list(load_run(tmp_path).good_trials()["trial"]) == [2]
    assert trial_verdicts.invalid_trials([Verdict("lost", Answer.YES, "", 7)]) == {7}
