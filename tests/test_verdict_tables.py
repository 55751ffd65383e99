"""Doubts beside the figures: the same words in every table, for the trials of each row; and all verdicts as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from built_run import built_run
from run_folders import event_row, new_run, trial_row
from test_fallback_timeline import by_hand
from test_prediction import experiment_of
from test_priorities import CAPACITY_PER_S, simulated

from fuze_bench.lab.judgement import summaries, tables
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_on, too_small_to_tell, verdicts_table
from fuze_bench.lab.questions import fallback_timeline, prediction, priorities
from fuze_bench.lab.questions.prediction import Check, Range
from fuze_bench.lab.report.findings import Finding, Findings, trials_table
from fuze_bench.lab.report.index_page import index_page
from fuze_bench.lab.runs.records import SeriesRow
from fuze_bench.lab.runs.results import Run, load_run

UNKNOWN = "unknown: load generator saturated"
#: Of the five trials that ended well, each of eleven jobs.
TOO_SMALL = "Not told by trials this small: trend inside the window (5 of 6 trials): too few: 11 jobs are done, 60 are needed."
GROWS = f"growing backlog (2 of 3 trials); {UNKNOWN} (all 3 trials)"
#: Of the verdicts on a failed trial there is none.
OF_TWO = (
    "failed (1 of 3 trials, not counted); load generator late (1 of 3 trials, not counted);"
    f" {UNKNOWN} (2 of 3 trials)"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three blocks of one worker, whose queue grows in the first two, and of two, of which the second trial failed and in
    the third every job was sent late."""
    spec = {"fixed": {"arrivals": "constant", "rate_per_s": 5}, "factors": {"workers": [1, 2]}, "blocks": 3}
    writer, experiment = new_run(tmp_path_factory.mktemp("run"), **spec, baseline_copy=False)
    for planned in experiment.plan():
        two, block = planned.configuration.workers == 2, planned.block
        rising = 4.0 * (not two and block < 3)
        depths = [
            SeriesRow(trial=planned.number, t_s=t, thing="default", metric="depth", value=rising * t)
            for t in range(30)
        ]
        jobs = [event_row(planned, job, wait_ms=60) for job in range(1, 12)]
        if two and block == 3:
            jobs = [
                replace(job, sent_ns=job.intended_ns + 50_000_000, acknowledged_ns=job.started_ns, queued_ns=job.started_ns)
                for job in jobs
            ]  # fmt: skip
        ended = {"status": "failed", "problem": "no <space>"} if two and block == 2 else {}
        writer.add(planned, trial_row(planned, window_s=30.0, duplicated=0, **ended), jobs, depths)
    return load_run(writer.folder)


def test_a_row_names_what_holds_for_its_trials_and_what_cannot_be_told(run: Run) -> None:
    for table in (summaries.comparison_table(run, "throughput_per_s"), summaries.times_table(run)):
        assert list(table[DOUBTS]) == [GROWS, OF_TWO]
        assert list(table.columns)[-1] == DOUBTS
        assert table.attrs[tables.BELOW] == TOO_SMALL
    [of_one, of_two] = run.experiment.labels.values()
    predicted = Range(1.0, 0.5, 1.5)
    checks = [Check(label, prediction.MEAN, predicted, predicted, 3) for label in (of_two, of_one)]
    checked = prediction.checks_table(checks, run)
    assert list(checked[DOUBTS]) == [OF_TWO, GROWS]
    assert checked.attrs[tables.BELOW] == TOO_SMALL
    assert doubts_on(run, []) == "no trial"
    leave_out = frozenset({"growing backlog", "load generator saturated"})
    [growing, *_] = run.growing
    assert doubts_on(run, [growing], leave_out=leave_out - {"growing backlog"}) == "growing backlog"
    assert doubts_on(run, [growing], leave_out=leave_out) == "none"


def test_the_reports_table_says_it_of_every_trial(run: Run) -> None:
    texts = dict.fromkeys(("name", "title", "plot", "plot_description"), "x")
    finding = Finding(**texts, failure=None, took_s=0.0, answer=None, runs=(run,), node=None)
    table = trials_table(Findings((finding,), None, "")).set_index(["configuration", "block"])[DOUBTS]
    one, two = run.experiment.labels.values()
    assert [table[one, block] for block in (1, 3)] == [f"growing backlog; {UNKNOWN}", UNKNOWN]
    assert list(table[two]) == [UNKNOWN, "failed", f"load generator late; {UNKNOWN}"]


def test_what_trials_are_too_small_for_is_said_once_below(run: Run, tmp_path: Path) -> None:
    assert too_small_to_tell(run) == TOO_SMALL
    assert too_small_to_tell(run, run).startswith(TOO_SMALL.partition("(")[0] + "(10 of 12 trials)")
    assert too_small_to_tell(run, leave_out=frozenset({"trend inside the window"})) == ""
    html = tables.show(summaries.times_table(run)).to_html()
    assert html.count("trend inside the window") == 1
    assert f"<span class='below'>{TOO_SMALL}</span></caption>" in html
    assert "caption" not in tables.show(summaries.stages_table(run)).to_html()
    texts = dict.fromkeys(("name", "title", "plot", "plot_description"), "x")
    finding = Finding(**texts, failure=None, took_s=0.0, answer=None, runs=(run,), node=None)
    page = index_page(Findings((finding,), None, ""), speed="", written_at="today")
    assert page.count(TOO_SMALL) == 1


def test_queues_of_one_configuration_share_its_doubts() -> None:
    run = simulated({"strict": [0.5, 1.1]}, blocks=2, duration_s=30.0)
    table = priorities.waits_table(run, CAPACITY_PER_S)[DOUBTS]
    assert len(table) == 6
    assert len(set(table[:3])) == len(set(table[3:])) == 1
    assert table.iloc[0].endswith("(all 2 trials)")
    growing = ["growing backlog" in text for text in table]
    assert growing == [False] * 3 + [True] * 3, "without a series it is told by the jobs' stamps"


def test_the_fallbacks_table_has_them_too() -> None:
    assert all(
        text.startswith("unknown: ") for text in fallback_timeline.saves_table(by_hand(blocks=2))[DOUBTS]
    )


def test_every_verdict_is_counted_and_what_holds_comes_first(run: Run) -> None:
    table = verdicts_table(run)
    assert list(table.columns) == ["yes", "no", "unknown", "first reason"]
    assert list(table.index[:3]) == ["too few blocks", "growing backlog", "load generator late"]
    assert set(table["yes"][3:]) == {0}
    assert list(table.loc["growing backlog"][["yes", "no", "unknown"]]) == [2, 3, 0]
    assert list(table.loc["trend inside the window"][["yes", "no", "unknown"]]) == [0, 0, 5]
    first = min(run.growing)
    assert table.loc["growing backlog", "first reason"].startswith(f"trial {first}: default grows by ")
    assert table.loc["too few blocks", "first reason"] == "3 blocks, 6 are needed for a claim"
    assert table.loc["lost", "first reason"] == "trial 1: every acknowledged job came to an end"


def test_a_backlog_that_comes_at_once_does_not_grow(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path)
    for planned in experiment.plan():
        writer.add(planned, trial_row(planned, duplicated=0), [event_row(planned)])
    table = summaries.comparison_table(load_run(tmp_path), "throughput_per_s")
    assert list(table[DOUBTS]) == ["none"] * 2


def test_long_text_may_be_broken_into_lines_and_is_no_html() -> None:
    table = pd.DataFrame({"figure": [1.234567, 2.0], "why": ["<b>" + 50 * "x", "short"]}, index=["a", "a"])
    html = tables.show(table).to_html()
    assert "<span class='words'>&lt;b&gt;xxx" in html
    assert "<span class='words'>short</span>" in html
    assert html.count("words") == 2
    assert ">1.23<" in html


def test_a_run_built_from_a_queue_has_no_doubt_but_its_senders_ceiling(tmp_path: Path) -> None:
    run = built_run(tmp_path / "run", experiment_of(12, workers=[1], duration_s=20))
    [text] = summaries.times_table(run)[DOUBTS]
    assert "load generator saturated" in text
    assert "lost" not in text
