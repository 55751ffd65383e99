"""What kills a worker is the page's fault or it is not: real workers killed, a real database taken away."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import psutil
import psycopg
import pytest
from conftest import StartWorker, wait_until
from psycopg import sql
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import NewBookmark, Reason, Status
from fuze_bench.pipeline.leases import Leases
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """Recovery within a second or two, of pages that take their time."""
    return replace(
        settings, lease_s=1.0, lease_check_s=0.5, recovery_interval_s=0.5, recover_after_s=0.5, fetch_total_s=60, fetch_idle_s=60
    )  # fmt: skip


def status(service: BookmarkService, bookmark_id: int) -> Status:
    found = service.store.get(bookmark_id)
    assert found is not None
    return found.status


def kill(process: psutil.Process) -> None:
    """With all that it started, as the kernel does with a control group."""
    for each in [process, *process.children(recursive=True)]:
        each.kill()


def test_a_page_that_kills_a_simple_worker_twice_is_left_alone(
    service: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Nobody sees it die: its lease runs out."""
    [result] = service.save([service.check(user_id=1, url=f"{origin.url}/slow/30000/1")])
    for times in (1, 2):
        with start_worker(hasty, "--kind", "simple") as worker:
            wait_until(lambda times=times: origin.hits("/slow/30000/1") == times, what="the page's turn")
            kill(psutil.Process(worker.pid))
    with start_worker(hasty):
        wait_until(lambda: status(service, result.bookmark.id) is Status.FAILED, what="it to be given up")
    found = service.store.get(result.bookmark.id)
    assert found is not None
    assert found.reason is Reason.KILLED_WORKER


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_two_deploys_during_a_slow_page_are_not_its_fault(
    kind: str, service: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Each tells the worker to stop, and loses patience."""
    [result] = service.save([service.check(user_id=1, url=f"{origin.url}/slow/4000/1")])
    for times in (1, 2):
        with start_worker(hasty, "--kind", kind) as worker:
            wait_until(lambda times=times: origin.hits("/slow/4000/1") == times, what="the page's turn")
            worker.signal(signal.SIGTERM)
            wait_until(lambda: told_to_stop(service), what="the worker to have said so")
            kill(psutil.Process(worker.pid))
    with start_worker(hasty, "--kind", kind):
        wait_until(lambda: status(service, result.bookmark.id) is Status.PROCESSED, what="it to be done")


def test_a_deploy_before_the_page_is_taken_in_hand_is_not_its_fault(
    service: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """An interpreter of its own takes seconds to get as far as the claim, and the worker is told to stop meanwhile."""
    service.save([service.check(user_id=1, url=f"{origin.url}/slow/4000/1")])
    with start_worker(hasty, "--kind", "spawn") as worker, connect(hasty.redis_url or "") as client:
        wait_until(lambda: client.exists("rq:wip:default"), what="the job to be taken")
        worker.signal(signal.SIGTERM)
        assert service.store.counts()[Status.PENDING] == 1
        wait_until(lambda: told_to_stop(service), what="the worker to have said so")


@pytest.mark.parametrize("kind", ["fork", "spawn", "batch"])
def test_a_job_that_is_stopped_is_cancelled(
    kind: str, service: BookmarkService, hasty: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """By RQ's own command, which kills the process that has the job: nobody wants it begun again, and it killed nobody."""
    [result] = service.save([service.check(user_id=1, url=f"{origin.url}/slow/30000/1")])
    with start_worker(hasty, "--kind", kind), connect(hasty.redis_url or "") as client:
        wait_until(lambda: origin.hits("/slow/30000/1") == 1, what="the page's turn")
        send_stop_job_command(client, result.job.id, serializer=JSONSerializer)
        wait_until(lambda: status(service, result.bookmark.id) is Status.FAILED, what="it to be given up")
    found = service.store.get(result.bookmark.id)
    assert found is not None
    assert found.reason is Reason.CANCELLED
    assert service.store.rows("deaths") == [{"deaths": 0}]
    assert origin.hits("/slow/30000/1") == 1


def told_to_stop(service: BookmarkService) -> bool:
    return any("told to stop" in (row["death_note"] or "") for row in service.store.rows("death_note"))


def saved(store: Store, url: str) -> int:
    return store.save([NewBookmark(user_id=1, url=url, canonical_url=url)])[0].bookmark.id


@contextmanager
def away(url: str, server_url: str) -> Iterator[None]:
    """The database of `url` ends every connection and takes no new one."""
    dbname = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    name = sql.Identifier(str(dbname))
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [dbname])
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


@contextmanager
def read_only(url: str, server_url: str) -> Iterator[None]:
    """The database of `url` answers, and takes no writes, as a standby after a failover, or one whose disk is full."""
    dbname = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    with psycopg.connect(server_url, autocommit=True) as admin:

        def set_to(value: str) -> None:
            admin.execute(setting.format(sql.Identifier(str(dbname)), sql.SQL(value)))
            # Only what connects from now on obeys.
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [dbname]
            )

        set_to("on")
        try:
            yield
        finally:
            set_to("off")


@pytest.fixture
def on_postgresql(hasty: Settings, postgresql_database: str) -> Settings:
    return replace(hasty, database_url=postgresql_database, redis_url=None)


@pytest.mark.parametrize("trouble", [away, read_only])
def test_what_was_found_while_the_database_was_away_is_stored(
    trouble: Callable[[str, str], AbstractContextManager[None]],
    on_postgresql: Settings,
    postgresql_database: str,
    postgresql_url: str,
    origin: Origin,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = Pipeline(on_postgresql)
    bookmark_id = saved(pipeline.store, f"{origin.url}/slow/500/1")
    job = threading.Thread(target=pipeline.process, args=([bookmark_id],))
    job.start()
    wait_until(lambda: origin.hits("/slow/500/1") == 1, what="the page to be asked for")
    with trouble(postgresql_database, postgresql_url):
        wait_until(lambda: caplog.text.count("is not stored yet") > 4, what="the outcome, again and again")
    job.join(30)
    found = pipeline.store.get(bookmark_id)
    pipeline.close()
    assert found is not None
    assert (found.status, found.attempts) == (Status.PROCESSED, 1)


def test_what_could_not_be_given_back_is_when_the_database_is_there_again(
    on_postgresql: Settings, postgresql_database: str, postgresql_url: str
) -> None:
    with Store(on_postgresql) as store:
        bookmark_id = saved(store, "https://example.org/")
        claims = store.claim([bookmark_id], lease_s=60)
        leases = Leases(store, 0.3)
        with away(postgresql_database, postgresql_url):
            leases.give_back(claims)
        wait_until(lambda: store.counts()["pending"] == 1, what="it to wait again")
        assert [claim.attempts for claim in store.claim([bookmark_id], lease_s=60)] == [1]


def test_what_the_database_refuses_is_an_internal_error_and_the_rest_is_stored(
    hasty: Settings, origin: Origin
) -> None:
    pipeline = Pipeline(replace(hasty, redis_url=None, retry_intervals_s=()))
    refused, other = (saved(pipeline.store, f"{origin.url}/page/{n}") for n in (1, 2))
    with sqlite3.connect(hasty.data_dir / "bookmarks.sqlite") as database:
        database.execute(
            f"CREATE TRIGGER no BEFORE UPDATE ON fuze_bookmarks WHEN NEW.status = 'processed' AND NEW.id = {refused} "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    database.close()
    pipeline.process([refused, other])
    one, two = pipeline.store.get(refused), pipeline.store.get(other)
    pipeline.close()
    assert one is not None
    assert two is not None
    assert (one.status, one.reason, two.status) == (Status.FAILED, Reason.INTERNAL_ERROR, Status.PROCESSED)
    assert "not this one" in (one.error or "")
