"""Verdicts over records written by hand: a sane trial, and one for each thing that can be wrong with a trial."""

import json

import pandas as pd
import pytest

from fuze_bench.lab.judgement import trial_verdicts
from fuze_bench.lab.judgement.trial_verdicts import (
    duplicated,
    generator_late,
    generator_saturated,
    growing_backlog,
    impossible_samples,
    invalid_trials,
    judge,
    judge_trial,
    late_limit_ms,
    lost,
    not_drained,
    too_few_blocks,
    trend,
)
from fuze_bench.lab.judgement.verdicts import Answer, Verdict, Verdicts

#: A stamp that no float holds.
START_NS = 9_007_199_254_740_993
MS = 1_000_000
JOBS, WINDOW_S = 240, 60
YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


def trial_row(**changes):
    """A trial of 240 jobs, 4 a second, sent and done as it should be."""
    row = {
        "trial": 7, "block": 1, "status": "ok", "arrivals": "constant", "rate_per_s": 4.0, "window_s": 60.0,
        "offered": JOBS, "sent": JOBS, "acknowledged": JOBS, "refused": 0, "processed": JOBS, "failed": 0,
        "lost": 0, "duplicated": 0, "unfinished": 0, "drained": True, "drain_s": 61.0, "throughput_per_s": 4.0,
        "sender_ceiling_per_s": 900.0,
    }  # fmt: skip
    return row | changes


def event_rows(**changes):
    """Its jobs, each 20 ms in the making, and a change of the form {job: {column: value}}."""
    rows = []
    for job in range(1, JOBS + 1):
        intended_ns = START_NS + (job - 1) * 250 * MS
        rows.append(
            {
                "trial": 7, "job": job, "queue": "default", "status": "processed",
                "intended_ns": intended_ns, "sent_ns": intended_ns + MS // 2, "queued_ns": intended_ns + 2 * MS,
                "acknowledged_ns": intended_ns + 3 * MS, "started_ns": intended_ns + 5 * MS,
                "done_ns": intended_ns + (25 + job % 3) * MS, "fetch_ms": 12.0, "embed_ms": None,
            }
        )  # fmt: skip
    events = pd.DataFrame(rows).astype(
        {name: "Int64" for name in rows[0] if name.endswith("_ns")} | {"embed_ms": "Float64"}
    )
    for column, values in changes.items():
        for job, value in values.items():
            events.loc[events["job"] == job, column] = value
    return events


def series_rows(depth=lambda t: t % 2, queue="default"):
    rows = [
        {"trial": 7, "t_s": float(t), "thing": queue, "metric": "depth", "value": float(depth(t))}
        for t in range(-3, 70)
    ]
    return pd.DataFrame(
        [*rows, {"trial": 7, "t_s": 1.0, "thing": "redis", "metric": "commands", "value": 9.0}]
    )


def test_a_sane_trial_has_no_doubt():
    found = judge_trial(trial_row(), event_rows(), series_rows())
    assert {v.name: v.answer for v in found} == dict.fromkeys(
        [
            "lost", "duplicated", "impossible samples", "not drained", "growing backlog", "trend inside the window",
            "load generator late", "load generator saturated",
        ],
        NO,
    )  # fmt: skip
    assert all(v.reason and v.trial == 7 for v in found)
    assert invalid_trials(found) == set()


def test_what_was_not_recorded_is_unknown():
    found = judge_trial({"trial": 7}, pd.DataFrame(), pd.DataFrame())
    assert len(found) == 8
    assert {v.answer for v in found} == {UNKNOWN}


def test_lost_jobs_are_found_in_the_count_or_in_the_events():
    open_job = event_rows(done_ns={3: pd.NA}, status={3: "pending"})
    assert lost(trial_row(lost=2), event_rows()).answer is YES
    found = lost(trial_row(), open_job)
    assert (found.answer, found.reason) == (
        YES, "1 job acknowledged, but never at an end, though nothing waited any more",
    )  # fmt: skip
    assert lost(trial_row(lost=None), open_job).answer is YES
    # Not acknowledged is not lost, and a refused job has ended.
    unacknowledged = event_rows(done_ns={3: pd.NA}, acknowledged_ns={3: pd.NA}, status={3: "pending"})
    assert lost(trial_row(), unacknowledged).answer is NO
    assert lost(trial_row(), event_rows(done_ns={3: pd.NA}, status={3: "refused"})).answer is NO
    # Acknowledged, and no longer known to the database.
    gone = event_rows(done_ns={3: pd.NA}, started_ns={3: pd.NA}, status={3: "gone"})
    assert lost(trial_row(lost=1), gone).answer is YES


def test_what_is_open_when_a_trial_is_cut_off_is_not_lost():
    """Whatever the count says: what would have become of it is not known."""
    open_job = event_rows(done_ns={3: pd.NA}, status={3: "pending"})
    for recorded in (None, 0, 1):
        still = lost(trial_row(drained=False, lost=recorded), open_job)
        assert (still.answer, still.reason) == (UNKNOWN, "1 job still open when the wait for them ended")
    cut_off = trial_row(drained=False, lost=None, processed=JOBS - 1)
    answers = {v.name: v.answer for v in judge_trial(cut_off, open_job, series_rows())}
    assert (answers["lost"], answers["not drained"]) == (UNKNOWN, YES)
    # A bookmark that is still in the database is found there by whoever works next.
    bookmarks = open_job.assign(mode="rq")
    kept = lost(trial_row(drained=False, lost=None), bookmarks)
    assert (kept.answer, kept.reason) == (
        NO,
        "1 job still open when the wait for them ended, and in the database",
    )
    # But not if more are missing than the record has, or if who has it in hand is not known.
    assert lost(trial_row(drained=False, lost=2), bookmarks).answer is UNKNOWN
    assert lost(trial_row(drained=False, lost=None), open_job.assign(mode=pd.NA)).answer is UNKNOWN
    # One that is not there any more will never be done, however long anyone waits.
    gone = lost(trial_row(drained=False, lost=None), bookmarks.replace({"status": {"pending": "gone"}}))
    assert (gone.answer, gone.reason) == (YES, "1 job acknowledged, but not in the database")
    # And all that was acknowledged had ended: then nothing is lost, whatever else still ran.
    assert lost(trial_row(drained=False, lost=None), event_rows()).answer is NO
    unsaid = lost(trial_row(drained=None), open_job)
    assert (unsaid.answer, unsaid.reason) == (
        UNKNOWN, "1 job without an end, and whether the queues were empty was not recorded",
    )  # fmt: skip


def test_a_job_done_twice_or_recorded_twice_is_found():
    assert duplicated(trial_row(duplicated=1), event_rows()).answer is YES
    assert duplicated(trial_row(), event_rows(job={3: 4})).answer is YES
    assert duplicated(trial_row(duplicated=None), event_rows()).answer is UNKNOWN


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"done_ns": {3: START_NS}}, "1 × done before started"),
        ({"sent_ns": {3: START_NS}}, "1 × sent before intended"),
        ({"started_ns": {3: START_NS}}, "1 × started before queued"),
        ({"queued_ns": {3: START_NS}}, "1 × queued before sent"),
        ({"acknowledged_ns": {3: START_NS}}, "1 × acknowledged before sent"),
        ({"started_ns": {3: pd.NA, 4: pd.NA}}, "2 × done without a start"),
        ({"fetch_ms": {3: -0.1, 5: float("inf")}}, "2 × fetch_ms negative or infinite"),
    ],
)
def test_impossible_stamps_are_counted_and_make_the_trial_invalid(changes, words):
    found = impossible_samples(trial_row(), event_rows(**changes))
    assert (found.answer, found.reason) == (YES, words)
    assert invalid_trials([found]) == {7}


def test_stamps_one_nanosecond_apart_are_told_apart():
    first_ns = START_NS
    backwards = event_rows(queued_ns={1: first_ns + 5 * MS + 1})
    assert impossible_samples(trial_row(), backwards).reason == "1 × started before queued"
    assert impossible_samples(trial_row(), event_rows(queued_ns={1: first_ns + 5 * MS})).answer is NO


@pytest.mark.parametrize("changes", [{"lost": -1}, {"throughput_per_s": float("inf")}, {"window_s": -2.0}])
def test_impossible_counts_are_found(changes):
    assert impossible_samples(trial_row(**changes), event_rows()).answer is YES


@pytest.mark.parametrize(
    ("rate_per_s", "limit_ms"), [(None, 10), (4.0, 10), (250.0, 4), (5000.0, 1), (100.0, 10), (0.0, 10)]
)
def test_late_means_later_than_the_gap_or_ten_milliseconds(rate_per_s, limit_ms):
    assert late_limit_ms(rate_per_s) == limit_ms


def test_more_than_one_send_in_a_hundred_late_is_late():
    def late(jobs):
        events = event_rows(
            sent_ns={job: START_NS + (job - 1) * 250 * MS + 11 * MS for job in range(1, jobs + 1)}
        )
        return generator_late(trial_row(), events)

    assert late(2).answer is NO  # 2 of 240: the p99 is still punctual
    found = late(3)
    assert (found.answer, found.reason) == (YES, "1.25 % of 240 sends came more than 10 ms late")
    assert invalid_trials([found]) == {7}
    assert generator_late(trial_row(rate_per_s=3000.0), event_rows()).answer is NO  # 0.5 ms


def test_two_late_sends_make_no_trial_late_however_small_it_is():
    def late(jobs):
        few = event_rows().iloc[:20].copy()
        few.loc[few.index[:jobs], "sent_ns"] += 60_000 * MS
        return generator_late(trial_row(), few)

    assert (late(2).answer, late(3).answer) == (NO, YES)


def test_above_sixty_percent_of_its_ceiling_the_generator_measures_itself():
    assert generator_saturated(trial_row(sender_ceiling_per_s=6.6)).answer is YES  # 4 of 6.6: 60.6 %
    found = generator_saturated(trial_row(sender_ceiling_per_s=6.7))
    assert (found.answer, found.reason) == (NO, "it sent 4 /s, 59.7 % of its ceiling of 6.7 /s")
    for missing in ({"sender_ceiling_per_s": None}, {"sender_ceiling_per_s": 0.0}, {"window_s": 0.0}):
        assert generator_saturated(trial_row(**missing)).answer is UNKNOWN


def test_a_backlog_has_no_rate_to_fall_behind_of():
    names = {v.name for v in judge_trial(trial_row(arrivals="backlog"), event_rows(), series_rows())}
    assert not names & {"load generator late", "load generator saturated"}


def test_what_is_in_flight_at_the_end_makes_lower_bounds():
    found = not_drained(trial_row(drained=False, unfinished=12))
    assert (found.answer, found.reason) == (
        YES, "12 jobs still in flight when the time was up, so that quantiles are lower bounds",
    )  # fmt: skip
    assert not_drained(trial_row(unfinished=1)).answer is YES
    assert not_drained(trial_row(drained=False, unfinished=None)).answer is YES


def test_a_growing_queue_says_how_fast_and_when_the_target_breaks():
    grows = series_rows(lambda t: 2 * max(t, 0), queue="low")
    events = event_rows(queue=dict.fromkeys(range(1, JOBS + 1), "low"))
    series = pd.concat([grows, series_rows()])
    found = growing_backlog(trial_row(), events, series, target_wait_s=5.0)
    # 4 a second are done: a wait of 5 s is a depth of 20, reached after 10 s.
    assert (found.answer, found.reason) == (
        YES, "low grows by 2 jobs per second (95 % 2 to 2): the target of 5 s is broken after 10 s",
    )  # fmt: skip
    # What is done after the window does not count: 2 a second are a depth of 10.
    after_ns = START_NS + 61_000 * MS
    half = events.assign(done_ns=events["done_ns"].where(events["job"] <= JOBS // 2, after_ns))
    assert growing_backlog(trial_row(), half, series, target_wait_s=5.0).reason.endswith("after 5 s")
    steady = growing_backlog(trial_row(), events, series_rows())
    assert steady.answer is NO
    assert steady.reason.startswith("default: no growth seen, ")


def test_depths_outside_the_window_do_not_count():
    drained = series_rows(lambda t: 100 - t if t > 60 else 5)
    assert growing_backlog(trial_row(), event_rows(), drained).answer is NO
    assert growing_backlog(trial_row(window_s=4.0), event_rows(), series_rows()).answer is UNKNOWN


def test_one_queue_without_samples_leaves_the_verdict_open():
    few = series_rows(queue="low").iloc[3:6]
    found = growing_backlog(trial_row(), event_rows(), pd.concat([few, series_rows()]))
    assert (found.answer, found.too_small) == (UNKNOWN, True)
    assert not growing_backlog({"trial": 7}, pd.DataFrame(), pd.DataFrame()).too_small, "nothing was recorded"


@pytest.mark.parametrize("series", [pd.DataFrame(), series_rows().iloc[:3]], ids=["no Redis", "away"])
def test_a_queue_that_could_not_be_looked_at_is_counted_by_its_jobs(series):
    def judged(waits_s, window_s=60.0):
        events = event_rows()
        queued_ns = START_NS + ((events["job"] - 1) * window_s / JOBS * 1e9).astype("int64")
        started_ns = queued_ns + (waits_s(events["job"]) * 1e9).astype("int64")
        stamped = events.assign(queued_ns=queued_ns, intended_ns=queued_ns, started_ns=started_ns)
        return growing_backlog(trial_row(window_s=window_s), stamped, series)

    # One comes every 0.25 s, and one is taken up every 0.3 s.
    grows = judged(lambda job: job * 0.05)
    assert grows.answer is YES
    assert grows.reason.startswith("default grows by 0.6")
    assert judged(lambda job: 0 * job + 2.0).answer is NO
    short = judged(lambda job: job * 0.05, window_s=6.0)
    assert (short.answer, short.too_small) == (UNKNOWN, True)


def test_a_trend_in_the_service_times_is_found():
    def slower(share):
        events = event_rows()
        length = (20 * MS * (1 + share * (events["job"] - 1) / JOBS)).astype("int64")
        return trend(trial_row(), events.assign(done_ns=events["started_ns"] + length))

    found = slower(0.5)
    assert found.answer is YES
    assert found.reason.startswith("service times changed by 39.")
    assert slower(-0.5).answer is YES
    assert slower(0.05).answer is NO
    few = trend(trial_row(), event_rows()[:59])
    assert (few.answer, few.reason) == (UNKNOWN, "too few: 59 jobs are done, 60 are needed")
    assert few.too_small
    assert not slower(0.5).too_small


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_a_tiny_trial_gets_no_nonsense(jobs):
    row = trial_row(window_s=0.0, throughput_per_s=None, sent=jobs, processed=jobs, rate_per_s=None)
    found = judge_trial(row, event_rows()[:jobs], series_rows()[:jobs])
    answers = {v.name: v.answer for v in found}
    assert answers["trend inside the window"] is UNKNOWN
    assert answers["growing backlog"] is UNKNOWN
    assert answers["load generator saturated"] is UNKNOWN
    for verdict in found:
        assert not any(word in verdict.reason.split() for word in ("inf", "nan", "-0", "None", "<NA>"))


def test_six_blocks_are_enough():
    assert too_few_blocks(5).answer is YES
    assert too_few_blocks(6).answer is NO
    assert too_few_blocks(5).trial is None


def test_a_run_is_judged_trial_by_trial():
    trials = pd.DataFrame(
        [trial_row(), trial_row(trial=8, lost=1), trial_row(trial=9, status="failed", lost=99)]
    )
    events = pd.concat([event_rows(), event_rows(sent_ns={1: START_NS - 1}).assign(trial=8)])
    series = pd.concat([series_rows(), series_rows().assign(trial=8)])
    found = judge(trials, events, series)
    assert {(v.trial, v.name) for v in found.that_are(YES)} == {
        (None, "too few blocks"), (8, "lost"), (8, "impossible samples"),
    }  # fmt: skip
    assert invalid_trials(found) == {8}
    assert len(found) == 1 + 2 * 8


def test_verdicts_become_a_table_a_page_and_json():
    found = Verdicts.of(
        [Verdict("late <b>", NO, "it was punctual", 2), Verdict("few", YES, "5 blocks", too_small=True)]
    )
    table = found.table()
    assert list(table.columns) == ["trial", "name", "answer", "reason"]
    assert table["trial"].isna().tolist() == [False, True]
    html = found._repr_html_()
    assert html.index("few") < html.index("late &lt;b&gt;"), "what holds comes first"
    assert Verdicts.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert list(Verdicts.of([]).table().columns) == list(table.columns)
    with pytest.raises(ValueError, match="perhaps"):
        Verdicts.from_json([{"name": "x", "answer": "perhaps", "reason": "", "trial": None}])


def test_every_name_that_invalidates_is_one_that_is_given():
    names = {v.name for v in judge_trial(trial_row(), event_rows(), series_rows())}
    assert names >= trial_verdicts.INVALIDATING
