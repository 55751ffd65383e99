"""The queue's seed names, the fallback, and coming back after an outage."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import wait_until
from relay import Relay
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from fuze_bench.errors import InputError, QueueUnavailableError
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import task_queue
from fuze_bench.pipeline.bookmarks import Mode, Status
from fuze_bench.pipeline.fallback import ThreadFallback
from fuze_bench.pipeline.redis_server import PrivateRedis, connect, redis_for
from fuze_bench.pipeline.service import BookmarkService, SaveResult
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


def save(service: BookmarkService, url: str, queue: str = "default") -> SaveResult:
    return service.save([service.check(user_id=1, url=url, queue=queue)])[0]


def queue(settings: Settings, name: str = "default") -> Queue:
    assert settings.redis_url is not None
    return Queue(name, connection=connect(settings.redis_url), serializer=JSONSerializer)


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Redis is tried again at once after an outage."""
    return replace(settings, redis_retry_s=0.0, redis_connect_timeout_s=0.2, redis_timeout_s=0.2)


def test_jobs_are_json_with_the_documented_arguments(service: BookmarkService, settings: Settings) -> None:
    result = save(service, "https://example.org/x")
    [job] = queue(settings).jobs
    assert job.id == result.job.id == f"bookmark-{result.bookmark.id}-1"
    assert job.func_name == "fuze_bench.pipeline.process.process_bookmark_content_task"
    assert job.args == [result.bookmark.id, "https://example.org/x", 1]
    assert job.timeout == settings.job_timeout_s
    raw = connect(settings.redis_url or "").hget(f"rq:job:{job.id}", "data")
    assert b"pickle" not in (raw or b"")


def test_a_duplicate_gets_the_job_that_is_under_way(service: BookmarkService, settings: Settings) -> None:
    first, again = save(service, "https://example.org/x"), save(service, "https://example.org/x#top")
    assert again.was_duplicate
    assert again.job == first.job
    assert queue(settings).count == 1


def test_a_group_goes_to_its_queues(service: BookmarkService, settings: Settings) -> None:
    names = ["high", "low", "default", "low"]
    new = [service.check(user_id=1, url=f"https://example.org/{i}", queue=n) for i, n in enumerate(names)]
    assert [r.job.queue for r in service.save(new)] == names
    assert [queue(settings, name).count for name in ("high", "default", "low")] == [1, 1, 2]


def test_redis_absent_at_start(settings: Settings, origin: Origin) -> None:
    with BookmarkService(replace(settings, redis_url=None)) as service:
        result = save(service, f"{origin.url}/page/1")
        assert result.job.mode is Mode.THREAD
        assert service.fallback.join(30)
        found = service.store.get(result.bookmark.id)
        assert found is not None
        assert found.status is Status.PROCESSED


def test_an_outage_is_one_line_and_ends_by_itself(
    impatient: Settings, private_redis: PrivateRedis, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    with BookmarkService(impatient) as service, caplog.at_level(logging.WARNING):
        assert save(service, f"{origin.url}/page/0").job.mode is Mode.RQ
        private_redis.stop()
        assert [save(service, f"{origin.url}/page/{n}").job.mode for n in (1, 2, 3)] == [Mode.THREAD] * 3
        assert not service.queue.is_available()
        private_redis.start()
        pages = itertools.count(4)
        wait_until(
            lambda: save(service, f"{origin.url}/page/{next(pages)}").job.mode is Mode.RQ,
            what="RQ to be used again",
        )
        assert service.queue.is_available()
        assert service.fallback.join(30)
        assert service.store.counts()["processed"] >= 3
    messages = [r.getMessage() for r in caplog.records if r.name == task_queue.__name__]
    assert sum("falling back to threading" in m for m in messages) == 1
    assert sum("Redis is back" in m for m in messages) == 1


def test_nobody_waits_for_redis_once_it_is_closed(
    impatient: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    def waiting() -> bool:
        return any(thread.name == "redis-return" for thread in threading.enumerate())

    with BookmarkService(impatient) as service:
        private_redis.stop()
        assert save(service, f"{origin.url}/page/0").job.mode is Mode.THREAD
        assert waiting()
    wait_until(lambda: not waiting(), what="the thread to end")


def test_what_was_under_way_when_redis_went_away_does_not_bring_it_back(
    settings: Settings, private_redis: PrivateRedis
) -> None:
    """A cluster, a replica and a full one answer some commands: whether Redis can be used, a look tells."""

    def goes_away(sent: bytes, _reply: bytes) -> bool:
        if b"fuze:first:test" in sent:
            service.queue._went_away(QueueUnavailableError("gone in the middle"))
        return False

    with Relay(private_redis.socket_path, loses=goes_away) as relay:
        patient = replace(settings, redis_url=f"redis://127.0.0.1:{relay.port}/0", redis_retry_s=60)
        with BookmarkService(patient) as service:
            assert service.queue.is_first("test", 60)
            assert service.queue.uses_threads
            assert service.queue.is_available()
            assert not service.queue.uses_threads


def test_a_redis_that_was_away_is_not_asked_again_at_once(
    settings: Settings, private_redis: PrivateRedis
) -> None:
    patient = replace(settings, redis_retry_s=600, redis_connect_timeout_s=0.2)
    with BookmarkService(patient) as service:
        private_redis.stop()
        with pytest.raises(QueueUnavailableError, match="connect"):
            service.queue.enqueue([save_only(service)])
        private_redis.start()
        with pytest.raises(QueueUnavailableError, match="a moment ago"):
            service.queue.enqueue([save_only(service)])


def save_only(service: BookmarkService):  # type: ignore[no-untyped-def]
    return service.store.save([service.check(user_id=1, url="https://example.org/x")])[0].bookmark


def test_a_redis_that_refuses_writes_is_not_available(impatient: Settings, origin: Origin) -> None:
    client = connect(impatient.redis_url or "")
    client.config_set("maxmemory", "1")
    with BookmarkService(impatient) as service:
        assert client.ping()
        assert not service.queue.is_available()
        assert save(service, f"{origin.url}/page/1").job.mode is Mode.THREAD


def test_a_job_is_known_by_its_row_when_redis_is_not_there(
    impatient: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    with BookmarkService(impatient) as service:
        private_redis.stop()
        result = save(service, f"{origin.url}/status/404")
        assert service.fallback.join(30)
        state = service.queue.job_state(result.job.id, service.store)
        assert state is not None
        assert (state.status, state.attempts) == ("failed", 1)
        assert "does not exist" in (state.error or "")


@pytest.mark.parametrize(
    "job_id", ["", "nope", "bookmark-", "bookmark-1", "bookmark-1-1-1", "bookmark:1", "é", "\0", "x" * 5_000]
)
def test_ids_that_are_none_are_not_known(service: BookmarkService, job_id: str) -> None:
    save(service, "https://example.org/x")
    assert service.queue.job_state(job_id, service.store) is None


def test_the_seed_names(
    settings: Settings, origin: Origin, private_redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module's own functions, set up by the environment as a product would."""
    environment = {**settings.to_mapping(), "FUZE_REDIS_RETRY_S": "0", "FUZE_REDIS_CONNECT_TIMEOUT_S": "0.2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    task_queue._from_environment.cache_clear()
    try:
        with task_queue._from_environment() as service:
            store, fallback = service.store, service.fallback
            url = f"{origin.url}/page/5"
            bookmark = store.save([service.check(user_id=1, url=url)])[0].bookmark
            assert task_queue.is_rq_available()
            assert task_queue.enqueue_bookmark_processing(bookmark.id, url, 1, "high") == bookmark.job_id
            assert queue(settings, "high").job_ids == [bookmark.job_id]
            with pytest.raises(InputError, match="there is no queue 'highest'"):
                task_queue.enqueue_bookmark_processing(bookmark.id, url, 1, "highest")
            for wrong in (
                (999, url, 1),
                (bookmark.id, "https://example.org/other", 1),
                (bookmark.id, url, 2),
            ):
                with pytest.raises(InputError, match="has no bookmark"):
                    task_queue.enqueue_bookmark_processing(*wrong)
            private_redis.stop()
            assert not task_queue.is_rq_available()
            with pytest.raises(QueueUnavailableError):
                task_queue.enqueue_bookmark_processing(bookmark.id, url, 1)
            assert task_queue.process_bookmark_content_async(bookmark.id, url, 1).mode is Mode.THREAD
            assert fallback.join(30)
            status = task_queue.get_job_status(bookmark.job_id)
            assert task_queue.get_job_status("bookmark-999-1") is None
        assert status is not None
        assert list(status) == [
            "id", "status", "queue", "created_at", "enqueued_at", "started_at", "ended_at", "attempts", "error", "result",
        ]  # fmt: skip
        assert status["status"] == "finished"
        assert status["ended_at"] >= status["started_at"] >= status["created_at"]
    finally:
        task_queue._from_environment.cache_clear()


def test_the_fallback_is_bounded_and_batches_what_piled_up() -> None:
    gate, batches = threading.Event(), []

    def work(ids: object) -> None:
        batches.append(list(ids))  # type: ignore[call-overload]
        gate.wait(30)

    with ThreadFallback(work, threads=1, backlog=5, batch=3) as fallback:
        assert fallback.submit(0)
        wait_until(lambda: batches, what="the first batch")
        assert [fallback.submit(n) for n in range(1, 8)] == [True] * 5 + [False] * 2
        assert fallback.submit(1)  # waits already: no second time
        assert fallback.holds(0)
        assert fallback.size() == 6
        gate.set()
        assert fallback.join(30)
    assert batches == [[0], [1, 2, 3], [4, 5]]
    assert not fallback.submit(9)


def test_a_product_that_fell_back_ends_when_its_work_is_done(data_dir: Path, origin: Origin) -> None:
    """Nobody closes anything: the interpreter waits for what runs, and not for threads that idle."""
    code = f"""if True:
        import os
        from fuze_bench.pipeline import task_queue
        service = task_queue._from_environment()
        new = service.check(user_id=1, url="{origin.url}/page/1")
        saved = service.store.save([new])[0].bookmark
        print(task_queue.process_bookmark_content_async(saved.id, saved.url, 1).mode)
    """
    settings = Settings(data_dir=data_dir, embedding_model="off", fetch_allow=("127.0.0.1",))
    environment = settings.environment(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "thread\n"
    with Store(Settings(data_dir=data_dir)) as store:
        assert store.counts()["processed"] == 1


def test_two_services_in_one_process_keep_to_their_own(tmp_path: Path, origin: Origin) -> None:
    for name in ("a", "b"):
        settings = Settings(data_dir=tmp_path / name, embedding_model="off", fetch_allow=("127.0.0.1",))
        with BookmarkService(settings) as service:
            save(service, f"{origin.url}/page/{name}?{name}=1")
            assert service.fallback.join(30)
            assert service.store.counts()["processed"] + service.store.counts()["failed"] == 1


def test_a_private_redis_that_is_started_later_is_used(data_dir: Path, origin: Origin) -> None:
    later = Settings(data_dir=data_dir, embedding_model="off", redis_retry_s=0.0, fetch_allow=("127.0.0.1",))
    with BookmarkService(later) as service:
        assert save(service, f"{origin.url}/page/1").job.mode is Mode.THREAD
        with redis_for(later):
            wait_until(service.queue.is_available, what="the private Redis to be found")
            assert save(service, f"{origin.url}/page/2").job.mode is Mode.RQ


def test_a_redis_that_hangs_holds_the_first_saves_only(
    settings: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    with BookmarkService(replace(settings, redis_timeout_s=1.0, redis_retry_s=0.1)) as service:
        listening = queue(settings)
        Worker([listening], connection=listening.connection, serializer=JSONSerializer).register_birth()
        result = save(service, f"{origin.url}/page/0")
        assert (result.job.mode, result.warning) == (Mode.RQ, None)
        os.kill(private_redis.pid, signal.SIGSTOP)
        late = threading.Timer(15, os.kill, (private_redis.pid, signal.SIGCONT))
        late.start()
        try:
            start = time.monotonic()
            # At once, so that one needs a connection that is made after workers were looked for.
            with ThreadPoolExecutor(2) as both:
                first = list(both.map(lambda n: save(service, f"{origin.url}/page/{n}"), (6, 7)))
            assert [each.job.mode for each in first] == [Mode.THREAD] * 2
            assert time.monotonic() - start < 10.0
            took = []
            for n in range(1, 6):
                start = time.monotonic()
                assert save(service, f"{origin.url}/page/{n}").job.mode is Mode.THREAD
                took.append(time.monotonic() - start)
        finally:
            late.cancel()
            os.kill(private_redis.pid, signal.SIGCONT)
        assert max(took) < 1.0
        wait_until(service.queue.is_available, what="Redis to be used again")


def test_the_fallback_survives_a_failing_batch(caplog: pytest.LogCaptureFixture) -> None:
    done = []

    def work(ids: object) -> None:
        if 1 in ids:  # type: ignore[operator]
            raise RuntimeError("no")
        done.extend(ids)  # type: ignore[call-overload]

    with ThreadFallback(work, threads=1, backlog=5, batch=1) as fallback:
        fallback.submit(1)
        fallback.submit(2)
        assert fallback.join(30)
    assert done == [2]
    assert "bookmarks [1] not processed" in caplog.text


def test_a_new_generation_of_what_a_thread_has_in_hand(settings: Settings, origin: Origin) -> None:
    """The first one's result is void: the second needs a turn of its own."""
    with BookmarkService(replace(settings, redis_url=None)) as service:
        bookmark_id = save(service, f"{origin.url}/slow/1000/1").bookmark.id
        wait_until(lambda: origin.hits("/slow/1000/1") == 1, what="the page to be asked for")
        service.cancel([bookmark_id])
        [again] = service.reprocess([bookmark_id])
        assert again.job.mode is Mode.THREAD
        assert service.fallback.join(30)
        found = service.store.get(bookmark_id)
    assert found is not None
    assert (found.status, found.generation) == (Status.PROCESSED, 2)
