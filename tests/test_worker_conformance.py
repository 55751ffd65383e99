"""A batch worker is an RQ worker: whatever is enqueued, it leaves in Redis what RQ's own workers leave."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import their_calls
from conftest import wait_until
from rq import Queue, SimpleWorker
from worker_scenarios import SCENARIOS, burst, state

from fuze_bench.pipeline.batch_worker import BatchWorker
from fuze_bench.pipeline.redis_server import PrivateRedis, connect


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with PrivateRedis(tmp_path_factory.mktemp("redis")) as running, connect(running.url) as client:
        yield client


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_leaves_what_rqs_worker_leaves(
    scenario: str, server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {}
    for worker_class in (SimpleWorker, BatchWorker):
        notes = tmp_path / worker_class.__name__
        monkeypatch.setenv("NOTES", str(notes))
        server.flushall()
        SCENARIOS[scenario](Queue("high", connection=server))
        burst(worker_class, server)
        left[worker_class] = {**state(server), "notes": notes.read_text() if notes.exists() else ""}
    theirs, ours = left[SimpleWorker], left[BatchWorker]
    differ = {
        key: (theirs.get(key), ours.get(key)) for key in theirs | ours if theirs.get(key) != ours.get(key)
    }
    assert not differ, dict(list(differ.items())[:3])


def test_the_state_compared_sees_what_matters(server: redis.Redis) -> None:
    """The comparison itself can fail: another result, another status, another time to live."""
    server.flushall()
    queue = Queue("high", connection=server)
    queue.enqueue(their_calls.add, 1, job_id="job")
    burst(SimpleWorker, server)
    before = state(server)
    for change in (
        lambda: server.hset("rq:job:job", "status", "failed"),
        lambda: server.expire("rq:job:job", 100),
        lambda: server.zrem("rq:finished:high", "job"),
        lambda: server.delete("rq:results:job"),
    ):
        change()
        assert state(server) != before
        before = state(server)


class Soon(BatchWorker):
    """What a killed one had not begun is back after a second and a half, and not before: it is patient."""

    lease_s = 1.5
    patience_s = 60.0


@pytest.mark.parametrize("killed", ["the worker", "all"])
def test_a_killed_one_costs_what_rqs_costs(killed: str, server: redis.Redis, tmp_path: Path) -> None:
    """The job that it was running fails as abandoned when RQ's clean-up comes to it, and no other is lost or done twice."""
    left, done = {}, tmp_path / "done"
    for worker_class in (SimpleWorker, Soon):
        server.flushall()
        done.unlink(missing_ok=True)
        queue = Queue("high", connection=server)
        calls = [Queue.prepare_data(their_calls.sleep, (0.003,), job_id=f"before-{n}") for n in range(60)]
        calls.append(Queue.prepare_data(their_calls.note_and_wait, (str(done), "never"), job_id="running"))
        calls += [
            Queue.prepare_data(their_calls.write_line, (str(done), str(n)), job_id=f"behind-{n}")
            for n in range(40)
        ]
        queue.enqueue_many(calls)
        kill_in_the_middle(worker_class, server, done, killed == "all")
        assert queue.fetch_job("running").get_status() == "started"
        wait_until(lambda: not server.keys("rq:batch:????????????????"), what="the lease to end")
        burst(worker_class, server)
        assert queue.started_job_registry.get_job_ids(cleanup=False) == ["running"]
        queue.started_job_registry.cleanup(timestamp=time.time() + CLEANED_UP_S)
        assert "AbandonedJobError" in queue.fetch_job("running").latest_result().exc_string
        assert done.read_text().split() == ["running", *(str(n) for n in range(40))]
        # What ends by itself, after each one's time.
        volatile = re.compile(":batch:|:worker|:execution")
        left[worker_class] = {key: value for key, value in state(server).items() if not volatile.search(key)}
    assert left[SimpleWorker] == left[Soon]


#: RQ's clean-up comes to a SimpleWorker's job a minute after its time limit, to a batch worker's after a minute and a half.
CLEANED_UP_S = 180 + 60 + 1


def kill_in_the_middle(worker_class: type, server: redis.Redis, done: Path, its_child: bool) -> None:
    """Start one, wait until it runs a job that does not end, and kill it, or it and its child in the same moment."""
    pid = os.fork()
    if not pid:
        worker_class(["high"], connection=server).work(logging_level="CRITICAL")
        os._exit(0)
    wait_until(done.exists, what="the job to begin")
    wait_until(lambda: server.zcard("rq:finished:high") == 60, what="those before it to be told of")
    assert (server.zcard("rq:wip:high") > 5) == (worker_class is Soon), "what it has in hand"
    children = psutil.Process(pid).children()
    for process in [psutil.Process(pid), *(children if its_child else [])]:
        process.suspend()
    for process in [psutil.Process(pid), *(children if its_child else [])]:
        process.kill()
    os.waitpid(pid, 0)
    assert not psutil.wait_procs(children, timeout=5)[1]
