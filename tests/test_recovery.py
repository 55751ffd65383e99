"""Nothing acknowledged is ever stuck: killed workers, an emptied Redis, lost entries, poison."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from api_server import running_api
from click.testing import CliRunner
from conftest import StartWorker, wait_until
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.serializers import JSONSerializer

from fuze_bench.cli import app
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import NewBookmark, Reason, Status
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.recovery import Recovered
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """Recovery within a second or two."""
    return replace(
        settings,
        lease_s=1.0,
        lease_check_s=0.5,
        recovery_interval_s=0.5,
        recover_after_s=0.5,
        redis_retry_s=0.0,
    )


@pytest.fixture
def saving(hasty: Settings) -> Iterator[BookmarkService]:
    with BookmarkService(hasty) as service:
        yield service


def save(service: BookmarkService, *urls: str) -> list[int]:
    return [r.bookmark.id for r in service.save([service.check(user_id=1, url=url) for url in urls])]


def status(service: BookmarkService, bookmark_id: int) -> Status:
    found = service.store.get(bookmark_id)
    assert found is not None
    return found.status


def queue(settings: Settings) -> Queue:
    return Queue("default", connection=connect(settings.redis_url or ""), serializer=JSONSerializer)


@pytest.mark.parametrize("kind", ["simple", "fork", "spawn", "batch"])
def test_a_worker_killed_in_the_middle_of_a_job(
    kind: str,
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    """kill -9 to the worker that has it in hand and to all it started: done by the other within 30 s, with the defaults."""
    with start_worker(settings, "--kind", kind) as one, start_worker(settings, "--kind", kind) as other:
        [bookmark_id] = save(service, f"{origin.url}/slow/4000/1")
        wait_until(lambda: origin.hits("/slow/4000/1") == 1, what="the job to begin")
        workers = Worker.all(connection=connect(settings.redis_url or ""), serializer=JSONSerializer)
        [busy] = [worker.pid for worker in workers if worker.get_state() == "busy"]
        assert busy in (one.pid, other.pid)
        for process in [psutil.Process(busy), *psutil.Process(busy).children(recursive=True)]:
            process.kill()
        killed_s = time.monotonic()
        wait_until(
            lambda: status(service, bookmark_id) is Status.PROCESSED, timeout_s=60, what="it to be done"
        )
        assert time.monotonic() - killed_s < 30
    assert origin.hits("/slow/4000/1") == 2


def test_what_a_killed_batch_worker_had_claimed_and_not_begun(
    service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """It has many pages in hand. Another puts back those that it had not begun, and their leases bring back the others."""
    soon = replace(settings, lease_s=2.0, lease_check_s=0.5)
    with start_worker(soon, "--kind", "batch") as one:
        ids = save(service, *(f"{origin.url}/slow/50/{n}" for n in range(80)))
        wait_until(lambda: frozen_before_some_begin(one.pid, settings), what="it to have claimed more")
        for process in family(one.pid):
            process.kill()
    # Who is killed between the job's beginning and the claim leaves a page that only this finds.
    last_resort = replace(soon, recover_after_s=8.0, recovery_interval_s=2.0)
    with start_worker(last_resort, "--kind", "batch") as other:
        wait_until(lambda: service.store.counts()["processed"] == len(ids), what="all to be done")
        assert "jobs that a dead worker had not begun are back" in other.log_tail(1_000)


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def frozen_before_some_begin(pid: int, settings: Settings) -> bool:
    """Stop a batch worker for a look at what it has in hand; it goes on if all that has begun."""
    for process in family(pid):
        process.suspend()
    with connect(settings.redis_url or "") as client:
        for begun in client.keys("rq:batch:*:begun"):
            claimed = client.zrange("rq:wip:default", 0, -1)
            if any(int(execution[-16:], 16) >= int(client.get(begun) or 0) for execution in claimed):
                return True
    for process in family(pid):
        process.resume()
    return False


def test_an_emptied_redis_loses_nothing(
    saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    ids = save(saving, *(f"{origin.url}/page/{n}" for n in range(20)))
    connect(hasty.redis_url or "").flushall()
    with start_worker(hasty):
        wait_until(lambda: saving.store.counts()["processed"] == len(ids), what="everything to be done")
    assert [origin.hits(f"/page/{n}") for n in range(20)] == [1] * 20


def test_redis_and_workers_killed_and_started_again(
    saving: BookmarkService,
    hasty: Settings,
    private_redis: PrivateRedis,
    origin: Origin,
    start_worker: StartWorker,
) -> None:
    ids = save(saving, *(f"{origin.url}/slow/100/{n}" for n in range(30)))
    with start_worker(hasty, "--count", "2") as workers:
        wait_until(lambda: saving.store.counts()["processed"] > 3, what="some to be done")
        private_redis.kill()
        workers.kill_group()
    private_redis.start()
    with start_worker(hasty, "--count", "2"):
        wait_until(lambda: saving.store.counts()["processed"] == len(ids), what="all to be done")


def test_a_job_whose_queue_entry_is_lost(
    saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """The job's hash says `queued`, the list does not hold it; saving the page again does not make it run."""
    [bookmark_id] = save(saving, f"{origin.url}/page/1")
    client = connect(hasty.redis_url or "")
    assert client.lrem("rq:queue:default", 0, f"bookmark-{bookmark_id}-1") == 1
    assert save(saving, f"{origin.url}/page/1") == [bookmark_id]
    assert queue(hasty).count == 0
    with start_worker(hasty):
        wait_until(lambda: status(saving, bookmark_id) is Status.PROCESSED, what="it to be done")


def test_what_waits_in_a_queue_is_not_sent_again(
    saving: BookmarkService, hasty: Settings, origin: Origin
) -> None:
    ids = save(saving, *(f"{origin.url}/page/{n}" for n in range(5)))
    wait_until(
        lambda: len(saving.store.overdue(hasty.recover_after_s, 0, 10)) == 5, what="them to be overdue"
    )
    assert saving.recovery.everything() == Recovered()
    assert queue(hasty).count == len(ids)


@pytest.mark.parametrize("kind", ["fork", "batch"])
def test_a_page_that_kills_its_worker_twice_is_left_alone(
    kind: str, saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """The fork that has the page in hand is killed each time; the worker lives, and does the others."""
    [poison] = save(saving, f"{origin.url}/slow/30000/1")
    slow = replace(hasty, fetch_total_s=60, fetch_idle_s=60)
    with start_worker(slow, "--kind", kind) as worker:
        for times in (1, 2):
            wait_until(
                lambda times=times: origin.hits("/slow/30000/1") == times, what="the page to be asked for"
            )
            [running] = Worker.all(connection=connect(hasty.redis_url or ""), serializer=JSONSerializer)
            for child in psutil.Process(running.pid).children():
                if (
                    os.getpgid(child.pid) == child.pid
                ):  # the fork leads a group of its own, the scheduler does not
                    child.kill()
        wait_until(lambda: status(saving, poison) is Status.FAILED, what="it to be given up")
        others = save(saving, f"{origin.url}/page/1")
        wait_until(lambda: status(saving, others[0]) is Status.PROCESSED, what="another to be done")
        assert worker.is_alive()
    found = saving.store.get(poison)
    assert found is not None
    assert found.reason is Reason.KILLED_WORKER
    assert "signal 9" in (found.error or "")
    assert "memory" in (found.error or "")
    assert origin.hits("/slow/30000/1") == 2


def test_recover_sends_on_what_lost_its_job(settings: Settings) -> None:
    now = replace(settings, recover_after_s=0.0)
    with BookmarkService(now) as service:
        [lost, _] = save(service, "https://example.org/1", "https://example.org/2")
    waiting = queue(now)
    before = waiting.job_ids
    waiting.connection.lrem(waiting.key, 0, f"bookmark-{lost}-1")
    done = CliRunner().invoke(app, ["recover"], env=now.to_mapping())
    assert done.output.startswith("0 bookmarks of dead workers and 1 without a job are on their way again")
    assert sorted(waiting.job_ids) == sorted(before)


def test_the_api_takes_up_what_was_left_when_redis_is_away(
    hasty: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    with BookmarkService(hasty) as service:
        [bookmark_id] = save(service, f"{origin.url}/page/1")
        private_redis.stop()
        with running_api(hasty):
            wait_until(lambda: status(service, bookmark_id) is Status.PROCESSED, what="a thread to do it")


def test_a_backlog_beyond_the_threads_is_deferred_and_done_when_redis_is_back(
    hasty: Settings, private_redis: PrivateRedis, origin: Origin, start_worker: StartWorker
) -> None:
    tight = replace(hasty, fallback_threads=1, fallback_backlog=2, fallback_batch=1)
    with BookmarkService(tight) as service:
        private_redis.stop()
        new = [service.check(user_id=1, url=f"{origin.url}/slow/300/{n}") for n in range(10)]
        modes = [str(result.job.mode) for result in service.save(new)]
        assert set(modes) == {"thread", "deferred"}
        private_redis.start()
        with start_worker(tight):
            wait_until(lambda: service.store.counts()["processed"] == 10, what="all to be done")
        assert [origin.hits(f"/slow/300/{n}") for n in range(10)] == [1] * 10


def test_a_clock_of_redis_that_is_set_back_stops_no_look(
    saving: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """What was to end within a second ends in an hour then."""
    [bookmark_id] = save(saving, f"{origin.url}/page/1")
    with connect(hasty.redis_url or "") as client:
        client.lrem("rq:queue:default", 0, f"bookmark-{bookmark_id}-1")
        for name in ("leases", "everything"):
            client.set(f"fuze:first:{name}", "1", px=3_600_500)
    with start_worker(hasty):
        wait_until(lambda: status(saving, bookmark_id) is Status.PROCESSED, what="it to be done")


def test_a_row_that_cannot_be_read_ends_no_look_for_good(
    hasty: Settings, private_redis: PrivateRedis, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """A later version knows a reason that this one does not; the API goes on looking all the same."""

    def set_reason(reason: str | None) -> None:
        with closing(sqlite3.connect(hasty.data_dir / "bookmarks.sqlite")) as database, database:
            database.execute("UPDATE fuze_bookmarks SET reason = ?", [reason])

    with BookmarkService(hasty) as service:
        [bookmark_id] = save(service, f"{origin.url}/page/1")
        set_reason("of_tomorrow")
        private_redis.stop()
        with running_api(hasty):
            wait_until(lambda: "of_tomorrow" in caplog.text, what="a look that fails")
            set_reason(None)
            wait_until(lambda: status(service, bookmark_id) is Status.PROCESSED, what="a look that succeeds")


def test_a_worker_that_is_told_to_stop_in_the_middle_of_a_look_stops(
    saving: BookmarkService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ's signal handler raises this in an idle worker."""

    def told(_after_s: float, *_rest: object) -> None:
        raise StopRequested

    monkeypatch.setattr(saving.store, "overdue", told)
    with pytest.raises(StopRequested):
        saving.recovery.when_due()


def test_one_of_many_looks_at_a_time(saving: BookmarkService) -> None:
    firsts: list[bool] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        firsts.append(saving.queue.is_first("test", 60))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(firsts) == 1


def test_nobody_waits_for_redis_once_it_is_closed(data_dir: Path) -> None:
    """Deaths that were counted while Redis was away wait for it, but not for longer than there is a service."""
    before = set(threading.enumerate())
    with BookmarkService(Settings(data_dir=data_dir, embedding_model="off", redis_retry_s=0.0)) as service:
        [saved] = service.store.save(
            [NewBookmark(user_id=1, url="https://example.org/", canonical_url="https://example.org/")]
        )
        for take_back in (service.store.take_back_expired, service.recovery.leases):
            service.store.claim([saved.bookmark.id], 600)
            service.store.note_death(process_name(), "signal 9")
            take_back()
        assert [t.name for t in set(threading.enumerate()) - before].count("measurements") == 1
    wait_until(lambda: set(threading.enumerate()) <= before, what="its threads to end")
