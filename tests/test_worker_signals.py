"""Signals to workers and to what they start: killed jobs, killed workers whose name is taken, deploys that stop a group."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import StartWorker, wait_until
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import scheduler
from fuze_bench.pipeline.bookmarks import Bookmark, Reason, Status
from fuze_bench.pipeline.diagnosis import diagnose
from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.rq_workers import CLASSES
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Kind, Settings
from fuze_bench.processes import Child

KINDS = ["simple", "fork", "spawn", "batch"]


@pytest.fixture
def saving(settings: Settings) -> Iterator[BookmarkService]:
    with BookmarkService(settings) as service:
        yield service


def save(service: BookmarkService, *urls: str) -> list[int]:
    return [r.bookmark.id for r in service.save([service.check(user_id=1, url=url) for url in urls])]


def found(service: BookmarkService, bookmark_id: int) -> Bookmark:
    bookmark = service.store.get(bookmark_id)
    assert bookmark is not None
    return bookmark


def known_workers(settings: Settings) -> list[Worker]:
    with connect(settings.redis_url or "") as client:
        return Worker.all(connection=client, serializer=JSONSerializer)


def horse_of(worker_pid: int) -> psutil.Process | None:
    """The process that runs the worker's job: it leads a group of its own, which the scheduler does not."""
    for child in psutil.Process(worker_pid).children():
        if child.status() != psutil.STATUS_ZOMBIE and os.getpgid(child.pid) == child.pid:
            return child
    return None


def finished_jobs(settings: Settings) -> int:
    with connect(settings.redis_url or "") as client:
        return Queue("default", connection=client).finished_job_registry.count


@pytest.mark.parametrize("kind", ["fork", "spawn", "batch"])
def test_a_page_whose_process_is_killed_fails_alone(
    kind: str, saving: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """As by the kernel, for want of memory: tried once more, given up with a reason that says so; the others are done."""
    count = 9 if kind == "fork" else 1  # each in an interpreter of its own takes long
    culprit, *others = save(
        saving, f"{origin.url}/slow/25000/1", *(f"{origin.url}/page/{n}" for n in range(count))
    )
    with start_worker(settings, "--kind", kind) as worker:
        for times in (1, 2):
            wait_until(
                lambda t=times: origin.hits("/slow/25000/1") == t,
                timeout_s=90,
                what="the page to be asked for",
            )
            if kind == "batch":  # what comes at once is done meanwhile, and is not what it dies of
                wait_until(lambda: finished_jobs(settings) == count, what="the others' jobs to be finished")
            horse = horse_of(worker.pid)
            assert horse is not None
            horse.kill()
        wait_until(lambda: found(saving, culprit).status is Status.FAILED, what="it to be given up")
        wait_until(
            lambda: all(found(saving, i).status is Status.PROCESSED for i in others),
            timeout_s=60,
            what="the others to be done",
        )
        assert worker.is_alive()
    failed = found(saving, culprit)
    assert failed.reason is Reason.KILLED_WORKER
    assert "signal 9" in (failed.error or "")
    assert "memory" in (failed.error or "")


def test_one_page_hangs_and_one_kills_and_the_others_are_done(
    saving: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    short = replace(settings, fetch_total_s=2.0, fetch_idle_s=2.0, retry_intervals_s=())
    pages = [f"{origin.url}/page/{n}" for n in range(18)]
    hanging, killing, *others = save(
        saving, f"{origin.url}/hostile/hang", f"{origin.url}/slow/1500/1", *pages
    )
    with start_worker(short, "--kind", "fork") as worker:
        for times in (1, 2):
            wait_until(lambda t=times: origin.hits("/slow/1500/1") == t, what="the page to be asked for")
            horse = horse_of(worker.pid)
            assert horse is not None
            horse.kill()
        wait_until(
            lambda: all(found(saving, i).status in (Status.PROCESSED, Status.FAILED) for i in others),
            timeout_s=60,
            what="the others to be done",
        )
        wait_until(lambda: found(saving, killing).status is Status.FAILED, what="it to be given up")
    assert [(found(saving, i).status, found(saving, i).reason) for i in others] == [
        (Status.PROCESSED, None)
    ] * 18
    ended = [found(saving, i).done_at or 0 for i in others]
    # Ten seconds are plenty where nothing else runs; whoever waited for a hung page would wait for minutes.
    assert max(ended) - (found(saving, hanging).started_at or 0) < 30
    assert found(saving, hanging).reason is Reason.TIMED_OUT
    assert found(saving, killing).reason is Reason.KILLED_WORKER


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_whose_worker_was_killed_is_free(
    kind: str, saving: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """kill -9 to the worker alone, as supervisors and the kernel do, and a start under the same name at once."""
    options = ("--kind", kind, "--name", "w1")
    with start_worker(settings, *options) as first:
        wait_until(lambda: psutil.Process(first.pid).children(), what="its scheduler")
        [scheduler] = psutil.Process(first.pid).children()
        first.signal(signal.SIGKILL)
        first.wait(10)
        with start_worker(settings, *options) as second:
            [bookmark_id] = save(saving, f"{origin.url}/page/1")
            wait_until(lambda: found(saving, bookmark_id).status is Status.PROCESSED, what="it to work")
            assert [(each.name, each.pid) for each in known_workers(settings)] == [("w1", second.pid)]
            assert "takes the place of one that was killed" in second.log_tail(100)
        wait_until(lambda: not scheduler.is_running(), what="the scheduler of the first to end")


def test_a_name_whose_worker_is_silent_on_another_host_is_free(
    settings: Settings, start_worker: StartWorker
) -> None:
    """A container that is started again has another host name: its worker's last sign of life tells."""
    brief = replace(settings, worker_ttl_s=16)
    with connect(settings.redis_url or "") as client, start_worker(brief, "--name", "w1") as first:
        first.kill_group()
        client.hset("rq:worker:w1", "hostname", "elsewhere")
        with start_worker(brief, "--name", "w1", wait=False) as second:
            assert second.wait(30) == 2
            assert "a worker named 'w1' is known to Redis" in second.log_tail()
        client.hset("rq:worker:w1", "last_heartbeat", "2020-01-01T00:00:00.000000Z")
        with start_worker(brief, "--name", "w1"):
            assert len(known_workers(settings)) == 1


def test_a_supervisor_starts_a_killed_worker_again_under_its_name(
    saving: BookmarkService, settings: Settings, origin: Origin, tmp_path: Path
) -> None:
    """Redis would know the old one for a minute or two; doctor and lab count the new one alone."""
    config, program = (
        tmp_path / "supervisord.conf",
        f"{shlex.quote(sys.executable)} -m fuze_bench.pipeline.worker",
    )
    config.write_text(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        f"[program:worker]\ncommand={program} --name w1\nautorestart=true\nstartsecs=0\nredirect_stderr=true\n"
        "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
    )
    argv = [str(Path(sys.executable).with_name("supervisord")), "-c", str(config)]
    log, environment = tmp_path / "supervisord.log", settings.environment(os.environ)
    with Child("supervisord", argv, log, environment=environment) as supervisor:
        supervisor.wait_ready(lambda: "Listening on" in supervisor.log_tail(100), timeout_s=60)
        [first] = known_workers(settings)
        os.kill(first.pid, signal.SIGKILL)
        [bookmark_id] = save(saving, f"{origin.url}/page/1")
        killed_s = time.monotonic()
        wait_until(lambda: found(saving, bookmark_id).status is Status.PROCESSED, what="the new one to work")
        assert time.monotonic() - killed_s < 20
        [second] = known_workers(settings)
        assert (second.name, second.pid != first.pid) == ("w1", True)
        findings = {finding.name: finding for finding in diagnose(settings)}
        assert findings["workers"].data["names"] == ["w1"]
        with connect(settings.redis_url or "") as client:
            assert Worker.all_keys(connection=client) == ["rq:worker:w1"]  # what a trial of the lab counts


@pytest.mark.parametrize("kind", KINDS)
def test_an_idle_worker_with_its_scheduler_stops_soon_and_leaves_nothing(
    kind: str, settings: Settings, start_worker: StartWorker
) -> None:
    with start_worker(settings, "--kind", kind) as worker, connect(settings.redis_url or "") as client:
        wait_until(lambda: psutil.Process(worker.pid).children(), what="its scheduler")
        assert client.keys("rq:scheduler-lock:*")
        asked = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        assert time.monotonic() - asked < 3
        with pytest.raises(ProcessLookupError):
            os.killpg(worker.pid, 0)
        assert client.keys("rq:scheduler-lock:*") == []
        assert known_workers(settings) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", ["1", "2"])
def test_sigterm_to_the_whole_group_lets_the_job_finish(
    kind: str,
    count: str,
    saving: BookmarkService,
    settings: Settings,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    """As honcho and supervisord do it; a supervisor passes the signal on to workers that have it already."""
    [bookmark_id] = save(saving, f"{origin.url}/slow/1500/1")
    with start_worker(settings, "--kind", kind, "--count", count) as worker:
        wait_until(lambda: origin.hits("/slow/1500/1"), what="the job to begin")
        os.killpg(worker.pid, signal.SIGTERM)
        assert worker.wait(30) == 0
        assert found(saving, bookmark_id).status is Status.PROCESSED
        assert "Traceback" not in worker.log_tail(10_000)
    assert origin.hits("/slow/1500/1") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_sigterm_to_the_group_puts_the_bookmark_back(
    kind: str, saving: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Broken off twice by deploys, it is still no page that kills workers; the next worker has it at once."""
    [bookmark_id] = save(saving, f"{origin.url}/slow/4000/1")
    for times in (1, 2):
        with start_worker(settings, "--kind", kind) as worker:
            wait_until(lambda t=times: origin.hits("/slow/4000/1") == t, what="the job to begin")
            os.killpg(worker.pid, signal.SIGTERM)
            time.sleep(1.1)  # RQ takes two signals within a second for one that came twice
            asked = time.monotonic()
            os.killpg(worker.pid, signal.SIGTERM)
            worker.wait(20)
            assert time.monotonic() - asked < 5
            assert "Traceback" not in worker.log_tail(10_000)
        assert (found(saving, bookmark_id).status, found(saving, bookmark_id).attempts) == (Status.PENDING, 0)
        with connect(settings.redis_url or "") as client:
            queue = Queue("default", connection=client, serializer=JSONSerializer)
            assert queue.job_ids == [f"bookmark-{bookmark_id}-1"]
            assert queue.failed_job_registry.get_job_ids() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process was started")
def test_a_name_whose_process_number_is_another_one_now_is_free(
    settings: Settings, start_worker: StartWorker
) -> None:
    """A container that is started again gives its processes the numbers of the last time."""
    with connect(settings.redis_url or "") as client, start_worker(settings, "--name", "w1") as first:
        client.hset("rq:worker:w1", "birth", "2020-01-01T00:00:00.000000Z")
        stranger = first.pid
        with start_worker(settings, "--name", "w1") as second:
            assert [each.pid for each in known_workers(settings)] == [second.pid] != [stranger]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_process_whose_parent_ended_before_it_could_ask_ends_too() -> None:
    """As the scheduler of a worker that was killed at that moment."""
    code = (
        "import os, time; from fuze_bench.processes import die_with_parent\n"
        "parent = os.getpid()\n"
        "if os.fork(): os._exit(0)\n"
        "while os.getppid() == parent: time.sleep(0.01)\n"
        "die_with_parent(parent=parent); time.sleep(30); print('lives')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == ""


def test_a_scheduler_that_waits_stops_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_STEP_S", 600.0)
    with connect(settings.redis_url or "") as client:
        waiting = scheduler.PipelineScheduler(["low"], connection=client, serializer=JSONSerializer)
        process = waiting.start()
        wait_until(lambda: client.hget(waiting.key, "last_heartbeat"), what="it to schedule")
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, what="it to wait")
        process.terminate()
        process.join(30)
        process.kill()
        process.join()
        assert process.exitcode == 0
        assert client.keys("rq:scheduler*") == []


def test_a_scheduler_that_is_stopped_as_it_starts_ends_quietly(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is a fork of a worker whose own handlers raise."""

    def handler(_number: int, _frame: object) -> None:
        raise StopRequested

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with connect(settings.redis_url or "") as client:
            for _ in range(5):
                starting = scheduler.PipelineScheduler(["low"], connection=client, serializer=JSONSerializer)
                process = starting.start()
                process.terminate()
                process.join(30)
                assert process.exitcode == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_stops_does_not_wait_for_the_thread_that_listens_to_commands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if that reads the last message before anything else happens."""
    with connect(settings.redis_url or "") as client:
        worker = CLASSES[Kind.SIMPLE](["low"], connection=client)
        worker.subscribe()
        pubsub, unsubscribe = worker.pubsub, worker.pubsub.unsubscribe

        def unsubscribe_and_wait() -> None:
            unsubscribe()
            wait_until(lambda: not pubsub.subscribed, what="the last message to be read")

        monkeypatch.setattr(pubsub, "unsubscribe", unsubscribe_and_wait)
        worker.unsubscribe()
        assert not worker.pubsub_thread.is_alive()


def test_a_signal_in_a_finaliser_is_neither_lost_nor_printed(
    settings: Settings,
) -> None:
    """Python drops what is raised there; warnings are errors here, and it warns of that."""

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with connect(settings.redis_url or "") as client:
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        worker = CLASSES[Kind.SIMPLE]([queue], connection=client, serializer=JSONSerializer)
        try:
            signal.signal(signal.SIGTERM, worker.request_stop)
            Dying()
            assert worker._stop_requested
            signal.signal(signal.SIGTERM, worker.request_stop)
            with pytest.raises(StopRequested):
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def test_a_name_whose_worker_lives_is_refused(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(settings, "--name", "w1") as first:
        with start_worker(settings, "--name", "w1", wait=False) as second:
            assert second.wait(30) == 2
            assert "a worker named 'w1' is known to Redis" in second.log_tail()
        assert [each.pid for each in known_workers(settings)] == [first.pid]


def test_a_fork_that_rq_kills_itself_is_a_death_like_any_other(
    saving: BookmarkService, settings: Settings, origin: Origin
) -> None:
    """RQ does so a minute after the job's time is over, and then says neither which process it was nor how it ended."""
    [bookmark_id] = save(saving, f"{origin.url}/page/1")
    code = (
        "import os, time; from fuze_bench.pipeline.settings import Settings; from fuze_bench.pipeline.store import Store\n"
        f"Store(Settings.from_mapping(os.environ)).claim([{bookmark_id}], 600); print('at work', flush=True); time.sleep(600)"
    )
    with (
        connect(settings.redis_url or "") as client,
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=settings.environment(os.environ),
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as fork,
    ):
        assert fork.stdout is not None
        assert fork.stdout.readline() == b"at work\n"
        queue = Queue("default", connection=client, serializer=JSONSerializer)
        worker = CLASSES[Kind.FORK]([queue], connection=client, serializer=JSONSerializer)
        worker.recovery = Recovery(settings, saving.store, saving.queue)
        worker._horse_pid = fork.pid
        worker.kill_horse()
        worker.wait_for_horse()
        fork.returncode = -signal.SIGKILL  # the worker has reaped it
        worker.handle_work_horse_killed(queue.fetch_job(f"bookmark-{bookmark_id}-1"), None, None, None)
    [row] = saving.store.rows("status", "deaths", "death_note")
    assert (row["status"], row["deaths"]) == (Status.PENDING, 1)
    assert "signal 9" in row["death_note"]
