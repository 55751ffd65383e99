"""Who sends a trial's saves: Locust and the lean sender do the same, and the lean one takes over where Locust would not
keep up."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from offered_load import progress
from one_trial import SETTINGS, assert_whole, children, one_trial
from run_folders import event_row, new_run, trial_row
from scipy import stats

from fuze_bench.errors import LabError
from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.experiments import run as run_module
from fuze_bench.lab.experiments.factors import LEAN, LOCUST, SENDERS, Configuration
from fuze_bench.lab.experiments.run import run_experiment
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Progress, Trial
from fuze_bench.lab.judgement import checks
from fuze_bench.lab.judgement.trial_verdicts import LATE_SHARE, judge_trial, late_limit_ms
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.load import locust_driver
from fuze_bench.lab.load.bookmark_load import BookmarkLoad
from fuze_bench.lab.load.request_log import read_request_log
from fuze_bench.lab.load.saves_sent import who_sends
from fuze_bench.lab.runs.results import Run, load_run

RATE_PER_S, WINDOW_S = 25.0, 8.0
#: A Kolmogorov–Smirnov test that is right errs in one of a thousand.
RARE = 0.001


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same saves by both, in a whole run: a trial each."""
    folder = tmp_path_factory.mktemp("both")
    experiment = Experiment(
        factors={"sender": SENDERS},
        fixed={"arrivals": "poisson", "rate_per_s": RATE_PER_S, "queues": "high:1,low:1"},
        duration_s=WINDOW_S,
        blocks=1,
        baseline_copy=False,
        seed=5,
    )
    with pytest.MonkeyPatch.context() as patched:
        # Nothing here asks how busy this machine is.
        patched.setattr(run_module, "_was_late", lambda *_: False)
        return load_run(run_experiment(experiment, SETTINGS, out=folder / "run").folder)


def of(run: Run, sender: str) -> tuple[pd.Series, pd.DataFrame]:
    """The trial for which this sender was asked, and its jobs."""
    [(_, trial)] = run.trials[run.trials["sender"] == sender].iterrows()
    return trial, run.events[run.events["trial"] == trial["trial"]].sort_values("job")


@pytest.mark.parametrize("sender", SENDERS)
def test_a_trial_is_recorded_whole_whoever_sends(both: Run, sender: str) -> None:
    trial, jobs = of(both, sender)
    count = len(both.experiment.arrivals_of(both.experiment.baseline).times(5))
    assert (trial["status"], trial["sent_by"], trial["drained"]) == ("ok", sender, True)
    assert [trial[name] for name in ("offered", "sent", "acknowledged", "processed")] == [count] * 4
    assert [trial[name] for name in ("refused", "unfinished", "failed", "lost", "duplicated")] == [0] * 5
    assert set(jobs["mode"]) == {"rq"}
    # The row of a page was stored between sending the save of this number and its answer: the numbers are the pages'.
    assert (jobs["sent_ns"] <= jobs["queued_ns"]).all()
    assert (jobs["queued_ns"] <= jobs["acknowledged_ns"]).all()


def test_both_send_the_same_saves_and_see_the_same_at_a_low_rate(both: Run) -> None:
    (_, ours), (_, theirs) = (of(both, sender) for sender in SENDERS)
    times_s = both.experiment.arrivals_of(both.experiment.baseline).times(5)
    assert list(ours["queue"]) == list(theirs["queue"])
    assert set(ours["queue"]) == {"high", "low"}
    for jobs in (ours, theirs):
        start_ns = int(jobs["intended_ns"].iloc[0]) - round(times_s[0] * 1e9)
        intended_ns = [int(ns) - start_ns for ns in jobs["intended_ns"]]
        assert intended_ns == pytest.approx([time_s * 1e9 for time_s in times_s], abs=1)
    # A save takes some milliseconds: they see the same, where a busy machine adds least.
    assert abs(ours["ack_ms"].quantile(0.1) - theirs["ack_ms"].quantile(0.1)) < 20


@pytest.mark.parametrize("sender", SENDERS)
def test_poisson_gaps_are_exponential_as_sent(both: Run, sender: str) -> None:
    """As intended to the test's own limit, as sent to that and to how much of a delay lets a trial count.

    A send may come δ = `late_limit_ms` late, but for LATE_SHARE of them, each of which is in two gaps. The others'
    gaps differ by δ at most from the intended ones, and an exponential distribution rises by rate · δ at most over δ: so
    the distance grows by no more than rate · δ + 2 · LATE_SHARE.
    """
    _, jobs = of(both, sender)
    start_ns = int(jobs["intended_ns"].iloc[0]) - round(
        both.experiment.arrivals_of(both.experiment.baseline).times(5)[0] * 1e9
    )
    limit = float(stats.kstwo.isf(RARE, len(jobs)))
    delay = RATE_PER_S * late_limit_ms(RATE_PER_S) / 1e3 + 2 * LATE_SHARE
    for name, most in (("intended_ns", limit), ("sent_ns", limit + delay)):
        assert distance([0.0, *((jobs[name].astype("int64") - start_ns) / 1e9)]) <= most, name
    # Evenly sent, or a tenth of a second's at once, it would be farther off.
    even = Arrivals(law="constant", rate_per_s=RATE_PER_S, duration_s=WINDOW_S).times(1)
    assert distance(even) > limit + delay
    assert distance([round(time_s, 1) for time_s in even]) > limit + delay


def distance(times_s: list[float]) -> float:
    """Between the gaps and the exponential law of the rate asked for, by Kolmogorov and Smirnov."""
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    return float(stats.kstest(gaps_s, "expon", args=(0, 1 / RATE_PER_S)).statistic)


def test_the_ceiling_is_that_of_whoever_sent(both: Run) -> None:
    ceilings = {sender: of(both, sender)[0]["sender_ceiling_per_s"] for sender in SENDERS}
    assert ceilings[LEAN] > ceilings[LOCUST] > RATE_PER_S
    assert "another load generator" not in " ".join(checks.doubts(both))


BY_LOCUST = {"mode": "thread", "arrivals": "constant", "sender": LOCUST}


def asked(law: str, rate_per_s: float | None = None, **more: Any) -> dict[str, Any]:
    return {**BY_LOCUST, "arrivals": law, "rate_per_s": rate_per_s, **more}


@pytest.mark.parametrize(
    ("fixed", "arrivals", "ceiling_per_s", "sender"),
    [
        (asked("constant", 6.0), {}, 10.01, LOCUST),  # 60 % of it
        (asked("constant", 6.0), {}, 9.9, LEAN),
        # Two in ten seconds are never late, but more than 60 %.
        (asked("constant", 0.2), {}, 0.3, LEAN),
        (asked("constant", 6.0), {}, None, LOCUST),
        (asked("constant", 6.0, sender=LEAN), {}, 1.0, LEAN),
        (asked("constant", 6.0, sender=LEAN), {}, 1e6, LEAN),
        # A backlog has no times to fall behind of.
        (asked("backlog"), {}, 1.0, LOCUST),
        # 2 /s on average, but the last of the twenty would be sent 19/60 s late.
        (asked("burst"), {"burst_size": 20, "burst_every_s": 10}, 100.0, LEAN),
        (asked("burst"), {"burst_size": 20, "burst_every_s": 10}, 4_000.0, LOCUST),
        # 5 /s on average, 50 /s for a second of ten.
        (asked("step"), {"steps": [[50, 1], [0, 9]]}, 60.0, LEAN),
        (asked("step"), {"steps": [[50, 1], [0, 9]]}, 100.0, LOCUST),
    ],
)
def test_locust_sends_as_long_as_it_keeps_up(
    fixed: dict[str, Any], arrivals: dict[str, Any], ceiling_per_s: float | None, sender: str
) -> None:
    experiment = Experiment(fixed=fixed, arrivals=arrivals, duration_s=10)
    planned = experiment.arrivals_of(experiment.baseline)
    ceilings_per_s = {LEAN: 1e6} if ceiling_per_s is None else {LEAN: 1e6, LOCUST: ceiling_per_s}
    found = who_sends(experiment.baseline, planned.times(1), planned.window_s, ceilings_per_s)
    assert found == sender


def test_above_locusts_ceiling_the_lean_sender_takes_over(tmp_path: Path) -> None:
    row, events, _ = one_trial(
        tmp_path / "trial",
        None,
        ceilings_per_s={LEAN: 5_000.0, LOCUST: 10.0},
        fixed=asked("constant", 8.0),
        duration_s=1,
        warm_up=0,
    )
    assert_whole(row, events, 8)
    assert (row.sent_by, row.sender_ceiling_per_s) == (LEAN, 5_000.0)
    assert not (tmp_path / "trial" / "load" / "locust.log").exists()


def test_where_locust_was_late_time_and_again_the_lean_sender_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However low the rate is: the machine is too busy for it."""
    senders: list[str | None] = []

    class SlowWithLocust(Trial):
        def measure(self, on_progress: Progress | None = None) -> None:
            super().measure(on_progress)
            senders.append(self.row().sent_by)
            if senders[-1] == LOCUST:
                self.events[:] = [replace(e, sent_ns=e.intended_ns + 60 * 10**9) for e in self.events]

    monkeypatch.setattr(run_module, "Trial", SlowWithLocust)
    monkeypatch.setattr(run_module, "_AGAIN", 1)
    experiment = Experiment(
        fixed=asked("constant", 10.0), duration_s=0.5, blocks=1, warm_up=0, baseline_copy=False
    )
    run = run_experiment(experiment, SETTINGS, out=tmp_path / "run")
    assert senders == [LOCUST, LEAN]
    assert list(run.trials[["late_before", "sent_by"]].itertuples(index=False, name=None)) == [(1, LEAN)]
    assert len(run.good_trials()) == 1


def test_a_run_says_that_another_sender_took_over(tmp_path: Path) -> None:
    writer, experiment = new_run(tmp_path, factors={"rate_per_s": [8, 9]}, fixed=BY_LOCUST, blocks=1)
    told = {}
    for planned, sent_by in zip(experiment.plan(), (LEAN, LOCUST, None), strict=True):
        row = trial_row(planned, sent_by=sent_by, window_s=1.0)
        writer.add(planned, row, [event_row(planned)])
        record = {**vars(row), **planned.configuration.to_mapping()}
        found = judge_trial(record, pd.DataFrame([vars(event_row(planned))]), pd.DataFrame())
        told[sent_by] = [v.answer for v in found if v.name == "sent by another load generator"]
    assert told == {LEAN: [Answer.YES], LOCUST: [Answer.NO], None: [Answer.UNKNOWN]}
    [doubt] = [d for d in checks.doubts(load_run(tmp_path)) if d.startswith("Sent by another load generator")]
    assert "(trial 1): the lean sender took over" in doubt
    usual = {**vars(trial_row(experiment.plan()[0])), **Configuration().to_mapping()}
    assert not [v for v in judge_trial(usual, pd.DataFrame(), pd.DataFrame()) if "another" in v.name]


def locust_trial(folder: Path) -> Trial:
    """A trial of twenty seconds, sent by Locust; whatever happens to it happens in the first."""
    fixed = asked("poisson", 20.0, queues="high:1,low:1")
    experiment = Experiment(fixed=fixed, duration_s=20, warm_up=0)
    folder.mkdir()
    return Trial(experiment.plan()[0], experiment, SETTINGS, folder, None)


def measured(trial: Trial, on_progress: Progress | None = None) -> None:
    with trial:
        trial.wait_ready()
        trial.measure(on_progress)


def test_an_api_that_dies_under_locust_is_the_problem_told(tmp_path: Path) -> None:
    def kill_it(done: int, total: int) -> None:
        if progress(tmp_path / "trial" / "load") >= 5:
            assert isinstance(trial._load, BookmarkLoad)
            assert trial._load._api is not None
            psutil.Process(trial._load._api[1].pid).kill()

    before = children()
    trial = locust_trial(tmp_path / "trial")
    measured(trial, kill_it)
    assert trial.row().problem == "the API ended with code -9"
    assert "locust.log:" in (trial.row().log_end or "")
    assert trial.row().sent >= 5, "what was sent so far is recorded"
    samples = read_request_log(tmp_path / "trial" / "load" / "requests.jsonl")
    answered = {sample.job: sample.queue for sample in samples if sample.outcome == "ok"}
    assert answered == {event.job: event.queue for event in trial.events if event.job in answered}
    assert set(answered.values()) == {"high", "low"}
    # What was not sent any more was intended on the same clock.
    assert len(trial.events) > len(samples)
    times_s = Arrivals(law="poisson", rate_per_s=20.0, duration_s=20).times(1)
    begins_ns = [e.intended_ns - round(t * 1e9) for e, t in zip(trial.events, times_s, strict=True)]
    assert max(begins_ns) - min(begins_ns) <= 1
    assert children() <= before, "Locust outlived the trial"


def test_ctrl_c_stops_locust_as_well(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if progress(tmp_path / "trial" / "load") >= 5:
            raise KeyboardInterrupt

    before = children()
    trial = locust_trial(tmp_path / "trial")
    try:
        measured(trial, interrupt)
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail(f"it was not interrupted: {trial.row().problem}, {trial.row().log_end}")
    assert children() <= before, "Locust outlived the trial"


def test_ctrl_c_is_not_lost_where_the_sender_has_just_ended_badly(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if progress(tmp_path / "trial" / "load") >= 5:
            assert isinstance(trial._load, BookmarkLoad)
            assert trial._load._sending is not None
            trial._load._sending._child.kill_group()
            raise KeyboardInterrupt

    experiment = Experiment(fixed=asked("poisson", 20.0, sender=LEAN), duration_s=20, warm_up=0)
    (tmp_path / "trial").mkdir()
    trial = Trial(experiment.plan()[0], experiment, SETTINGS, tmp_path / "trial", None)
    with pytest.raises(KeyboardInterrupt):
        measured(trial, interrupt)


def test_a_locust_that_cannot_start_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    problems = {}
    for name in ("empty", "nowhere"):
        monkeypatch.setattr(locust_driver, "LOADTESTS", tmp_path / name)
        trial = locust_trial(tmp_path / f"trial-{name}")
        measured(trial)
        assert trial.row().status == "failed"
        problems[name] = trial.row().problem or ""
    assert problems["empty"].startswith("locust ended with code 1, and its record tells of 0 of ")
    assert problems["nowhere"].endswith("work in a checkout of the repository, or use sender: lean")
    assert not any("\n" in problem for problem in problems.values())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fixed": {"sender": "locost"}}, "did you mean 'locust'?"),
        ({"fixed": {"sender": LOCUST}}, "give it other arrivals, such as poisson, or leave sender out"),
        (
            {"fixed": asked("poisson", 5.0, mode="rq"), "workload": {"kind": "synthetic", "mean_ms": 1}},
            "sender=locust makes sense for the workload bookmarks alone: leave it out",
        ),
    ],
)
def test_where_nothing_is_sent_locust_cannot_be_asked_for(values: dict[str, Any], says: str) -> None:
    with pytest.raises(LabError) as caught:
        Experiment.from_mapping(values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
