"""Run folders: nothing that was measured is lost, and what is read back means what was written."""

import json

import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab import checks
from fuze_bench.lab.results import EventRow, RunWriter, TrialRow, columns, load_run
from fuze_bench.lab.spec import Experiment

STAMP_NS = 9_007_199_254_740_993  # no float holds it


def trial_row(number, *, workers=1, block=1, throughput_per_s: float | None = 2.0, **changes):
    values = {
        "trial": number,
        "block": block,
        "kind": "fork",
        "workers": workers,
        "status": "ok",
        "problem": None,
        "log_end": None,
        "started_at_s": 1.0,
        "workers_ready_s": 2.0,
        "drain_s": 3.0,
        "throughput_per_s": throughput_per_s,
        "processed": 1,
        "failed": 0,
        "lost": 0,
        "duplicated": 0,
        "workers_exit_code": 0,
        "origin_exit_code": 0,
    }
    return TrialRow(**(values | changes))


def event_row(trial, *, started_ns: int | None = STAMP_NS + 2_000_000):
    return EventRow(
        trial=trial,
        block=1,
        kind="fork",
        workers=1,
        bookmark=1,
        status="processed" if started_ns else "pending",
        reason=None,
        attempts=1 if started_ns else 0,
        queued_ns=STAMP_NS,
        started_ns=started_ns,
        done_ns=None if started_ns is None else started_ns + 5_000_000,
        fetch_ms=1.0,
        extract_ms=1.0,
        embed_ms=None,
        analyse_ms=1.0,
    )


def new_run(root, **spec):
    experiment = Experiment(**{"worker_counts": (1, 2), "kinds": ("fork",), "repeats": 2} | spec)
    machine = {"usable_cores": 2, "load_1min_before": 0.0, "memory_bytes": 2**30, "kernel": "6"}
    return RunWriter(root, "worker-counts", experiment, settings={"FUZE_LEASE_S": "15"}, machine=machine)


def test_after_every_trial_all_of_it_is_on_the_disk(tmp_path):
    writer = new_run(tmp_path)
    assert len(load_run(writer.folder).trials) == 0
    writer.add(trial_row(1), [event_row(1)])
    writer.add(trial_row(2, workers=2), [event_row(2), event_row(2, started_ns=None)])
    run = load_run(writer.folder)
    assert list(run.trials["trial"]) == [1, 2]
    assert run.planned_trials == 4
    assert list(run.events["queued_ns"]) == [STAMP_NS] * 3, "stamps must stay exact"
    assert list(run.events["wait_ms"].dropna()) == [2.0, 2.0]
    assert list(run.events["total_ms"].dropna()) == [7.0, 7.0]
    assert not list(writer.folder.glob("*.tmp"))


def test_two_runs_of_one_second_have_two_folders(tmp_path):
    assert new_run(tmp_path).folder != new_run(tmp_path).folder


def test_every_column_says_what_it_means():
    for row_type in (TrialRow, EventRow):
        assert all(columns(row_type).values())


def test_another_format_version_is_refused(tmp_path):
    writer = new_run(tmp_path)
    spec = json.loads((writer.folder / "spec.json").read_text())
    (writer.folder / "spec.json").write_text(json.dumps(spec | {"format_version": 99}))
    with pytest.raises(LabError, match="format version 99"):
        load_run(writer.folder)


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(LabError, match=r"is not a run folder"):
        load_run(tmp_path)


def test_a_damaged_table_is_named(tmp_path):
    writer = new_run(tmp_path)
    (writer.folder / "trials.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LabError, match=r"trials\.parquet cannot be read"):
        load_run(writer.folder)


def test_a_run_whose_pages_are_elsewhere_can_still_be_read(tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    writer = new_run(tmp_path, pages=str(pages))
    pages.rmdir()
    assert load_run(writer.folder).pages == pages.name
    assert str(tmp_path) not in (writer.folder / "spec.json").read_text()


def test_the_conclusion_is_computed_and_says_its_doubts(tmp_path):
    writer = new_run(tmp_path, repeats=3)
    for block, (one, two) in enumerate([(1.0, 2.0), (1.1, 2.2), (0.9, 1.8)], start=1):
        writer.add(trial_row(2 * block - 1, block=block, throughput_per_s=one), [])
        writer.add(trial_row(2 * block, block=block, workers=2, throughput_per_s=two, lost=1), [])
    found = checks.conclude(load_run(writer.folder))
    assert found.sentence.startswith("Exploratory: 2 fork workers had the highest median throughput")
    assert "2 times 1 fork worker (95% interval 2 to 2, 3 repeats)" in found.sentence
    assert any("3 saved bookmarks were never done" in doubt for doubt in found.doubts)
    assert any("6 or more" in doubt for doubt in found.doubts)


def test_no_winner_where_the_repeats_do_not_tell(tmp_path):
    writer = new_run(tmp_path)
    for block, (one, two) in enumerate([(1.0, 2.0), (2.0, 1.5)], start=1):
        writer.add(trial_row(2 * block - 1, block=block, throughput_per_s=one), [])
        writer.add(trial_row(2 * block, block=block, workers=2, throughput_per_s=two), [])
    assert "these repeats cannot tell it from 1 fork worker" in str(checks.conclude(load_run(writer.folder)))


def test_failed_trials_do_not_count_and_are_reported(tmp_path):
    writer = new_run(tmp_path)
    writer.add(trial_row(1, status="failed", problem="the workers ended", throughput_per_s=None), [])
    with pytest.raises(LabError, match="no trial that ended well"):
        checks.conclude(load_run(writer.folder))
    writer.add(trial_row(2, workers=2), [])
    found = checks.conclude(load_run(writer.folder))
    assert found.doubts[0] == "Trial 1 (1 fork worker) failed: the workers ended."
    assert "no good trial in the same block" in found.sentence
