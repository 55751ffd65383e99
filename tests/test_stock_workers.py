"""RQ's own workers with jobs that are not ours, and with ours: every kind, the order of queues, the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import pytest
from conftest import wait_until
from rq import Queue, Worker
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.load.jobs import JobCall, read_record, synthetic_jobs
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.lab.parts.stock_workers import KINDS, StockWorkers, argv_of
from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import QUEUES, Settings, Strategy
from fuze_bench.processes import is_running

HERE = Path(__file__).parent


class Start(Protocol):
    def __call__(
        self, kind: str, count: int = 1, queues: Sequence[str] = ("default",), **more: Any
    ) -> StockWorkers: ...


@pytest.fixture
def start(private_redis: PrivateRedis, tmp_path: Path) -> Iterator[Start]:
    """Makes workers for the test's Redis; nothing of them may be left when they have been stopped."""
    made: list[StockWorkers] = []

    def make(kind: str, count: int = 1, queues: Sequence[str] = ("default",), **more: Any) -> StockWorkers:
        options = {"redis_url": private_redis.url, "folder": tmp_path, "module_path": HERE, **more}
        made.append(StockWorkers(kind, count, queues, **options))
        return made[-1]

    yield make
    sessions = {pid for workers in made for pid in workers.pids}
    assert not [pid for pid in psutil.pids() if session_of(pid) in sessions]


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid) if is_running(pid) else -1
    except ProcessLookupError:
        return -1


def send(redis_url: str, calls: Sequence[JobCall], record: Path) -> None:
    with connect(redis_url) as client:
        for call in calls:
            queue = Queue(call.queue, connection=client, serializer=JSONSerializer)
            queue.enqueue_many([call.enqueue_data(record)])


def lines_in(record: Path) -> int:
    return len(read_record(record))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_runs_somebody_elses_jobs_as_they_are(
    kind: str, start: Start, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    record, notes = tmp_path / "record.jsonl", str(tmp_path / "notes")
    calls = [
        JobCall(1, "their_jobs:note", [notes], {"text": "one"}),
        JobCall(2, "their_jobs:note_later", [notes, "two"]),
        JobCall(3, "their_jobs:fail", ["on purpose"]),
        JobCall(4, "their_jobs:Shop.who"),
        JobCall(5, "their_jobs:missing"),
        JobCall(6, "their_jobs:try_again_once", [str(tmp_path / "tried")]),
    ]
    send(private_redis.url, calls, record)
    with connect(private_redis.url) as client, start(kind, 2) as workers:
        workers.wait_ready()
        names = {worker.name for worker in Worker.all(connection=client)}
        assert len(names) == 2
        wait_until(lambda: lines_in(record) >= 7, what="the jobs to be done")
        assert workers.problem() is None
        queue = Queue(connection=client, serializer=JSONSerializer)
        wait_until(lambda: len(FailedJobRegistry(queue=queue)) == 2, what="the failures to be noted")
    assert workers.exit_codes() == [0] * len(workers.pids)
    with connect(private_redis.url) as client:
        assert Worker.count(connection=client) == 0
    found = read_record(record).sort_values(["job", "started_ns"])
    assert list(found["job"]) == [1, 2, 3, 4, 5, 6, 6]
    assert list(found["status"]) == ["processed"] * 2 + [
        "failed",
        "processed",
        "failed",
        "again",
        "processed",
    ]
    assert next(iter(found["reason"][found["status"] == "failed"])) == "ValueError: on purpose"
    assert set(found["worker"]) <= names
    assert sorted((tmp_path / "notes").read_text().split()) == ["one", "two"]


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("kind", ["simple", "fork", "pool", "batch"])
def test_queues_are_drained_in_the_order_of_the_strategy(
    kind: str, strategy: Strategy, start: Start, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    calls = [JobCall(n, "builtins:len", [[]], queue="low" if n > 12 else "high") for n in range(1, 25)]
    send(private_redis.url, calls, record)
    with start(kind, 1, ["high", "low"], strategy=strategy):
        wait_until(lambda: lines_in(record) == 24, what="the jobs to be done")
    order = list(read_record(record).sort_values("started_ns")["job"])
    assert [n for n in order if n <= 12] == list(range(1, 13))
    assert [n for n in order if n > 12] == list(range(13, 25))
    strict = list(range(1, 25))
    in_turn = [n for pair in zip(range(1, 13), range(13, 25), strict=True) for n in pair]
    expected = {Strategy.STRICT: [strict], Strategy.ROUND_ROBIN: [in_turn]}
    if strategy in expected:
        assert order in expected[strategy]
    else:
        assert order not in (strict, in_turn)


def test_synthetic_jobs_take_as_long_as_drawn(
    start: Start, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    law = ServiceLaw(law="lognormal", mean_ms=20, cv=1)
    calls = synthetic_jobs(law, ["default"] * 20, np.random.default_rng(1))
    send(private_redis.url, calls, record)
    with start("simple"):
        wait_until(lambda: lines_in(record) == 20, what="the jobs to be done")
    found = read_record(record)
    service_ms = (found["done_ns"] - found["started_ns"]) / 1e6
    for call, taken_ms in zip(calls, service_ms, strict=True):
        assert call.args[0] <= taken_ms < call.args[0] + 100
    assert (service_ms - [call.args[0] for call in calls]).median() < 5


def test_a_job_that_ends_its_process_is_lost_where_jobs_have_one_of_their_own(
    start: Start, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    send(
        private_redis.url,
        [JobCall(1, "their_jobs:end_the_process"), JobCall(2, "builtins:len", [[]])],
        record,
    )
    with start("fork") as workers:
        workers.wait_ready()
        wait_until(lambda: lines_in(record) == 1, what="the second job")
        assert workers.problem() is None
    assert list(read_record(record)["job"]) == [2]


def test_a_worker_that_ends_is_told(start: Start, private_redis: PrivateRedis, tmp_path: Path) -> None:
    with start("simple") as workers:
        workers.wait_ready()
        send(private_redis.url, [JobCall(1, "their_jobs:end_the_process")], tmp_path / "record.jsonl")
        wait_until(lambda: workers.problem() == "worker 1 ended with code 3", what="the worker to end")


def test_a_pool_that_replaces_a_worker_tells(start: Start, private_redis: PrivateRedis) -> None:
    with start("pool", 2) as workers:
        workers.wait_ready()
        with connect(private_redis.url) as client:
            psutil.Process(Worker.all(connection=client)[0].pid).kill()
        wait_until(lambda: "was replaced by" in (workers.problem() or ""), what="its replacement")


def test_forks_in_the_middle_of_a_job_do_not_outlive_a_killed_worker(
    start: Start, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    """RQ leaves them behind, in process groups of their own: the fixture looks for them."""
    send(private_redis.url, [JobCall(1, "their_jobs:rest", [600])], tmp_path / "record.jsonl")
    with start("fork") as workers:
        tree = psutil.Process(workers.pids[0])
        wait_until(lambda: any(os.getpgid(p.pid) == p.pid for p in tree.children()), what="the job's fork")
        tree.kill()


def test_nothing_is_left_after_a_ctrl_c_while_they_are_stopped(
    start: Start, private_redis: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a job, which would go on for minutes: the fixture looks for it."""
    monkeypatch.setattr(StockWorkers, "_any_runs", lambda _self: signal.raise_signal(signal.SIGINT))
    send(private_redis.url, [JobCall(1, "their_jobs:rest", [600])], tmp_path / "record.jsonl")
    workers = start("fork").__enter__()
    tree = psutil.Process(workers.pids[0])
    wait_until(lambda: any(os.getpgid(p.pid) == p.pid for p in tree.children()), what="the job's fork")
    with pytest.raises(KeyboardInterrupt):
        workers.__exit__()


def test_rqs_own_pool_runs_the_bookmarks(
    service: BookmarkService, settings: Settings, origin: Origin, start: Start
) -> None:
    new = [service.check(user_id=1, url=f"{origin.url}/page/{n}") for n in range(2)]
    ids = [result.bookmark.id for result in service.save(new)]
    with start("pool", 2, QUEUES, environment=settings.environment(os.environ)) as workers:
        workers.wait_ready()
        wait_until(lambda: service.store.counts()["processed"] == 2, what="the bookmarks", timeout_s=60)
    assert [service.store.get(i).status for i in ids] == [Status.PROCESSED] * 2  # type: ignore[union-attr]


def test_one_that_does_not_stop_is_told_twice(
    start: Start, private_redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ's workers note a signal that comes between two jobs, and may wait for the next job all the same. (What comes
    within a second they take for the same signal.)
    """
    monkeypatch.setattr("fuze_bench.lab.parts.stock_workers._TELL_AGAIN_S", 1.5)
    with start("fork") as workers, connect(private_redis.url) as client:
        workers.wait_ready()
        Queue(connection=client, serializer=JSONSerializer).enqueue("time.sleep", 600)
        wait_until(lambda: client.hget(client.smembers("rq:workers").pop(), "state") == b"busy")
    assert workers.exit_codes() == [0]


def test_the_password_is_in_no_command_line(start: Start, private_redis: PrivateRedis) -> None:
    with connect(private_redis.url) as client:
        client.config_set("requirepass", "very-secret")
    url = private_redis.url.replace("unix://", "unix://:very-secret@")
    with start("fork", redis_url=url) as workers:
        workers.wait_ready()
        family = [psutil.Process(workers.pids[0]), *psutil.Process(workers.pids[0]).children(recursive=True)]
        assert "very-secret" not in " ".join(" ".join(process.cmdline()) for process in family)


@pytest.mark.parametrize(
    ("kind", "count", "queues", "strategy", "message"),
    [
        ("forks", 1, ["default"], "strict", "kind='forks' is none of RQ's workers: did you mean 'fork'?"),
        ("fork", 1, ["default"], "roundrobin", "did you mean 'round_robin'?"),
        ("fork", 0, ["default"], "strict", "workers=0: start at least one"),
        ("fork", 1, [], "strict", "name at least one"),
        ("fork", 1, "default", "strict", "as a list"),
        ("pool", 1, ["a", "b", "a"], "strict", "holds 'a' twice"),
    ],
)
def test_what_rq_cannot_start_is_refused(
    kind: str, count: int, queues: list[str], strategy: str, message: str
) -> None:
    with pytest.raises(LabError) as caught:
        argv_of(kind, count, queues, strategy)
    assert message in str(caught.value)
