"""Tables of figures: what they state, and what they leave out as too few."""

import math

import pandas as pd
import pytest

from fuze_bench.lab.spec import Configuration
from fuze_bench.lab.stats import quantile
from fuze_bench.lab.summaries import throughput_table, times_table, window_quantiles
from fuze_bench.lab.tables import TOO_FEW, cell, show


def test_the_throughput_table_compares_with_the_baseline():
    one, two = Configuration("fork", 1), Configuration("fork", 2)
    trials = pd.DataFrame(
        [
            {"kind": "fork", "workers": workers, "block": block, "throughput_per_s": figure}
            for workers, block, figure in [(1, 1, 1.0), (1, 2, 3.0), (2, 1, 2.0), (2, 2, 6.0)]
        ]
    )
    table = throughput_table(trials, [one, two], one)
    assert list(table.index) == ["1 fork worker", "2 fork workers"]
    assert table.loc["2 fork workers", "median, bookmarks/s"] == 4.0
    assert table.loc["2 fork workers", "times 1 fork worker"] == pytest.approx(2.0)
    assert pd.isna(table.loc["1 fork worker", "times 1 fork worker"])


def test_the_times_table_leaves_out_what_is_too_few():
    events = pd.DataFrame(
        [
            {"kind": "fork", "workers": 1, "wait_ms": 1000.0 * n, "service_ms": 500.0, "total_ms": 1500.0}
            for n in range(1, 25)
        ]
    )
    row = times_table(events, [Configuration("fork", 1)]).loc["1 fork worker"]
    assert row["wait median, s"] == 12.5
    assert row["wait 75 %, s"] is None or math.isnan(row["wait 75 %, s"])


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


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_a_tiny_run_states_too_few_and_no_nonsense(jobs):
    one = Configuration("fork", 1)
    events = pd.DataFrame(
        {"kind": "fork", "workers": 1, "wait_ms": 0.0, "service_ms": 0.0, "total_ms": 0.0}
        for _ in range(jobs)
    )
    if not jobs:
        events = pd.DataFrame(columns=["kind", "workers", "wait_ms", "service_ms", "total_ms"])
    trials = pd.DataFrame([{"kind": "fork", "workers": 1, "block": 1, "throughput_per_s": None}])
    times = show(times_table(events, [one]), missing=TOO_FEW).to_html()
    assert times.count(TOO_FEW) == (3 if jobs else 6)
    for html in (times, show(throughput_table(trials, [one], one)).to_html()):
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
