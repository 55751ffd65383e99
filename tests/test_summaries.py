"""Tables of figures: what they state, and what they leave out as too few."""

import math
from pathlib import Path

import pandas as pd
import pytest
from run_folders import event_row, fill, new_run, trial_row
from scipy.special import stdtrit

from fuze_bench.lab.judgement.stats import quantile
from fuze_bench.lab.judgement.summaries import (
    OF_WAITING,
    comparison_table,
    comparisons,
    figures,
    growing,
    resources_table,
    times_table,
    window_quantiles,
)
from fuze_bench.lab.judgement.tables import GROWS, TOO_FEW, cell, show
from fuze_bench.lab.runs.records import SeriesRow
from fuze_bench.lab.runs.results import KNOWN, load_run


def test_the_comparison_table_compares_with_the_baseline(tmp_path: Path):
    writer, experiment = new_run(tmp_path)
    fill(writer, experiment, {1: [1.0, 3.0], 2: [2.0, 6.0]})
    table = comparison_table(load_run(tmp_path), "throughput_per_s")
    assert list(table.index) == ["1 fork worker", "2 fork workers"]
    assert table.loc["2 fork workers", "median: jobs done per second"] == 4.0
    assert table.loc["2 fork workers", "times 1 fork worker"] == pytest.approx(2.0)
    assert pd.isna(table.loc["1 fork worker", "times 1 fork worker"])


def test_every_interval_of_a_run_that_its_precision_ended_is_wider(tmp_path: Path):
    """That of a ratio, of the baseline's copy to it, and of the noise floor beside each."""
    writer, experiment = new_run(tmp_path, blocks=8)
    for planned in experiment.plan():
        value = 1.0 + 0.1 * (7 * planned.number % 5)
        writer.add(planned, trial_row(planned, throughput_per_s=value), [event_row(planned)])
    widths = []
    for why in ("all 8 blocks done", f"{KNOWN} 5% after 8 blocks"):
        writer.end(why, {})
        found = comparisons(load_run(tmp_path))
        ratios = [c.ratio for c in found] + [c.floor for c in found if c.floor]
        assert len(ratios) == 3
        widths.append([math.log(ratio.high / ratio.low) for ratio in ratios])
    of_all, of_early = widths
    assert [early / whole for early, whole in zip(of_early, of_all, strict=True)] == pytest.approx(
        [stdtrit(7, 0.9775) / stdtrit(7, 0.975)] * 3
    )


def test_the_worst_window_is_not_the_whole_runs_quantile():
    # 60 windows of 1 s with 100 jobs each, one of them 50 times slower.
    events = pd.DataFrame(
        {"intended_ns": 10**15 + window * 10**9 + job, "total_ms": 500.0 if window == 30 else 10.0}
        for window in range(60)
        for job in range(100)
    )
    assert quantile(events["total_ms"].tolist(), 0.95) == 10.0
    curve = window_quantiles(events, "total_ms", 0.9, 1.0)
    assert list(curve.columns) == ["window from, s", "jobs in this window", "p90 of this window, ms"]
    assert list(curve["p90 of this window, ms"]) == [10.0] * 30 + [500.0] + [10.0] * 29
    assert list(curve["window from, s"][:3]) == [0.0, 1.0, 2.0]
    assert set(curve["jobs in this window"]) == {100}
    # A p95 of 100 jobs has 5 beyond it: too few.
    assert window_quantiles(events, "total_ms", 0.95, 1.0)["p95 of this window, ms"].isna().all()
    assert window_quantiles(events[:0], "total_ms", 0.95, 1.0).empty


def test_a_queue_that_grows_in_most_trials_has_no_wait(tmp_path: Path):
    """In no trial of the configuration, so that none is left out for its luck; one that grew once keeps all its waits."""
    spec = {"fixed": {"arrivals": "constant", "rate_per_s": 5}, "factors": {"workers": [1, 2]}, "blocks": 3}
    writer, experiment = new_run(tmp_path, **spec, baseline_copy=False)
    for planned in experiment.plan():
        grows = planned.block <= (2 if planned.configuration.workers == 1 else 1)
        depths = [
            SeriesRow(trial=planned.number, t_s=t, thing="default", metric="depth", value=4.0 * t * grows)
            for t in range(30)
        ]
        jobs = [event_row(planned, job) for job in range(1, 12)]
        writer.add(planned, trial_row(planned, window_s=30.0), jobs, depths)
    run = load_run(tmp_path)
    one, two = run.experiment.labels.values()
    assert growing(run) == {one}
    waits = figures(run).set_index(["label", "block"])[list(OF_WAITING[::2])]
    assert waits.loc[one].isna().all(axis=None)
    assert waits.loc[two].notna().all(axis=None)
    times = times_table(run)
    assert list(times["wait median, s"]) == [GROWS, pytest.approx(0.002)]
    assert list(times["end to end median, s"]) == [GROWS, pytest.approx(0.007)]
    assert times.loc[one, "service median, s"] == pytest.approx(0.005)


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_a_tiny_run_states_too_few_and_no_nonsense(tmp_path: Path, jobs: int):
    writer, experiment = new_run(tmp_path, factors={"workers": [1]}, blocks=1)
    for planned in experiment.plan():
        events = [event_row(planned, job, wait_ms=0, service_ms=0) for job in range(1, jobs + 1)]
        nothing = {"processed": jobs, "throughput_per_s": None, "drain_s": None}
        writer.add(planned, trial_row(planned, **nothing), events)
    run = load_run(tmp_path)
    times = show(times_table(run)).to_html()
    assert times.count(f"{TOO_FEW}: 200 needed") == 4
    for html in (times, show(comparison_table(run)).to_html(), show(resources_table(run)).to_html()):
        cells = [part.split("<")[0].strip() for part in html.split(">")]
        assert not {"inf", "nan", "-0", "-inf", "None", "<NA>"} & set(cells)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-0.0, "0"), (-1e-9, "0"), (math.inf, "–"), (-math.inf, "–"), (math.nan, "–"), (None, "–"),
        (pd.NA, "–"), (999.96, "1,000"), (12345.6, "12,346"), (0.00123, "0.00123"), (-0.5, "-0.5"), (3, "3"),
    ],
)  # fmt: skip
def test_a_cell_is_a_plain_figure(value, shown):
    assert cell(value) == shown
