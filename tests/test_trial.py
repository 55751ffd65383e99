"""Real trials: Redis, origin, API, worker processes, jobs from intended to stored."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import psutil
import pytest
from conftest import wait_until
from one_trial import SETTINGS, assert_whole, one_trial

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments import trial as trial_module
from fuze_bench.lab.experiments.factors import SENDERS
from fuze_bench.lab.experiments.rest import Rest
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Trial
from fuze_bench.lab.judgement.trial_verdicts import lost
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.load.bookmark_load import BookmarkLoad
from fuze_bench.lab.load.job_load import JobLoad
from fuze_bench.lab.parts.corpus import sized_pages
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.records import EventRow, TrialRow
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.timing import SystemClock

SLEEPS = {"kind": "synthetic", "mean_ms": 20}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHost]:
    with WorkerHost(SETTINGS, tmp_path_factory.mktemp("host") / "host.log") as running:
        yield running


def test_a_backlog_of_bookmarks_on_our_workers(tmp_path: Path, host: WorkerHost) -> None:
    seen: list[tuple[int, int]] = []
    row, events, trial = one_trial(
        tmp_path / "trial",
        host,
        lambda done, total: seen.append((done, total)),
        fixed={"workers": 1, "origin_latency_ms": 20},
        jobs=6,
    )
    assert_whole(row, events, 6)
    assert (row.workers_exit_code, row.origin_exit_code) == (0, 0)
    assert seen[-1] == (6, 6)
    assert all(event.fetch_ms is not None and event.fetch_ms >= 20 for event in events)
    assert all(event.embed_ms is None for event in events)
    metrics = {(sample.thing, sample.metric) for sample in trial.series}
    assert {("default", "depth"), ("workers", "pss_bytes"), ("redis", "commands")} <= metrics
    assert row.cpu_s is not None
    assert row.peak_pss_bytes is not None
    assert row.peak_pss_bytes > 2**20


@pytest.mark.parametrize("mode", ["rq", "thread"])
def test_saves_in_their_time_through_the_api(tmp_path: Path, host: WorkerHost, mode: str) -> None:
    row, events, _ = one_trial(
        tmp_path / "trial",
        host,
        fixed={"mode": mode, "arrivals": "constant", "rate_per_s": 8, "queues": "high:1,low:1"},
        duration_s=1,
    )
    assert_whole(row, events, 8)
    gaps_ns = [b.intended_ns - a.intended_ns for a, b in itertools.pairwise(events)]
    assert gaps_ns == pytest.approx([125_000_000] * 7, abs=1)
    assert {event.queue for event in events} == {"high", "low"}


@pytest.mark.parametrize("sender", SENDERS)
def test_redis_away_in_the_middle_of_the_load_loses_nothing(
    tmp_path: Path, host: WorkerHost, sender: str
) -> None:
    row, events, _ = one_trial(
        tmp_path / "trial",
        host,
        fixed={
            "arrivals": "constant",
            "rate_per_s": 6,
            "redis_outage_s": 1,
            "workers": 1,
            "sender": sender,
        },
        duration_s=3,
    )
    assert row.problem is None, row.log_end
    assert (row.acknowledged, row.lost, row.processed, row.sent_by) == (18, 0, 18, sender)
    stopped, started = json.loads(row.faults or "[]")
    assert (stopped["what"], started["what"]) == ("Redis stopped", "Redis started")
    assert stopped["t_s"] >= 1, "after a third of the load, however long the sender took to get ready"
    assert started["t_s"] >= 2
    assert events[0].mode == "rq"


def test_pages_of_ones_own_from_a_site_that_fails(tmp_path: Path, host: WorkerHost) -> None:
    """What is stored are these pages; what failed was tried again, and failed for good only where all attempts did."""
    pages = tmp_path / "pages"
    pages.mkdir()
    for page in sized_pages(3_000)[:2]:
        (pages / page.path_name).write_bytes(page.body)
    fixed = {"workers": 1, "origin_failure_rate": 0.4, "pages": str(pages)}
    row, events, _ = one_trial(tmp_path / "trial", host, fixed=fixed, jobs=8)
    assert (row.problem, row.processed + row.failed, row.lost, row.duplicated) == (None, 8, 0, 0)
    assert max(event.attempts for event in events) > 1
    assert {event.reason for event in events if event.status == "failed"} <= {"server_error"}
    assert all(event.attempts == 3 for event in events if event.status == "failed")
    with closing(sqlite3.connect(tmp_path / "trial" / "bookmarks.sqlite")) as database:
        rows = database.execute("SELECT DISTINCT page_title FROM fuze_bookmarks WHERE status = 'processed'")
        assert {title for (title,) in rows} == {"Report 0", "Report 1"}


@pytest.mark.parametrize("kind", ["simple", "fork", "pool"])
def test_synthetic_jobs_on_stock_workers(tmp_path: Path, kind: str) -> None:
    row, events, _ = one_trial(
        tmp_path / "trial", None, workload=SLEEPS, fixed={"kind": kind, "workers": 2}, jobs=10
    )
    assert_whole(row, events, 10)
    assert all(20 <= ((e.done_ns or 0) - (e.started_ns or 0)) / 1e6 < 1_000 for e in events)
    assert len({event.worker for event in events}) == 2


def test_your_own_function_is_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(
        "def bill(customer, cents=0):\n    assert cents < 3, f'{customer} owes too much'\n"
    )
    lines = [{"args": ["Ada"], "kwargs": {"cents": n}, "queue": "low"} for n in range(1, 4)]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    workload = {"kind": "yours", "function": "shop:bill", "jobs": "jobs.jsonl"}
    row, events, _ = one_trial(tmp_path / "trial", None, workload=workload, fixed={"workers": 1}, jobs=6)
    assert (row.problem, row.processed, row.failed, row.lost) == (None, 4, 2, 0)
    assert [event.status for event in events] == ["processed", "processed", "failed"] * 2
    assert events[2].reason == "AssertionError: Ada owes too much"
    assert {event.queue for event in events} == {"low"}


class SteppedClock(SystemClock):
    """The machine's clocks, the wall clock set back by `back_s`."""

    back_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() - self.back_s


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path: Path, origin: Origin) -> None:
    """By an hour, between save and processing and in the middle of a fetch: what a trial records is true all the same."""
    clock = SteppedClock()
    pipeline = Pipeline(replace(SETTINGS, data_dir=tmp_path, fetch_allow=("127.0.0.1",)), clock=clock)
    urls = [f"{origin.url}{path}" for path in ("/page/1", "/slow/300/2")]
    new = [NewBookmark(user_id=1, url=url, canonical_url=url) for url in urls]
    first, second = (each.bookmark.id for each in pipeline.store.save(new))
    clock.back_s = 3_600.0
    pipeline.process([first])
    at_work = threading.Thread(target=pipeline.process, args=([second],))
    at_work.start()
    wait_until(lambda: origin.hits("/slow/300/2"), what="the fetch to begin")
    clock.back_s = 7_200.0
    at_work.join()
    experiment = Experiment(jobs=2)
    load = BookmarkLoad(experiment.plan()[0], experiment, SETTINGS, tmp_path, None, {})
    load._acknowledged_ns = 0
    events = [
        load._event(number, 0.0, row, None)
        for number, row in enumerate(pipeline.store.rows(*_COLUMNS), start=1)
    ]
    pipeline.close()
    assert [event.status for event in events] == ["processed"] * 2
    for event in events:
        assert (event.queued_ns or 0) < (event.started_ns or 0) < (event.done_ns or 0)
        assert min(event.fetch_ms or -1, event.extract_ms or -1, event.analyse_ms or -1) >= 0
    assert 300 <= (events[1].fetch_ms or 0) < 60_000


_COLUMNS = ("status", "reason", "attempts", "queued_ns", "started_ns", "done_ns", "durations_ms")


def test_a_killed_worker_makes_the_trial_fail(tmp_path: Path, host: WorkerHost) -> None:
    killed: list[int] = []

    def kill_worker(done: int, total: int) -> None:
        if not killed:
            [pid] = {p.pid for p in psutil.process_iter(["cmdline"]) if _is_worker(p, tmp_path)}
            killed.append(pid)
            psutil.Process(pid).kill()

    row, _, _ = one_trial(
        tmp_path / "trial",
        host,
        kill_worker,
        fixed={"workers": 1, "origin_latency_ms": 400},
        jobs=4,
    )
    assert row.status == "failed"
    assert "ended with code -9" in (row.problem or "")
    assert "workers.log:" in (row.log_end or "")
    assert row.throughput_per_s is None
    assert (row.drained, row.lost) == (False, None)


def test_what_breaks_before_the_load_makes_the_trial_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis away, or a file that cannot be read: neither ends the run. A clock that is set back meanwhile does not
    show in how long the parts took to be ready."""
    hours = itertools.count(10**9, -3_600)
    clocks = {name: getattr(time, name) for name in ("monotonic", "monotonic_ns", "sleep")}
    monkeypatch.setattr(trial_module, "time", SimpleNamespace(time=lambda: next(hours), **clocks))
    experiment = Experiment.from_mapping({"workload": SLEEPS, "fixed": {"workers": 1}})
    found = []
    for broken in ("redis", "file"):
        (tmp_path / broken).mkdir()
        with Trial(experiment.plan()[0], experiment, SETTINGS, tmp_path / broken, None) as trial:
            trial.wait_ready()
            assert isinstance(trial._load, JobLoad)
            assert trial._load._redis is not None
            if broken == "redis":
                for process in [psutil.Process(pid) for pid in trial._load._redis.pids()]:
                    process.kill()
                    process.wait()
            else:
                (tmp_path / broken / "warm-up.jsonl").mkdir()
            trial.measure()
        found.append(trial.row())
    assert [row.status for row in found] == ["failed", "failed"]
    assert "the trial's Redis is away" in (found[0].problem or "")
    assert "Is a directory" in (found[1].problem or "")
    assert all(0 < (row.ready_s or 0) < 60 for row in found)


def test_a_save_is_refused_or_unfinished_and_never_both(tmp_path: Path) -> None:
    """An API that is stopped answers nobody: what was sent meanwhile is unfinished when the trial is given up."""
    experiment = Experiment(
        fixed={"mode": "thread", "arrivals": "constant", "rate_per_s": 40}, duration_s=2, warm_up=0
    )
    tmp_path.joinpath("trial").mkdir()
    asked: list[int] = []

    def stop_it(done: int, total: int) -> None:
        assert isinstance(trial._load, BookmarkLoad)
        assert trial._load._api is not None
        psutil.Process(trial._load._api[1].pid).suspend()
        asked.append(done)
        if len(asked) > 30:
            raise LabError("given up")

    with Trial(experiment.plan()[0], experiment, SETTINGS, tmp_path / "trial", None) as trial:
        trial.wait_ready()
        trial.measure(stop_it)
        psutil.Process(trial._load._api[1].pid).resume()  # type: ignore[attr-defined]
    row = trial.row()
    assert row.problem == "given up"
    assert row.unfinished > 0
    assert row.sent == row.acknowledged + row.refused + row.unfinished


def _is_worker(process: psutil.Process, folder: Path) -> bool:
    """Whether it leads those whose output goes to the trial's log of workers."""
    try:
        output = Path(f"/proc/{process.pid}/fd/1").readlink()
        return output == folder / "trial" / "workers.log" and os.getsid(process.pid) == process.pid
    except OSError:
        return False


def test_a_limit_on_the_drain_is_an_answer_and_no_failure(tmp_path: Path, host: WorkerHost) -> None:
    row, events, _ = one_trial(
        tmp_path / "trial",
        host,
        fixed={"workers": 1, "origin_latency_ms": 3_000},
        jobs=3,
        warm_up=0,
        drain_limit_s=0.5,
    )
    assert (row.status, row.drained, row.lost) == ("ok", False, None)
    assert {event.status for event in events} <= {"pending", "processing"}
    # They are still in the database.
    assert answer_on_lost(row, events) is Answer.NO


def test_without_a_limit_what_hangs_fails_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "_long_s", lambda experiment, planned: 0.3)
    sleeps = {"kind": "synthetic", "mean_ms": 1_000}
    row, _, _ = one_trial(tmp_path / "trial", None, workload=sleeps, fixed={"workers": 1}, jobs=3)
    assert (row.status, row.drained, row.lost) == ("failed", False, None)
    assert row.problem == "3 of 3 jobs were not done in any reasonable time"


def test_the_first_problem_is_told_and_an_exit_code_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong later follows from it."""
    experiment = Experiment.from_mapping({"workload": SLEEPS})
    found = []
    for problems in ([], ["the cause", "what follows"]):
        trial = Trial(experiment.plan()[0], experiment, SETTINGS, tmp_path, None)
        monkeypatch.setattr(
            trial._load, "exit_codes", lambda: {"workers_exit_code": 7, "origin_exit_code": 0}
        )
        for problem in problems:
            with trial._problems_noted():
                raise LabError(problem)
        trial.close()
        found.append((trial.row().status, trial.row().problem, trial.row().workers_exit_code))
    assert found == [
        ("failed", "workers ended with code 7 when told to stop", 7),
        ("failed", "the cause", 7),
    ]


def test_a_job_that_redis_lost_is_lost(tmp_path: Path) -> None:
    """Nothing waits for it or runs it: the trial ends without waiting for the limit, and says how many."""
    taken: list[bytes] = []

    def lose_one(done: int, total: int) -> None:
        if not taken:
            with connect(f"unix://{tmp_path}/trial/redis/redis.sock") as client:
                taken.append(cast(bytes, client.rpop("rq:queue:default")))

    sleeps = {"kind": "synthetic", "mean_ms": 400}
    row, events, _ = one_trial(
        tmp_path / "trial", None, lose_one, workload=sleeps, fixed={"workers": 1}, jobs=4, drain_limit_s=60
    )
    assert taken == [b"job-4"]
    assert (row.status, row.drained, row.acknowledged, row.processed, row.lost) == ("ok", True, 4, 3, 1)
    assert [event.status for event in events] == ["processed"] * 3 + ["pending"]
    assert row.throughput_per_s == pytest.approx(3 / (row.drain_s or 0)), "what is lost is not done"
    assert answer_on_lost(row, events) is Answer.YES


def test_a_save_that_the_database_lost_is_lost(tmp_path: Path, host: WorkerHost) -> None:
    def lose_one(done: int, total: int) -> None:
        with closing(sqlite3.connect(tmp_path / "trial" / "bookmarks.sqlite")) as database, database:
            database.execute("DELETE FROM fuze_bookmarks WHERE url LIKE '%/page/3' AND status = 'pending'")

    row, events, _ = one_trial(
        tmp_path / "trial", host, lose_one, fixed={"workers": 1, "origin_latency_ms": 200}, jobs=4
    )
    assert (row.status, row.drained, row.acknowledged, row.processed, row.lost) == ("ok", True, 4, 3, 1)
    assert events[3].status == "gone"
    assert answer_on_lost(row, events) is Answer.YES


def answer_on_lost(row: TrialRow, events: list[EventRow]) -> Answer:
    return lost(vars(row), pd.DataFrame([vars(event) for event in events])).answer


def test_rest_is_believed_at_the_second_time_in_a_row() -> None:
    """A job is between the queue and its worker when it is asked first; one ends after; then nothing happens."""
    now_s, answers = [0.0], iter([True, False, True, True])
    rest = Rest(lambda: next(answers), clock_s=lambda: now_s[0])
    reached = []
    for remaining in (3, 3, 3, 2, 2, 2):
        reached.append(rest.is_reached(remaining))
        now_s[0] += 1.0
    assert reached == [False, False, False, False, False, True]
