"""Run folders: nothing that was measured is lost, and what is read back means what was written."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from run_folders import STAMP_NS, event_row, fill, new_run, trial_row

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement import checks, summaries
from fuze_bench.lab.questions import answers
from fuze_bench.lab.questions.notebook import EXAMPLE_RUN
from fuze_bench.lab.questions.pool_baseline import against_pool
from fuze_bench.lab.runs.records import DERIVED_EVENT_COLUMNS, EventRow, SeriesRow, TrialRow, columns
from fuze_bench.lab.runs.results import KNOWN, RunWriter, load_run, new_folder


def test_after_every_trial_all_of_it_is_on_the_disk(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path)
    assert len(load_run(writer.folder).trials) == 0
    first, second, *_ = experiment.plan()
    writer.add(first, trial_row(first), [event_row(first)])
    sample = SeriesRow(trial=2, t_s=-0.5, thing="default", metric="depth", value=3.0)
    writer.add(second, trial_row(second), [event_row(second), event_row(second, 2, wait_ms=None)], [sample])
    run = load_run(writer.folder)
    assert list(run.trials["trial"]) == [1, 2]
    assert list(run.trials["workers"]) == [first.configuration.workers, second.configuration.workers]
    assert (run.planned_trials, run.ended) == (6, None)
    assert list(run.events["queued_ns"]) == [STAMP_NS] * 3, "stamps must stay exact"
    assert list(run.events["wait_ms"].dropna()) == [2.0, 2.0]
    assert list(run.events["total_ms"].dropna()) == [7.0, 7.0]
    assert run.series.to_dict("records") == [vars(sample)]
    assert not list(writer.folder.glob("*.tmp"))


def test_a_run_that_is_gone_on_with_keeps_every_row(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path)
    first, second, *_ = experiment.plan()
    sample = SeriesRow(trial=1, t_s=0.5, thing="default", metric="depth", value=3.0)
    writer.add(
        first, trial_row(first, problem="x", status="failed"), [event_row(first, wait_ms=None)], [sample]
    )
    again = RunWriter.going_on(load_run(tmp_path))
    assert again.done == {1}
    again.add(second, trial_row(second), [event_row(second)])
    run = load_run(tmp_path)
    assert list(run.trials["status"]) == ["failed", "ok"]
    assert run.series.to_dict("records") == [vars(sample)]
    assert list(run.events["queued_ns"]) == [STAMP_NS] * 2
    assert list(run.events["started_ns"].isna()) == [True, False]


def test_only_what_ended_well_is_good(tmp_path: Path) -> None:
    """Whatever the order in which trials were recorded; tables are in that of their numbers."""
    writer, experiment = new_run(tmp_path)
    first, second, third, *_ = experiment.plan()
    writer.add(third, trial_row(third), [event_row(third)])
    writer.add(first, trial_row(first), [event_row(first), event_row(first, 2)])
    writer.add(second, trial_row(second, status="failed", problem="x"), [event_row(second)])
    run = load_run(tmp_path)
    assert list(run.trials["trial"]) == [1, 2, 3]
    assert list(run.events["trial"]) == [1, 1, 2, 3]
    assert list(run.good_trials()["trial"]) == [1, 3]
    assert list(run.good_events()["trial"]) == [1, 1, 3]


def test_each_time_is_between_the_stamps_that_it_says(tmp_path: Path) -> None:
    """Steps of 1, 2, 4, 8 and 16 ms from intended to done: no two times are the same."""
    writer, experiment = new_run(tmp_path)
    planned = experiment.plan()[0]
    names = ("sent_ns", "acknowledged_ns", "queued_ns", "started_ns", "done_ns")
    stamps_ns = itertools.accumulate((2**n * 1_000_000 for n in range(5)), initial=STAMP_NS)
    event = replace(event_row(planned), **dict(zip(("intended_ns", *names), stamps_ns, strict=True)))
    writer.add(planned, trial_row(planned), [event])
    [found] = load_run(tmp_path).events[list(DERIVED_EVENT_COLUMNS)].to_dict("records")
    assert found == {
        "late_ms": 1, "ack_ms": 3, "ack_service_ms": 2, "wait_ms": 8, "service_ms": 16, "total_ms": 31,
    }  # fmt: skip


def test_a_run_says_whether_it_knew_enough(tmp_path: Path) -> None:
    writer, _ = new_run(tmp_path)
    for why, early in ((f"{KNOWN} 5% after 8 blocks", True), ("all 8 blocks done", False)):
        writer.end(why, {})
        assert load_run(tmp_path).ended_early is early


def test_two_runs_of_one_second_have_two_folders(tmp_path: Path) -> None:
    assert new_folder(tmp_path, "x") != new_folder(tmp_path, "x")


def test_every_column_says_what_it_means() -> None:
    for row_type in (TrialRow, EventRow, SeriesRow):
        assert all(columns(row_type).values())
    assert columns(TrialRow)["redis_rtt_ms"]


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    writer, _ = new_run(tmp_path)
    spec = json.loads((writer.folder / "spec.json").read_text())
    (writer.folder / "spec.json").write_text(json.dumps(spec | {"format_version": 99}))
    with pytest.raises(LabError, match="format version 99"):
        load_run(writer.folder)


def test_a_folder_that_holds_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"is not a run folder"):
        load_run(tmp_path)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    writer, _ = new_run(tmp_path)
    (writer.folder / "trials.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LabError, match=r"trials\.parquet cannot be read"):
        load_run(writer.folder)


def test_a_run_whose_pages_are_elsewhere_can_still_be_read(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    writer, _ = new_run(tmp_path / "run", fixed={"pages": str(pages)})
    pages.rmdir()
    assert load_run(writer.folder).experiment.baseline.pages == "pages"
    assert str(tmp_path) not in (writer.folder / "spec.json").read_text()


def test_the_conclusion_is_computed_and_says_its_doubts(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path, blocks=3)
    fill(writer, experiment, {1: [1.0, 1.1, 0.9], 2: [2.0, 2.2, 1.8]}, lost=1)
    writer.end("all 3 blocks done", {})
    found = answers.how_many_workers(load_run(tmp_path))
    assert found.sentence.startswith("Exploratory: 2 fork workers had the highest median throughput")
    assert "2 fork workers was 2 times 1 fork worker in 3 blocks" in found.sentence
    assert "each step up to 2 workers paid" in found.sentence
    assert any(doubt.startswith("Lost (trials 1, 2, 3, 4, 5, 6 and 3 more)") for doubt in found.doubts)
    assert any("Only 3 blocks: exploratory" in doubt for doubt in found.doubts)


def test_with_enough_blocks_it_claims_and_says_where_more_workers_stop_paying(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path, factors={"workers": [1, 2, 4]}, blocks=8)
    one = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 1.0]
    fill(writer, experiment, {1: one, 2: [1.8 * x for x in one], 4: [1.85 * x for x in one]})
    writer.end("all 8 blocks done", {})
    run = load_run(tmp_path)
    found = answers.how_many_workers(run)
    assert not found.sentence.startswith("Exploratory")
    assert "4 fork workers is 1.85 times 1 fork worker" in found.sentence
    assert "beyond 2 more workers did not pay, 4 fork workers did 1.03 times 2 fork workers" in found.sentence
    assert checks.precise_enough(run, 0.05)
    assert not checks.precise_enough(load_run(_short(tmp_path / "short")), 0.05), "too few blocks"
    assert [c.name for c in summaries.comparisons(run)][-1] == "1 fork worker again"


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (1, "(4 jobs, 1 block, exploratory): 2 simple workers did 12 times what 2 pool workers did;"
            " 2 fork workers did 6 times what 2 pool workers did."),
        (6, "(4 jobs, 6 blocks): 2 simple workers did 12 times what 2 pool workers did (12 to 12);"),
    ],
)  # fmt: skip
def test_every_kind_is_compared_with_rqs_own_pool(tmp_path: Path, blocks: int, words: str) -> None:
    writer, experiment = new_run(tmp_path / "run")
    fill(writer, experiment, {1: [1.0] * 2, 2: [2.0] * 2})
    kinds = ["simple", "pool", "fork"]
    small = against_pool(kinds, workers=2, origin_latency_ms=300, jobs=4, pages=None, seed=1)
    assert [c.kind for c in small.configurations] == ["pool", "simple", "fork"]
    pool_writer, _ = new_run(tmp_path / "pool", **{**small.to_mapping(), "blocks": blocks})
    done = {"pool": 0.25, "simple": 3.0, "fork": 1.5}
    for planned in replace(small, blocks=blocks).plan():
        row = trial_row(planned, throughput_per_s=done[planned.configuration.kind])
        pool_writer.add(planned, row, [event_row(planned)])
    found = answers.how_many_workers(load_run(tmp_path / "run"), load_run(tmp_path / "pool"))
    assert f"Against RQ's own pool {words}" in found.sentence
    assert any(doubt.startswith("Against RQ's own pool: A backlog of 4 is short") for doubt in found.doubts)


def test_what_may_have_paid_is_not_said_not_to_have_paid(tmp_path: Path) -> None:
    """The ratio's mean is below what pays, and its interval reaches far above."""
    writer, experiment = new_run(tmp_path, blocks=6)
    fill(writer, experiment, {1: [1.0] * 6, 2: [0.7, 1.6, 0.7, 1.6, 0.9, 1.2]})
    found = answers.how_many_workers(load_run(tmp_path))
    assert "beyond 1 more workers were not shown to pay, 2 fork workers did" in found.sentence


def test_a_step_that_cannot_be_compared_is_not_said_to_pay(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path, factors={"workers": [1, 2, 4]}, blocks=6)
    fill(writer, experiment, {1: [1.0] * 6, 2: [2.0] * 6, 4: [4.0] * 6})
    run = load_run(tmp_path)

    def answer(trials: pd.DataFrame) -> str:
        return answers.how_many_workers(replace(run, trials=trials)).sentence

    assert "each step up to 4 workers paid." in answer(run.trials)
    of_four = run.trials["workers"] == 4
    few = answer(run.trials[~of_four])
    assert "whether the step to 4 workers pays is not known, as no block counts" in few
    assert "every other step paid." in few
    once = answer(run.trials[~of_four | (run.trials["block"] == 1)])
    assert not once.startswith("Exploratory"), "of the other configurations enough is known"
    assert "Exploratory: 4 fork workers was 4 times 1 fork worker in 1 block" in once
    assert "each step up to 4 workers paid (exploratory: 1 block)." in once
    alone = answer(run.trials[of_four])
    assert alone.startswith("4 fork workers alone has a median throughput, 4 jobs/s.")
    assert "whether the step to 2 and 4 workers pays is not known" in alone
    assert "paid" not in alone


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (range(1, 7), "by the scalability law: contention 0.05, coherency 0.01; no peak up to 1.5 times 6"),
        (
            range(1, 12),
            "by the scalability law: contention 0.05, coherency 0.01; throughput peaks at 9.75 workers.",
        ),
        (range(1, 8), "throughput peaks at 9.75 workers (extrapolated)."),
        (range(1, 4), " The scalability law is not identifiable: 3 worker counts measured, 6 are needed."),
    ],
)
def test_the_scalability_law_is_said_where_it_can_be_fitted(
    tmp_path: Path, counts: range, words: str
) -> None:
    writer, experiment = new_run(tmp_path, factors={"workers": list(counts)}, blocks=2)
    fill(writer, experiment, {n: [10 * n / (1 + 0.05 * (n - 1) + 0.01 * n * (n - 1))] * 2 for n in counts})
    assert words in answers.how_many_workers(load_run(tmp_path)).sentence


def test_what_holds_for_every_series_is_said_once() -> None:
    sentence = answers.how_many_workers(load_run(EXAMPLE_RUN)).sentence
    assert sentence.count("each step up to 4 workers paid") == 2
    assert sentence.count("identifiable") == 1


def _short(folder: Path) -> Path:
    writer, experiment = new_run(folder, blocks=5)
    fill(writer, experiment, {1: [1.0] * 5, 2: [2.0] * 5})
    return folder


def test_failed_trials_do_not_count_and_are_reported(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path)
    first, second, third, *_ = experiment.plan()
    bad = trial_row(first, status="failed", problem="the workers ended", throughput_per_s=None)
    writer.add(first, bad, [])
    with pytest.raises(LabError, match="no trial that counts"):
        answers.how_many_workers(load_run(tmp_path))
    for planned in (second, third):
        writer.add(planned, trial_row(planned), [event_row(planned)])
    found = answers.how_many_workers(load_run(tmp_path))
    assert found.doubts[0] == f"Trial 1 ({first.label}) failed: the workers ended."
    assert any("The run was stopped: 3 of 6 trials were not made." in doubt for doubt in found.doubts)


def test_a_figure_with_too_few_samples_is_none_and_not_a_number(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path, blocks=1)
    for planned in experiment.plan():
        events = [event_row(planned, job, wait_ms=job) for job in range(1, 201)]
        writer.add(planned, trial_row(planned), events if planned.configuration.workers == 2 else events[:50])
    table = summaries.times_table(load_run(tmp_path))
    assert table.loc["2 fork workers", "wait p95, s"] == 0.19
    assert table.loc["1 fork worker", "wait p95, s"] != table.loc["1 fork worker", "wait p95, s"]
    assert table.loc["1 fork worker", "jobs"] == 50
