"""A plan's prediction beside what was measured: what holds, what does not, and what the notebook says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from built_run import built_run
from notebook_runs import answer_in
from scipy import stats

from fuze_bench.cli import main
from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.workloads import Synthetic
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.planning.plan import Plan, plan
from fuze_bench.lab.planning.plan_wanted import Wanted
from fuze_bench.lab.questions import prediction, prediction_plots
from fuze_bench.lab.runs.results import Run

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "capacity_plan.ipynb"
LAW = ServiceLaw(law="lognormal", mean_ms=50, cv=0.7)
RATE, TARGET_S = 40.0, 0.25


def experiment_of(
    rate_per_s: float, *, workers: list[int], duration_s: float = 20.0, seed: int = 1
) -> Experiment:
    return Experiment(
        workload=Synthetic(LAW),
        factors={"workers": workers},
        fixed={"arrivals": "poisson", "rate_per_s": rate_per_s},
        duration_s=duration_s,
        seed=seed,
        baseline_copy=False,
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return built_run(
        tmp_path_factory.mktemp("base") / "run", experiment_of(12, workers=[1], duration_s=60, seed=7)
    )


@pytest.fixture(scope="module")
def made(base: Run) -> Plan:
    return plan(base.events, base.trials, Wanted(RATE, {"default": TARGET_S}), cores=2)


SEEDS = range(1, 9)


@pytest.fixture(scope="module")
def true_ones(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[tuple[prediction.Forecast, ...], Run]]:
    """For each seed what is predicted from one run of these jobs, and another run of the same jobs that comes true."""
    found = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp("true")
        before = built_run(folder / "before", experiment_of(12, workers=[1], duration_s=60, seed=100 + seed))
        experiment = experiment_of(RATE, workers=[2, 3], duration_s=10, seed=seed)
        forecast = prediction.forecasts(before, experiment, target_s=TARGET_S)
        found.append((forecast, built_run(folder / "run", experiment)))
    return found


def test_true_predictions_hold(true_ones: list[tuple[tuple[prediction.Forecast, ...], Run]]) -> None:
    """A range is that of LEVEL of single windows, and a mean over six of them scatters less: of the figures at most 5 %
    lie outside. Of some 32 more than 6 would do so in one of 1,000 test runs, were it exactly 5 %. (Seen: none.)
    """
    checks = [check for forecast, run in true_ones for check in prediction.checked(forecast, run)]
    assert len(checks) == sum(len(each.names) for forecast, _ in true_ones for each in forecast) >= 30
    most = int(stats.binom.ppf(0.999, len(checks), 1 - prediction.LEVEL))
    missed = [check for check in checks if check.held is not Answer.YES]
    assert len(missed) <= most, missed


def test_a_prediction_that_may_hold_as_well_as_not_is_not_said_to_hold(
    made: Plan, true_ones: list[tuple[tuple[prediction.Forecast, ...], Run]]
) -> None:
    forecast, run = true_ones[0]

    def off(each: prediction.Forecast) -> prediction.Forecast:
        """Predicts one figure alone, above the mean that was measured and within its interval."""
        name = each.names[0]
        measured = prediction.measured_figures(run, each.label)[name]
        assert measured.high is not None
        low = (measured.value + measured.high) / 2 + prediction._SLACK[name]
        return replace(each, figures={name: prediction.Range(2 * low, low, 3 * low)})

    unclear = tuple(map(off, forecast))
    assert {check.held for check in prediction.checked(unclear, run)} == {Answer.UNKNOWN}
    said = prediction.whether_it_held(made, unclear, run).sentence
    assert "Measured, what it predicts was shown neither to hold nor not to." in said
    assert "held" not in said
    some = prediction.whether_it_held(made, (forecast[0], *unclear[1:]), run).sentence
    assert "Measured, what it predicts held in part; the rest is unknown." in some


def test_what_is_said_of_a_prediction_that_holds(
    made: Plan, true_ones: list[tuple[tuple[prediction.Forecast, ...], Run]]
) -> None:
    assert prediction.counts_to_measure(made) == [2, 3]
    forecast, run = next(
        (forecast, run)
        for forecast, run in true_ones
        if [each.grows for each in forecast] == [True, False]
        and {check.held for check in prediction.checked(forecast, run)} == {Answer.YES}
    )
    found = prediction.checked(forecast, run)
    said = prediction.whether_it_held(made, forecast, run)
    assert said.sentence.startswith(
        "The plan says 3 workers for 40 jobs per second, 95 % of default within 250 ms."
    )
    assert "Measured, what it predicts held." in said.sentence
    assert "p95 of the wait" not in said.sentence.split("3 simple workers")[0], (
        "a quantile of a growing queue"
    )
    table = prediction.checks_table(found, run)
    assert list(table["measured against predicted"]) == ["held"] * 4
    assert "held" not in prediction.forecasts_table(forecast).to_string()


def test_a_prediction_of_other_jobs_does_not_hold(base: Run, made: Plan, tmp_path: Path) -> None:
    experiment = experiment_of(RATE, workers=[2, 3], seed=2)
    forecast = prediction.forecasts(base, experiment, target_s=TARGET_S)
    run = built_run(tmp_path / "run", experiment, slower=1.4)
    assert {check.held for check in prediction.checked(forecast, run)} == {Answer.NO}
    said = prediction.whether_it_held(made, forecast, run)
    assert "did not hold" in said.sentence
    assert said.sentence.count("predicted: missed.") == 4


@pytest.mark.parametrize("few", ["planned from", "measured"])
def test_below_six_blocks_it_says_where_the_values_lay_and_claims_nothing(
    base: Run, tmp_path: Path, few: str
) -> None:
    """The same figures that six blocks on each side call missed."""
    experiment = experiment_of(RATE, workers=[2, 3], seed=2)
    of_base, of_run = (5, 6) if few == "planned from" else (6, 5)
    trials = base.trials[base.trials["block"] <= of_base]
    planned_from = replace(base, trials=trials)
    forecast = prediction.forecasts(planned_from, experiment, target_s=TARGET_S)
    run = built_run(tmp_path / "run", replace(experiment, blocks=of_run), slower=1.4)
    made = plan(base.events, trials, Wanted(RATE, {"default": TARGET_S}), cores=2)
    found = prediction.checked(forecast, run)
    assert {check.held for check in found} == {Answer.UNKNOWN}
    assert list(prediction.checks_table(found, run)["measured against predicted"]) == ["outside"] * 4
    said = prediction.whether_it_held(made, forecast, run).sentence
    assert said.startswith("Exploratory: the plan says ")
    assert "Measured, 0 of 4 figures lay inside what was predicted." in said
    assert said.count("predicted: outside.") == 4
    assert "held" not in said
    assert "missed" not in said
    as_predicted = [replace(check, measured=check.predicted) for check in found]
    assert {check.outcome for check in as_predicted} == {"inside"}
    assert {replace(check, blocks=6).outcome for check in as_predicted} == {"held"}


def test_what_it_looks_like(base: Run, tmp_path: Path) -> None:
    experiment = experiment_of(RATE, workers=[2, 3], seed=2)
    forecast = prediction.forecasts(base, experiment, target_s=TARGET_S)
    plot = prediction_plots.waits(forecast, built_run(tmp_path / "run", experiment))
    assert [axes.get_title() for axes in plot.figure.axes] == [
        "2 simple workers: more jobs than they can do",
        "3 simple workers: they keep up",
    ]
    assert "3 simple workers: mean wait" in plot.description
    assert plot.png().startswith(b"\x89PNG")


def test_a_law_is_calibrated_from_a_run(base: Run, tmp_path: Path) -> None:
    found = prediction.calibrate(base)
    assert found.law.mean_ms == pytest.approx(LAW.mean_ms, rel=0.1)
    assert found.law.cv == pytest.approx(LAW.cv, rel=0.15)
    assert str(found).endswith("The synthetic jobs sleep for as long, by a lognormal law.")
    shorter = prediction.calibrate(base, longest_mean_ms=20)
    assert (shorter.law.mean_ms, shorter.law.cv) == (20, found.law.cv)
    assert "sleep for 20 ms on average" in str(shorter)
    few = built_run(tmp_path / "few", experiment_of(0.3, workers=[1], duration_s=1))
    with pytest.raises(LabError, match="10 are needed to calibrate from"):
        prediction.calibrate(few)


def test_a_rate_that_keeps_workers_busy(base: Run) -> None:
    services_s = base.events["service_ms"].mean() / 1e3
    assert prediction.rate_to_keep_busy(base, 1.5) * services_s == pytest.approx(1.5, rel=1e-3)


def test_a_forecast_is_of_the_window_and_not_of_the_long_run(base: Run) -> None:
    """A short window begins with an empty queue: its jobs wait less."""
    short, long = (
        prediction.forecasts(base, experiment_of(50, workers=[3], duration_s=duration_s))[0]
        for duration_s in (1, 60)
    )
    assert short.figures[prediction.MEAN].value < 0.8 * long.figures[prediction.MEAN].value
    assert prediction.P95 not in short.figures, "too few jobs to state one"
    assert np.all(short.waits_s >= 0)


def test_the_command_reads_such_a_run(base: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rate", "40", "--wait-p95", "default=250ms", "--memory", "1G", "--json"]
    assert main(["plan", "--run", str(base.folder), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workers"] == 3
    assert found["chosen"]["source"] == "extrapolated"


@pytest.mark.xdist_group("report")
def test_the_notebook_predicts_and_measures(tmp_path: Path) -> None:
    parameters = "{bookmarks: 0, mean_ms: 20, base_jobs: 40, base_blocks: 1, window_s: 1, blocks: 1}"
    executed = tmp_path / "out.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), str(executed), "-y", parameters],
        cwd=tmp_path,
        env={**os.environ, "FUZE_DATA_DIR": str(tmp_path / "data"), "FUZE_EMBEDDING_MODEL": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data" / "runs").iterdir())) == 2
    # Beside other tests it may be that every trial is late: then nothing is claimed.
    assert re.search("Exploratory: the plan|Unknown, as no trial counts", answer_in(executed))


def test_no_plan_is_measured_for_workers_that_take_several_jobs_at_once() -> None:
    with pytest.raises(LabError, match=r"kind='batch': .* give simple or fork"):
        prediction.check_kind("batch")
    prediction.check_kind("simple")
