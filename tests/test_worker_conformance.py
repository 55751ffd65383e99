"""A batch worker is an RQ worker: whatever is enqueued, it leaves in Redis what RQ's own workers leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import their_calls
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
