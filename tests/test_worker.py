"""Real worker processes: kinds, order of queues, signals, names, and the stock `rq worker`."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import pytest
from conftest import StartWorker, wait_until
from nursery import nursery
from rq import Queue, Worker
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import EmbeddingState, Reason, Status
from fuze_bench.pipeline.control import noted_embedding
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child, usable_cores


def save(service: BookmarkService, *urls: str, queue: str = "default") -> list[int]:
    results = service.save([service.check(user_id=1, url=url, queue=queue) for url in urls])
    return [result.bookmark.id for result in results]


def unfinished(service: BookmarkService) -> int:
    counts = service.store.counts()
    return counts["pending"] + counts["processing"]


def queue(settings: Settings, name: str = "default") -> Queue:
    return Queue(name, connection=connect(settings.redis_url or ""), serializer=JSONSerializer)


@pytest.mark.parametrize("kind", ["simple", "fork", "spawn", "batch"])
def test_each_kind_does_the_work(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    ids = save(service, f"{origin.url}/page/1", f"{origin.url}/page/2", f"{origin.url}/status/404")
    with start_worker(settings, "--kind", kind, "--burst", wait=False, fresh=True) as worker:
        assert worker.wait(60) == 0
        log = worker.log_tail(1_000)
    assert [service.store.get(i).status for i in ids] == [Status.PROCESSED, Status.PROCESSED, Status.FAILED]  # type: ignore[union-attr]
    here = queue(settings)
    assert len(FinishedJobRegistry(queue=here)) == 2
    [failed] = FailedJobRegistry(queue=here).get_job_ids()
    assert failed == f"bookmark-{ids[2]}-1"
    assert "The page does not exist" in (here.fetch_job(failed).latest_result().exc_string or "")  # type: ignore[union-attr]
    assert "Traceback" not in log


def test_the_stock_worker_runs_the_same_jobs(
    service: BookmarkService, settings: Settings, origin: Origin, tmp_path: Path
) -> None:
    ids = save(service, f"{origin.url}/page/1", f"{origin.url}/page/2")
    rq = Path(sys.executable).with_name("rq")
    argv = [str(rq), "worker", "--url", settings.redis_url or "", "--serializer", "json", "--burst"]
    environment = {**os.environ, **settings.to_mapping()}
    with Child("rq worker", [*argv, "default"], tmp_path / "rq.log", environment=environment) as worker:
        assert worker.wait(60) == 0
    assert [service.store.get(i).status for i in ids] == [Status.PROCESSED] * 2  # type: ignore[union-attr]


def test_the_same_text_behind_many_addresses_is_read_each_time(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Twelve pages, one after another in one process: nothing of a page is left for the next."""
    body = (Path(__file__).parent / "pages" / "repeated.html").read_bytes()
    ids = save(service, *(origin.put(f"/put/{n}", body) for n in range(12)))
    with start_worker(settings, "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    texts = [service.store.content(i)[0] for i in ids]
    assert len(texts[0] or "") > 100
    assert texts == texts[:1] * 12


def test_the_usual_kind_is_batch(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(settings) as worker, connect(settings.redis_url or "") as client:
        wait_until(lambda: client.keys("rq:batch:*"), what="a lease, which no other kind has")
        assert worker.is_alive()


@pytest.mark.xdist_group("model")
def test_forks_share_the_loaded_model(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Eight jobs in eight forks, each with a vector; half of them and more in less time than loading the model takes."""
    with_model = replace(settings, embedding_model="bundled", embedding_threads=0)
    ids = save(service, *(f"{origin.url}/page/{n}" for n in range(8)))
    with start_worker(with_model, "--kind", "fork", "--burst", wait=False) as worker:
        assert worker.wait(120) == 0
    found = [service.store.get(i) for i in ids]
    assert [b.embedding for b in found if b] == [EmbeddingState.OK] * 8
    with connect(settings.redis_url or "") as client:
        assert (noted_embedding(client) or "").split()[0] in ("float32", "bfloat16")
    said = [line for line in worker.log_path.read_text().splitlines() if "embedding in " in line]
    assert len(said) == 1, "it is decided before the forks, for all of them"
    assert said[0].endswith(f"threads: {usable_cores()}"), "one worker has all of them"
    # Loading takes seconds. Had the forks done it, all would have taken so long; one may, where others use the cores.
    assert median(b.done_at - b.started_at for b in found if b and b.done_at and b.started_at) < 2.5


@pytest.mark.parametrize("kind", ["simple", "batch"])
def test_high_overtakes_default_and_low_comes_last(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    order = []
    for name in ("low", "default", "high"):
        order.append(
            save(service, *(f"{origin.url}/page/{name}{n}?{name}={n}" for n in range(4)), queue=name)
        )
    with start_worker(settings, "--burst", "--kind", kind, wait=False) as worker:
        assert worker.wait(60) == 0
    started = {row["id"]: row["started_ns"] for row in service.store.rows("id", "started_ns")}
    low, default, high = ([started[i] for i in ids] for ids in order)
    together = int(
        kind == "batch"
    )  # at the same moment, where the last of one and the first of the next are claimed
    assert max(high) < min(default) + together
    assert max(default) < min(low) + together
    assert max(high) < min(low)


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
@pytest.mark.parametrize("strategy", ["round_robin", "random"])
def test_queues_can_take_turns_or_be_taken_at_random(
    strategy: str,
    kind: str,
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    # By chance alone, a random order is the strict one in 1 of 2 ** (pages - 1) runs.
    number_of_pages = 4 if strategy == "round_robin" else 20
    pages = {
        name: save(
            service, *(f"{origin.url}/page/{n}?{name}={n}" for n in range(number_of_pages)), queue=name
        )
        for name in ("high", "low")
    }
    with start_worker(settings, "--kind", kind, "--strategy", strategy, "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    rows = service.store.rows("id", "started_ns")
    strict = pages["high"] + pages["low"]
    in_turn = [i for pair in zip(pages["high"], pages["low"], strict=True) for i in pair]
    # What a batch worker begins together has one time.
    rows.sort(key=lambda row: (row["started_ns"], in_turn.index(row["id"])))
    order = [row["id"] for row in rows]
    for ids in pages.values():
        assert [i for i in order if i in ids] == ids
    assert order == in_turn if strategy == "round_robin" else order not in (strict, in_turn)


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_rqs_timer_ends_a_page_that_takes_too_long(
    kind: str, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    brief = replace(settings, job_timeout_s=1, retry_intervals_s=())
    with BookmarkService(brief) as service, start_worker(brief, "--kind", kind):
        [slow] = save(service, f"{origin.url}/slow/30000/1")
        [other] = save(service, f"{origin.url}/page/1")
        wait_until(lambda: found_status(service, slow) is Status.FAILED, what="the slow one")
        wait_until(lambda: found_status(service, other) is Status.PROCESSED, what="the other")
        bookmark = service.store.get(slow)
    assert bookmark is not None
    assert bookmark.reason is Reason.TIMED_OUT
    assert "maximum timeout value" in (bookmark.error or "")


def found_status(service: BookmarkService, bookmark_id: int) -> Status:
    bookmark = service.store.get(bookmark_id)
    assert bookmark is not None
    return bookmark.status


def test_queues_are_the_named_ones_in_their_order(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    save(service, f"{origin.url}/page/1?q=high", queue="high")
    save(service, f"{origin.url}/page/1?q=low", queue="low")
    with start_worker(settings, "--queue", "low", "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    assert [queue(settings, name).count for name in ("high", "low")] == [1, 0]


def test_two_starts_never_collide_and_all_have_a_scheduler(
    settings: Settings, start_worker: StartWorker
) -> None:
    connection = connect(settings.redis_url or "")
    with start_worker(settings, "--count", "2"), start_worker(settings, "--count", "2"):
        wait_until(lambda: Worker.count(connection=connection) == 4, what="four workers")
        wait_until(lambda: connection.exists("rq:scheduler-lock:default"), what="a scheduler")
    assert Worker.count(connection=connection) == 0
    assert not connection.exists("rq:scheduler-lock:default")


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_sigterm_lets_the_job_finish(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    first, second = save(service, f"{origin.url}/slow/1500/1", f"{origin.url}/page/2")
    with start_worker(settings, "--kind", kind) as worker:
        wait_until(lambda: origin.hits("/slow/1500/1"), what="the job to begin")
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    assert service.store.get(first).status is Status.PROCESSED  # type: ignore[union-attr]
    # A batch worker has begun both: it fetches the second page while it waits for the first.
    expected = Status.PROCESSED if kind == "batch" else Status.PENDING
    assert service.store.get(second).status is expected  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_a_second_sigterm_stops_at_once(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """RQ takes two signals within a second for one that came twice; a fork's bookmark is free when its lease ends."""
    [bookmark_id] = save(service, f"{origin.url}/slow/60000/1")
    hasty = replace(settings, fetch_total_s=60, fetch_idle_s=60, lease_s=2.0)
    with start_worker(hasty, "--kind", kind) as worker:
        wait_until(lambda: origin.hits("/slow/60000/1"), what="the job to begin")
        worker.signal(signal.SIGTERM)
        time.sleep(1.2)
        asked = time.monotonic()
        worker.signal(signal.SIGTERM)
        worker.wait(10)
        assert time.monotonic() - asked < 5
    wait_until(
        lambda: [service.store.take_back_expired(), service.store.claim([bookmark_id], 1)][1],
        what="it to be free",
    )


def test_an_idle_worker_stops_soon_and_leaves_nothing(settings: Settings, start_worker: StartWorker) -> None:
    for kind in ("simple", "fork", "batch"):
        with start_worker(settings, "--kind", kind) as worker:
            asked = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert worker.wait(10) == 0
            assert time.monotonic() - asked < 3
            with pytest.raises(ProcessLookupError):
                os.killpg(worker.pid, 0)


def test_a_name_that_is_taken_is_one_line(settings: Settings, start_worker: StartWorker) -> None:
    with (
        start_worker(settings, "--name", "x"),
        start_worker(settings, "--name", "x", wait=False) as second,
    ):
        assert second.wait(30) == 2
        assert "a worker named 'x' is known to Redis" in second.log_tail()
        assert "Traceback" not in second.log_tail(100)


def test_sigterm_while_many_workers_start_stops_them_all(
    settings: Settings, start_worker: StartWorker
) -> None:
    with start_worker(settings, "--count", "6") as supervisor:  # the first of them listens
        supervisor.signal(signal.SIGTERM)
        assert supervisor.wait(20) == 0
    assert Worker.count(connection=connect(settings.redis_url or "")) == 0


def test_a_killed_worker_takes_its_fork_along(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    save(service, f"{origin.url}/slow/20000/1")
    with start_worker(settings, "--kind", "fork") as worker:
        wait_until(lambda: origin.hits("/slow/20000/1"), what="the job to begin")
        [horse] = [p for p in psutil.Process(worker.pid).children() if os.getpgid(p.pid) == p.pid]
        worker.signal(signal.SIGKILL)
        wait_until(lambda: not horse.is_running() or horse.status() == psutil.STATUS_ZOMBIE, what="it to end")


def test_the_password_is_in_no_command_line(
    settings: Settings, origin: Origin, private_redis: PrivateRedis, start_worker: StartWorker
) -> None:
    connect(settings.redis_url or "").config_set("requirepass", "very-secret")
    secret = replace(settings, redis_url=private_redis.url.replace("unix://", "unix://:very-secret@"))
    with BookmarkService(secret) as saving, start_worker(secret, "--kind", "spawn", fresh=True) as worker:
        [bookmark_id] = save(saving, f"{origin.url}/slow/1500/1")
        wait_until(lambda: origin.hits("/slow/1500/1"), what="the job to begin")
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        assert len(family) >= 2
        assert "very-secret" not in "".join(" ".join(p.cmdline()) for p in family)
        assert "very-secret" not in worker.log_tail(1_000)
        wait_until(
            lambda: saving.store.get(bookmark_id).status is Status.PROCESSED,  # type: ignore[union-attr]
            what="it to be done",
        )


def test_a_killed_worker_is_replaced(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    connection = connect(settings.redis_url or "")
    with start_worker(settings, "--count", "2") as supervisor:
        wait_until(lambda: Worker.count(connection=connection) == 2, what="two workers")
        victim = Worker.all(connection=connection, serializer=JSONSerializer)[0]
        os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda: Worker.count(connection=connection) == 3, what="its replacement")
        save(service, *(f"{origin.url}/page/{n}" for n in range(4)))
        wait_until(lambda: unfinished(service) == 0, what="the work to be done")
        assert supervisor.is_alive()


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--count", "0"], {}, "'--count': 0 is not in the range x>=1"),
        (["--strategy", "fair"], {}, "'fair' is not one of 'strict', 'round_robin', 'random'"),
        (["--kind", "thread"], {}, "'thread' is not one of 'simple', 'fork', 'spawn'"),
        (["--queue", "urgent"], {}, "'urgent' is not one of 'high', 'default', 'low'"),
        ([], {"FUZE_LEASE": "3"}, "unknown setting FUZE_LEASE: did you mean 'FUZE_LEASE_S'?"),
        ([], {"REDIS_URL": "ftp://x"}, "REDIS_URL starts with 'ftp'"),
        ([], {"REDIS_URL": "redis://127.0.0.1:1/0"}, "Redis cannot be used"),
    ],
)
def test_a_wrong_start_is_one_line(
    options: list[str], environment: dict[str, str], message: str, data_dir: Path
) -> None:
    environment = {**os.environ, "FUZE_DATA_DIR": str(data_dir), **environment}
    done = nursery().run("fuze_bench.pipeline.worker_command:main", options, environment)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not data_dir.exists()
