"""Real trials: Redis, origin, worker processes, bookmarks from save to stored."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import wait_until

from fuze_bench.lab import trial as trial_module
from fuze_bench.lab.origin import Origin
from fuze_bench.lab.results import load_run
from fuze_bench.lab.run import recorded_settings
from fuze_bench.lab.spec import Configuration, Experiment, PlannedTrial
from fuze_bench.lab.trial import Trial
from fuze_bench.lab.worker_host import WorkerHost
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.settings import Settings
from fuze_bench.timing import SystemClock

SETTINGS = Settings(embedding_model="off")
ONE_SIMPLE = PlannedTrial(1, 1, Configuration("simple", 1))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHost]:
    with WorkerHost(SETTINGS, tmp_path_factory.mktemp("host") / "host.log") as running:
        yield running


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_every_bookmark_is_recorded_with_its_stamps(tmp_path: Path, host: WorkerHost):
    before = set(children())
    experiment = Experiment(worker_counts=(1,), kinds=("simple",), bookmarks=6, origin_latency_ms=20)
    seen: list[tuple[int, int]] = []
    with Trial(ONE_SIMPLE, experiment, SETTINGS, tmp_path / "trial", host) as trial:
        trial.wait_ready()
        trial.measure(lambda done, total: seen.append((done, total)))
        trial.close()
        row = trial.row()
    assert row.problem is None, row.log_end
    assert (row.status, row.processed, row.failed, row.lost, row.duplicated) == ("ok", 6, 0, 0, 0)
    assert (row.workers_exit_code, row.origin_exit_code) == (0, 0)
    assert seen[-1] == (6, 6)
    assert len(trial.events) == 6, "the warm-up must not be recorded"
    for event in trial.events:
        assert event.started_ns is not None
        assert event.done_ns is not None
        assert event.queued_ns < event.started_ns < event.done_ns
        assert event.fetch_ms is not None
        assert event.fetch_ms >= 20
        assert event.embed_ms is None
    drain_s = (max(e.done_ns or 0 for e in trial.events) - trial.events[0].queued_ns) / 1e9
    assert row.drain_s == pytest.approx(drain_s)
    assert row.throughput_per_s == pytest.approx(6 / drain_s)
    assert set(children()) <= before, "something outlived the trial"


class SteppedClock(SystemClock):
    """The machine's clocks, the wall clock set back by `back_s`."""

    back_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() - self.back_s


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path: Path, origin: Origin):
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
    events = [
        trial_module._event(ONE_SIMPLE, n, row)
        for n, row in enumerate(pipeline.store.rows(*trial_module._COLUMNS), start=1)
    ]
    pipeline.close()
    assert [event.status for event in events] == ["processed"] * 2
    for event in events:
        assert event.started_ns is not None
        assert event.done_ns is not None
        assert event.queued_ns < event.started_ns < event.done_ns
        assert min(event.fetch_ms or -1, event.extract_ms or -1, event.analyse_ms or -1) >= 0
    assert 300 <= (events[1].fetch_ms or 0) < 60_000
    assert 0.3 < (trial_module._drain_s(events) or 0) < 60


def test_a_killed_worker_makes_the_trial_fail_and_leaves_nothing_running(tmp_path: Path, host: WorkerHost):
    before = set(children())
    experiment = Experiment(worker_counts=(1,), kinds=("simple",), bookmarks=4, origin_latency_ms=400)

    def kill_worker(done: int, total: int) -> None:
        assert trial._workers is not None
        trial._workers.child.kill_group()

    with Trial(ONE_SIMPLE, experiment, SETTINGS, tmp_path / "trial", host) as trial:
        trial.wait_ready()
        trial.measure(kill_worker)
        trial.close()
        row = trial.row()
    assert row.status == "failed"
    assert row.problem is not None
    assert "ended with code -9" in row.problem
    assert row.log_end is not None
    assert "workers.log:" in row.log_end
    assert row.throughput_per_s is None
    assert row.lost == 4
    assert set(children()) <= before


def test_a_backlog_that_is_not_done_in_time_makes_the_trial_fail(tmp_path: Path, host: WorkerHost):
    experiment = Experiment(worker_counts=(1,), kinds=("simple",), bookmarks=3, origin_latency_ms=3_000)
    with Trial(ONE_SIMPLE, experiment, SETTINGS, tmp_path / "trial", host, timeout_s=0.5) as trial:
        trial.wait_ready()
        trial.measure()
        trial.close()
    assert trial.row().status == "failed"
    assert "not done after 0.5 s" in (trial.row().problem or "")


def test_what_is_recorded_is_what_the_trials_ran_with_and_no_place_on_this_machine(tmp_path: Path):
    (tmp_path / "model").mkdir()
    asked = Settings(
        data_dir=tmp_path,
        host_fetches=2,
        lease_s=7.0,
        embedding_model=str(tmp_path / "model"),
        redis_url="redis://:very-secret@h/0",
        api_tokens=tmp_path / "tokens",
    )
    recorded = recorded_settings(asked)
    assert (recorded["FUZE_HOST_FETCHES"], recorded["FUZE_HOST_INTERVAL_S"]) == ("0", "0.0")
    assert (recorded["FUZE_LEASE_S"], recorded["FUZE_EMBEDDING_MODEL"]) == ("7.0", "model")
    assert not any(str(tmp_path) in value or "very-secret" in value for value in recorded.values())
    assert recorded_settings(replace(asked, embedding_model="org/name"))["FUZE_EMBEDDING_MODEL"] == "org/name"


def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing_running(tmp_path: Path):
    code = (
        "from fuze_bench.lab.run import run_experiment\nfrom fuze_bench.lab.spec import Experiment\n"
        "run_experiment(Experiment(worker_counts=(1,), kinds=('simple',), bookmarks=2, repeats=50,"
        " origin_latency_ms=20))"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FUZE_", "REDIS_"))}
    before = set(children())
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=kept
        | {
            "FUZE_EMBEDDING_MODEL": "off",
            "FUZE_DATA_DIR": str(tmp_path),
            "FUZE_FETCH_ALLOW": "my.intranet",
            "FUZE_API_HOSTS": "my.intranet",
            "FUZE_HOST_UNLIMITED": "my.intranet",
            "REDIS_PASSWORD": "p@ss/word",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 1/50"):
                break
        started = set(children()) - before
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode != 0
    assert "stopped; what was measured so far is in" in rest
    (folder,) = (tmp_path / "runs").iterdir()
    run = load_run(folder)
    assert run.trials["status"].iloc[0] == "ok"
    assert run.planned_trials == 50
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in (b"my.intranet", b"p@ss/word", b"p%40ss%2Fword"):
        assert secret not in written
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
