"""A batch worker when things go wrong: deaths, stops, slow jobs, signals. What ended is never done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import their_calls
from batch_working import QuickToKill, lines, statuses, working
from conftest import wait_until
from rq import Queue, Worker
from rq.command import send_command, send_stop_execution_command, send_stop_job_command
from rq.suspension import resume, suspend
from worker_scenarios import burst

from fuze_bench.pipeline.batch_worker import BatchWorker
from fuze_bench.pipeline.redis_server import PrivateRedis, connect


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.Redis]:
    with PrivateRedis(tmp_path / "redis") as running, connect(running.url) as client:
        yield client


@pytest.fixture
def queue(server: redis.Redis) -> Queue:
    return Queue("high", connection=server)


@pytest.mark.parametrize(
    ("death", "reason"),
    [
        (their_calls.die, "signal 9"),
        (their_calls.exit_at_once, "waitpid returned 1792"),
        (their_calls.segfault, "signal 11"),
    ],
    ids=["killed", "exits", "segfault"],
)
def test_a_job_that_kills_its_process_fails_alone(
    death: Callable[..., Any], reason: str, queue: Queue, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    jobs = [queue.enqueue(their_calls.write_line, str(done), str(n)) for n in range(20)]
    culprit = queue.enqueue(death)
    jobs += [queue.enqueue(their_calls.write_line, str(done), str(n)) for n in range(20, 40)]
    burst(BatchWorker, queue.connection)
    assert lines(done) == [str(n) for n in range(40)]
    assert statuses(*jobs) == ["finished"] * 40
    assert culprit.get_status() == "failed"
    assert reason in culprit.latest_result().exc_string
    assert Worker.count(queue.connection) == 0


@pytest.mark.parametrize("hang", [their_calls.swallow_everything, their_calls.hang_in_c])
def test_a_job_that_no_time_limit_ends_is_killed(hang: Callable[..., Any], queue: Queue) -> None:
    hung = queue.enqueue(hang, 60, job_timeout=1)
    other = queue.enqueue(their_calls.add, 1)
    burst(QuickToKill, queue.connection)
    assert statuses(hung, other) == ["failed", "finished"]
    assert "signal 9" in hung.latest_result().exc_string


def test_slow_jobs_do_not_hold_up_what_was_claimed_with_them(queue: Queue, tmp_path: Path) -> None:
    """Quick jobs make the worker claim many at once; then one of them is slow."""
    go = tmp_path / "go"
    for n in range(300):
        queue.enqueue(their_calls.add, n)
    slow = queue.enqueue(their_calls.wait_for, str(go))
    behind = [queue.enqueue(their_calls.add, n) for n in range(20)]
    with working(queue.connection), working(queue.connection):
        wait_until(lambda: all(job.is_finished for job in behind), what="the jobs behind the slow one")
        assert slow.get_status() == "started"
        go.touch()
        wait_until(lambda: slow.is_finished, what="the slow one")


def test_the_last_jobs_are_shared(queue: Queue) -> None:
    for n in range(300):
        queue.enqueue(their_calls.add, n)
    with working(queue.connection), working(queue.connection):
        wait_until(lambda: not queue.count, what="the quick ones")
        last = [queue.enqueue(their_calls.sleep, 0.4) for _ in range(4)]
        wait_until(lambda: all(job.is_finished for job in last), what="the last ones")
    done_by = [job.latest_result().worker_name for job in last]
    assert len(set(done_by)) == 2


@pytest.mark.parametrize("send", ["job", "execution"])
def test_a_job_is_stopped_and_its_neighbours_are_done(send: str, queue: Queue, tmp_path: Path) -> None:
    with working(queue.connection):
        stopped = queue.enqueue(their_calls.sleep, 60)
        others = [queue.enqueue(their_calls.add, n) for n in range(3)]
        wait_until(lambda: stopped.get_status() == "started", what="the start")
        worker_name = stopped.worker_name or Worker.all(queue.connection)[0].name
        for nothing_of_ours in ({"job_id": 1}, {}):
            send_command(queue.connection, worker_name, f"stop-{send}", **nothing_of_ours)
        sent_s = time.monotonic()
        if send == "job":
            send_stop_job_command(queue.connection, stopped.id)
        else:
            (execution,) = stopped.get_executions()
            send_stop_execution_command(queue.connection, stopped.id, execution.id)
        wait_until(lambda: stopped.is_stopped, what="the stop")
        assert time.monotonic() - sent_s < 5
        wait_until(lambda: all(job.is_finished for job in others), what="the others")


def test_a_claimed_job_is_stopped_before_it_begins(queue: Queue, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"

    class Patient(BatchWorker):
        patience_s = 60.0

    for n in range(300):
        queue.enqueue(their_calls.add, n)
    queue.enqueue(their_calls.wait_for, str(go))
    waiting = [queue.enqueue(their_calls.write_line, str(begun), str(n)) for n in range(5)]
    pid = os.fork()
    if pid == 0:
        Patient(["high"], connection=queue.connection).work(burst=True, logging_level="CRITICAL")
        os._exit(0)
    wait_until(lambda: waiting[2].get_status() == "started", what="the claim")
    send_stop_job_command(queue.connection, waiting[2].id)
    wait_until(lambda: waiting[2].is_stopped, what="the stop")
    go.touch()
    assert os.waitpid(pid, 0)[1] == 0
    assert lines(begun) == ["0", "1", "3", "4"]


def test_sigterm_lets_the_running_job_finish_and_puts_the_others_back(queue: Queue, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    for n in range(300):
        queue.enqueue(their_calls.add, n)
    running = queue.enqueue(their_calls.note_and_wait, str(tmp_path / "running"), str(go))
    others = [queue.enqueue(their_calls.write_line, str(begun), str(n)) for n in range(5)]
    with working(queue.connection) as pid:
        # Claimed it is before: then it may still go back.
        wait_until((tmp_path / "running").exists, what="the start")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: queue.job_ids == [job.id for job in others], what="the others to be back")
        assert psutil.pid_exists(pid)
        go.touch()
        wait_until(
            lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", what="the end"
        )
    assert statuses(running, *others) == ["finished"] + ["queued"] * 5
    assert not queue.started_job_registry.count
    burst(BatchWorker, queue.connection)
    assert lines(begun) == [str(n) for n in range(5)]


def test_a_second_sigterm_ends_it_at_once(queue: Queue, tmp_path: Path) -> None:
    running = queue.enqueue(their_calls.sleep, 60)
    with working(queue.connection) as pid:
        wait_until(lambda: running.get_status() == "started", what="the start")
        wait_until(lambda: psutil.Process(pid).children(), what="the child")
        (child,) = [c for c in psutil.Process(pid).children() if c.is_running()]
        os.kill(pid, signal.SIGTERM)
        time.sleep(1.1)  # RQ takes a second signal within a second for the same one
        os.kill(pid, signal.SIGTERM)
        assert child.wait(5) is None or True
        wait_until(
            lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", what="the end"
        )


def test_the_child_does_not_outlive_a_killed_worker(queue: Queue) -> None:
    queue.enqueue(their_calls.sleep, 60)
    with working(queue.connection) as pid:
        wait_until(lambda: psutil.Process(pid).children(), what="the child")
        children = psutil.Process(pid).children()
        os.kill(pid, signal.SIGKILL)
        assert not psutil.wait_procs(children, timeout=5)[1]


def test_a_worker_that_was_frozen_does_not_begin_what_others_have_done(queue: Queue, tmp_path: Path) -> None:
    """Its lease ends, and another takes what it had claimed; then it goes on, as after a laptop's sleep."""

    class Soon(BatchWorker):
        lease_s = 1.5
        patience_s = 60.0
        claim_worth_s = 2.0

    done = tmp_path / "done"
    jobs = [queue.enqueue(their_calls.write_line_slowly, str(done), str(n)) for n in range(400)]
    pid = os.fork()
    if pid == 0:
        Soon(["high"], connection=queue.connection).work(burst=True, logging_level="CRITICAL")
        os._exit(0)
    try:
        wait_until(lambda: len(lines(done)) > 40, what="it to be at work")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not queue.connection.keys("rq:batch:????????????????"), what="its lease to end")
        burst(Soon, queue.connection)
    finally:
        os.kill(pid, signal.SIGCONT)
        status = os.waitpid(pid, 0)[1]
    assert status == 0
    assert sorted(lines(done), key=int) == [str(n) for n in range(400)]
    assert statuses(*jobs) == ["finished"] * 400


def test_a_child_without_work_gives_memory_back(queue: Queue) -> None:
    job = queue.enqueue(their_calls.fill_the_heap)
    with working(queue.connection) as pid:
        wait_until(lambda: job.is_finished, what="the job")
        (child,) = [c for c in psutil.Process(pid).children() if c.is_running()]
        full = job.return_value()
        wait_until(lambda: child.memory_info().rss < full - 30e6, what="the memory to be given back")


def test_suspended_workers_claim_nothing(queue: Queue) -> None:
    suspend(queue.connection)
    with working(queue.connection):
        job = queue.enqueue(their_calls.add, 1)
        wait_until(lambda: {w.get_state() for w in Worker.all(queue.connection)} == {"suspended"}, what="it")
        assert job.is_queued
        resume(queue.connection)
        wait_until(lambda: job.is_finished, what="the job")


def test_max_jobs_counts_jobs(queue: Queue) -> None:
    jobs = [queue.enqueue(their_calls.add, n) for n in range(250)]
    burst(BatchWorker, queue.connection, max_jobs=130)
    assert sum(job.is_finished for job in jobs) == 130
    assert queue.count == 120


@pytest.mark.parametrize("strategy", ["default", "round_robin", "random"])
def test_queues_are_taken_in_their_order_in_turn_or_at_random(
    strategy: str, server: redis.Redis, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    for name in ("low", "high"):
        for n in range(40):
            Queue(name, connection=server).enqueue(their_calls.write_line, str(done), f"{name}-{n}")
    burst(BatchWorker, server, dequeue_strategy=strategy)
    order = lines(done)
    high, low = ([f"{name}-{n}" for n in range(40)] for name in ("high", "low"))
    in_turn = [each for pair in zip(high, low, strict=True) for each in pair]
    assert [each for each in order if each in high] == high
    assert [each for each in order if each in low] == low
    if strategy == "random":
        assert order not in (high + low, in_turn)
    else:
        assert order == (high + low if strategy == "default" else in_turn)


def test_the_stock_command_line_takes_it(queue: Queue, tmp_path: Path) -> None:
    job = queue.enqueue("math.floor", 1.5)
    path = queue.connection.connection_pool.connection_kwargs["path"]
    url = f"unix://{path}"
    argv = [sys.executable, "-m", "rq.cli", "worker", "--url", url, "--burst", "high"]
    argv += ["-w", "fuze_bench.pipeline.batch_worker.BatchWorker"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert job.return_value() == 1
    assert f"high: math.floor(1.5) ({job.id})" in done.stdout
    assert "Job OK" in done.stdout
