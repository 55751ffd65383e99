"""Functions of which a batch worker does many calls at once: together, ahead of time, and one by one where they fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import their_calls
from batch_working import QuickToKill, lines, statuses, working
from conftest import wait_until
from rq import Queue
from rq.command import send_stop_job_command
from worker_scenarios import burst

from fuze_bench.pipeline.batch_form import with_batch_form
from fuze_bench.pipeline.batch_worker import BatchWorker
from fuze_bench.pipeline.redis_server import PrivateRedis, connect


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with PrivateRedis(tmp_path / "redis") as running, connect(running.url) as client:
        yield Queue("high", connection=client)


class _Together:
    """A batch form that notes how many calls came at once, and fails as its calls ask for."""

    size = 8

    def begin(self, calls: Any) -> Any:
        return calls

    def is_ready(self, begun: Any) -> bool:
        return True

    def finish(self, begun: Any) -> list[Any]:
        return [together(*args, batch=len(begun)) for args, _ in begun]


@with_batch_form(_Together())
def together(path: str, what: str, batch: int = 1) -> str:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "break" and batch > 1:
        raise RuntimeError("only together")
    if what == "fail":
        raise RuntimeError("only this one")
    if what == "hang":
        their_calls.swallow_everything(60)
    their_calls.write_line(path, f"{what}:{batch}")
    return what


def test_a_batch_form_gets_many_calls(queue: Queue, tmp_path: Path) -> None:
    jobs = [queue.enqueue(together, str(tmp_path / "done"), str(n)) for n in range(60)]
    burst(BatchWorker, queue.connection)
    assert [job.return_value() for job in jobs] == [str(n) for n in range(60)]
    batches = [int(line.partition(":")[2]) for line in lines(tmp_path / "done")]
    assert max(batches) == 8


class _AfterOthers:
    """A batch form whose input is there when sixteen calls after it have been begun, or all."""

    size = 1
    begun = 0

    def begin(self, calls: Any) -> int:
        self.begun += len(calls)
        return self.begun

    def is_ready(self, begun: int) -> bool:
        return self.begun >= min(begun + 16, 60)

    def finish(self, begun: int) -> list[int]:
        assert self.is_ready(begun)
        return [begun]


@with_batch_form(_AfterOthers())
def after_others() -> int:
    raise RuntimeError("alone")


def test_while_a_batch_waits_for_its_input_others_are_begun(queue: Queue) -> None:
    class OneByOne(BatchWorker):
        batch_size = 1
        claims_in_hand_waiting = 17

    jobs = [queue.enqueue(after_others, job_timeout=10) for _ in range(60)]
    burst(OneByOne, queue.connection)
    assert [job.return_value() for job in jobs] == [*range(1, 61)]


class _WhenThere:
    """A batch form whose calls wait for a file."""

    size = 1

    def begin(self, calls: Any) -> Path:
        return Path(calls[0][0][0])

    def is_ready(self, begun: Path) -> bool:
        return begun.exists()

    def finish(self, begun: Path) -> list[str]:
        return [begun.name]


@with_batch_form(_WhenThere())
def when_there(path: str) -> str:
    return Path(path).name


def test_what_comes_late_holds_up_nothing_and_can_be_stopped(queue: Queue, tmp_path: Path) -> None:
    late, stopped, soon = (
        queue.enqueue(when_there, str(tmp_path / name)) for name in ("late", "never", "soon")
    )
    (tmp_path / "soon").touch()
    with working(queue.connection):
        wait_until(lambda: soon.is_finished, what="the last of three")
        assert statuses(late, stopped) == ["started"] * 2
        send_stop_job_command(queue.connection, stopped.id)
        wait_until(lambda: stopped.is_stopped, what="the stop")
        (tmp_path / "late").touch()
        wait_until(lambda: late.is_finished, what="the first of three")
    assert [job.return_value() for job in (late, soon)] == ["late", "soon"]


@pytest.mark.parametrize("trouble", ["die", "break", "fail", "hang"])
def test_a_batch_that_fails_is_tried_one_by_one(trouble: str, queue: Queue, tmp_path: Path) -> None:
    done = tmp_path / "done"
    options = {"job_timeout": 1} if trouble == "hang" else {}
    jobs = [queue.enqueue(together, str(done), trouble if n == 50 else str(n), **options) for n in range(60)]
    burst(QuickToKill, queue.connection)
    failed = [n for n, job in enumerate(jobs) if not job.is_finished]
    assert failed == ([] if trouble == "break" else [50])
    if trouble != "break":
        assert ("only" if trouble == "fail" else "signal 9") in jobs[50].latest_result().exc_string


def test_one_of_a_batch_is_stopped_and_the_others_are_done(queue: Queue, tmp_path: Path) -> None:
    jobs = [queue.enqueue(together, str(tmp_path / "done"), "hang" if n == 50 else str(n)) for n in range(60)]
    with working(queue.connection):
        wait_until(
            lambda: jobs[49].is_finished or statuses(*jobs[49:51]) == ["started"] * 2, what="the batch"
        )
        wait_until(lambda: jobs[50].get_status() == "started", what="the one")
        send_stop_job_command(queue.connection, jobs[50].id)
        wait_until(lambda: jobs[50].is_stopped, what="the stop")
        wait_until(lambda: all(job.is_finished for job in jobs if job is not jobs[50]), what="the others")
