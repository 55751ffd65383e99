"""/metrics: real counts of real workers and threads, right after outages, and no scrape hangs or changes anything."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from api_server import Client, running_api
from conftest import StartWorker, wait_until
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rq import Callback, Queue
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import measurements
from fuze_bench.pipeline.bookmarks import NewBookmark, Reason, Status
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.measurements import KEY
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child
from fuze_bench.timing import FakeClock

Scrape = dict[str, dict[tuple[str, ...], float]]


def scrape(client: Client) -> Scrape:
    """Every sample by name and by its labels' values, in the order of the labels' names."""
    answer = client.get("/metrics")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    return samples(list(text_string_to_metric_families(answer.raw.decode())))


def samples(families: list[Metric]) -> Scrape:
    found: Scrape = {}
    for family in families:
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def not_zero(numbers: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    return {labels: number for labels, number in numbers.items() if number}


def counts(settings: Settings) -> dict[str, int]:
    with connect(settings.redis_url or "", timeout_s=5) as client:
        return {name.decode(): int(number) for name, number in client.hgetall(KEY).items()}


def save(service: BookmarkService, *urls: str) -> list[int]:
    return [r.bookmark.id for r in service.save([service.check(user_id=1, url=url) for url in urls])]


@pytest.fixture
def pipeline(settings: Settings) -> Pipeline:
    return Pipeline(replace(settings, retry_intervals_s=()))


def inserted(pipeline: Pipeline, *urls: str) -> list[int]:
    new = [NewBookmark(user_id=1, url=url, canonical_url=url) for url in urls]
    return [each.bookmark.id for each in pipeline.store.save(new)]


def test_what_a_worker_did_is_shown(settings: Settings, origin: Origin, start_worker: StartWorker) -> None:
    with running_api(settings) as base_url:
        client = Client(base_url)
        for path in ("/page/1", "/page/1", "/page/2", "/status/404", "/status/500"):
            client.save(origin.url + path)
        client.save("nonsense")
        client.post(b"{")
        before = scrape(client)
        assert not_zero(before["fuze_saves_total"]) == {("saved",): 4, ("duplicate",): 1, ("refused",): 2}
        assert not_zero(before["fuze_jobs"]) == {("default", "waiting"): 4}
        assert not_zero(before["fuze_bookmarks"]) == {("pending",): 4}
        assert set(before["fuze_workers"].values()) == {0}
        assert before["fuze_oldest_waiting_seconds"][("default",)] > 0
        with start_worker(settings, "--queue", "default"):
            wait_until(lambda: scrape(client)["fuze_jobs"][("default", "waiting")] == 0, what="the work")
            wait_until(
                lambda: sum(scrape(client)["fuze_stage_seconds_count"].values()) == 8, what="the last count"
            )
            shown = scrape(client)
        assert shown["fuze_workers"] == {("high",): 0, ("default",): 1, ("low",): 0}
        assert not_zero(shown["fuze_bookmarks_processed_total"]) == {("rq", "default"): 2}
        assert not_zero(shown["fuze_bookmarks_failed_total"]) == {("not_found",): 1}
        assert not_zero(shown["fuze_bookmarks_retried_total"]) == {("server_error",): 1}
        assert not_zero(shown["fuze_save_to_stored_seconds_count"]) == {("rq", "default"): 2}
        assert shown["fuze_save_to_stored_seconds_bucket"][("60.0", "rq", "default")] == 2
        assert 0 < shown["fuze_save_to_stored_seconds_sum"][("rq", "default")] < 120
        assert shown["fuze_stage_seconds_count"] == {
            ("fetch",): 4, ("extract",): 2, ("embed",): 0, ("analyse",): 2
        }  # fmt: skip
        assert not_zero(shown["fuze_jobs"]) == {("default", "scheduled"): 1}
        assert not_zero(shown["fuze_bookmarks"]) == {("processed",): 2, ("failed",): 1, ("pending",): 1}
        # The one that is to be tried again is not due yet.
        assert set(shown["fuze_oldest_waiting_seconds"].values()) == {0}
        assert shown["fuze_redis_up"] == shown["fuze_database_up"] == {(): 1}
        assert shown["fuze_fallback_active"] == {(): 0}


def test_every_way_to_save_is_counted(settings: Settings) -> None:
    """quick-save, a share, and each page of an import; what only asks is none."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    csv = b"url\nhttps://example.org/2\nhttps://example.org/3\nhttps://example.org/3\nnonsense\n"
    with running_api(settings) as base_url:
        client = Client(base_url)

        def counted() -> dict[tuple[str, ...], float]:
            return not_zero(scrape(client)["fuze_saves_total"])

        client.get("/share?url=https://example.org/1")
        client.get("/share?url=nonsense")
        assert counted() == {}
        for url in ("https://example.org/1", "https://example.org/1", "nonsense"):
            client.send("POST", "/share", f"url={url}".encode(), form)
        assert counted() == {("saved",): 1, ("duplicate",): 1, ("refused",): 1}
        client.send("POST", "/api/bookmarks/import", csv, {"Content-Type": "text/csv"})
        assert counted() == {("saved",): 3, ("duplicate",): 2, ("refused",): 2}
        client.send("POST", "/api/bookmarks/import", b"{", {"Content-Type": "application/json"})
        assert counted()[("refused",)] == 3
        with closing(sqlite3.connect(settings.data_dir / "bookmarks.sqlite")) as connection:
            connection.execute("ALTER TABLE fuze_bookmarks RENAME TO gone")
        client.save("https://example.org/4")
        client.send("POST", "/share", b"url=https://example.org/4", form)
        client.send("POST", "/api/bookmarks/import", csv, {"Content-Type": "text/csv"})
        assert counted()[("failed",)] == 5


def test_a_worker_that_was_killed_is_not_alive(settings: Settings, start_worker: StartWorker) -> None:
    """Redis knows it for another minute; `doctor`, the warning of a save, and this do not count it."""
    with running_api(settings) as base_url, start_worker(settings) as worker:
        client = Client(base_url)

        def alive() -> set[float]:
            return set(scrape(client).get("fuze_workers", {}).values())

        wait_until(lambda: alive() == {1}, what="it to be counted")
        worker.signal(signal.SIGKILL)
        worker.wait(10)
        wait_until(lambda: alive() == {0}, what="it to be missed")


def test_a_scraper_that_prefers_openmetrics_gets_it(settings: Settings) -> None:
    with running_api(settings) as base_url:
        answer = Client(base_url).send(
            "GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
        )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "fuze_save_to_stored_seconds_bucket" in samples(list(parse_openmetrics(answer.raw.decode())))


def test_names_and_help_keep_to_the_conventions(settings: Settings) -> None:
    with running_api(settings) as base_url:
        text = Client(base_url).get("/metrics").raw.decode()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("fuze_")
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


@pytest.mark.parametrize("kind", ["simple", "fork", "spawn", "batch"])
def test_every_kind_counts(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    save(service, f"{origin.url}/page/1", f"{origin.url}/status/404")
    with start_worker(settings, "--kind", kind, "--burst", wait=False) as worker:
        assert worker.wait(60) == 0
    found = counts(settings)
    assert (found["processed|default|rq"], found["failed|not_found"]) == (1, 1)


def test_the_stock_worker_counts(
    service: BookmarkService, settings: Settings, origin: Origin, tmp_path: Path
) -> None:
    save(service, f"{origin.url}/page/1")
    rq = str(Path(sys.executable).with_name("rq"))
    argv = [rq, "worker", "--url", settings.redis_url or "", "--serializer", "json", "--burst", "default"]
    environment = {**os.environ, **settings.to_mapping()}
    with Child("rq worker", argv, tmp_path / "rq.log", environment=environment) as worker:
        assert worker.wait(60) == 0
    assert counts(settings)["processed|default|rq"] == 1


def test_what_threads_did_is_added_when_redis_is_back(
    settings: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    with running_api(replace(settings, redis_retry_s=0.2, retry_intervals_s=())) as base_url:
        client = Client(base_url)
        private_redis.stop()
        for path in ("/page/1", "/page/2", "/status/404"):
            assert client.save(origin.url + path).json["job"]["mode"] == "thread"
        wait_until(
            lambda: not_zero(scrape(client)["fuze_bookmarks"]) == {("processed",): 2, ("failed",): 1},
            what="the threads to be done",
        )
        away = scrape(client)
        assert (away["fuze_redis_up"], away["fuze_fallback_active"]) == ({(): 0}, {(): 1})
        assert "fuze_bookmarks_processed_total" not in away
        assert "fuze_jobs" not in away
        private_redis.start()
        wait_until(lambda: not_zero(scrape(client).get("fuze_bookmarks_failed_total", {})), what="the counts")
        back = scrape(client)
        assert not_zero(back["fuze_bookmarks_processed_total"]) == {("thread", "default"): 2}
        assert not_zero(back["fuze_bookmarks_failed_total"]) == {("not_found",): 1}
        wait_until(lambda: scrape(client)["fuze_fallback_active"] == {(): 0}, what="RQ to be used again")


def test_a_redis_that_hangs_costs_one_timeout_and_nothing_is_counted_twice(
    settings: Settings, private_redis: PrivateRedis, origin: Origin
) -> None:
    """What was sent to a process that is stopped is carried out when it goes on, although nobody waited for it."""
    hasty = replace(settings, redis_timeout_s=3.0, redis_retry_s=0.1, retry_intervals_s=())
    before = set(threading.enumerate())
    pipeline = Pipeline(hasty)
    ids = inserted(pipeline, *(f"{origin.url}/status/404?n={n}" for n in range(6)))
    pipeline.process(ids[:1])  # with this, the connection is there
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        for bookmark_id in ids[1:]:
            pipeline.process([bookmark_id])
        spent_s = time.monotonic() - began_s
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)
    assert 3 <= spent_s < 12  # five times the timeout would be 15
    wait_until(lambda: counts(settings)["failed|not_found"] >= 6, what="the counts")
    wait_until(
        lambda: "measurements" not in {t.name for t in set(threading.enumerate()) - before},
        what="the outage to be over",
    )
    assert counts(settings)["failed|not_found"] == 6
    assert counts(settings)["stage|fetch|sum"] > 0
    pipeline.close()


def test_a_result_that_is_void_is_not_counted(pipeline: Pipeline, settings: Settings, origin: Origin) -> None:
    [bookmark_id] = inserted(pipeline, f"{origin.url}/slow/1000/1")
    working = threading.Thread(target=pipeline.process, args=([bookmark_id],))
    working.start()
    wait_until(lambda: origin.hits("/slow/1000/1"), what="the fetch to begin")
    pipeline.store.note_death(process_name(), "a test")
    pipeline.store.take_back_expired()
    working.join()
    assert pipeline.store.get(bookmark_id).status is Status.PENDING  # type: ignore[union-attr]
    assert counts(settings) == {}
    pipeline.process([bookmark_id])
    assert counts(settings)["processed|default|rq"] == 1
    pipeline.close()


def test_a_clock_that_was_set_back_is_said_once_and_spoils_no_histogram(
    settings: Settings, origin: Origin, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once a process, in which another test may have set a clock before.
    monkeypatch.setattr(measurements, "_clock_was_set", False)
    clock = FakeClock()
    pipeline = Pipeline(settings, clock=clock)
    ids = inserted(pipeline, f"{origin.url}/page/1", f"{origin.url}/page/2")
    clock.step_wall(-100)
    for bookmark_id in ids:
        pipeline.process([bookmark_id])
    assert counts(settings)["processed|default|rq"] == 2
    assert not [name for name in counts(settings) if name.startswith("save_to_stored")]
    assert len([r for r in caplog.records if "a clock was set" in r.getMessage()]) == 1
    pipeline.close()


def test_pages_that_kill_their_workers_are_counted(service: BookmarkService, settings: Settings) -> None:
    [bookmark_id] = save(service, "https://example.org/")
    for _ in range(2):
        assert service.store.claim([bookmark_id], 60)
        service.recovery.note_death(os.getpid(), "a test")
    assert service.store.get(bookmark_id).reason is Reason.KILLED_WORKER  # type: ignore[union-attr]
    assert counts(settings) == {"failed|killed_worker": 1}


def test_what_is_cancelled_is_counted(service: BookmarkService, settings: Settings) -> None:
    ids = save(service, "https://example.org/1", "https://example.org/2")
    assert len(service.cancel([*ids, 99])) == 2
    assert counts(settings) == {"failed|cancelled": 2}


def test_a_scrape_does_not_wait_for_a_database_that_hangs(
    settings: Settings, postgresql_database: str
) -> None:
    with running_api(replace(settings, database_url=postgresql_database)) as base_url:
        client = Client(base_url)
        assert scrape(client)["fuze_database_up"] == {(): 1}
        with psycopg.connect(postgresql_database) as blocking:
            blocking.execute("LOCK TABLE fuze_bookmarks IN ACCESS EXCLUSIVE MODE")
            wait_until(lambda: scrape(client)["fuze_database_up"] == {(): 0}, what="it to be noticed")
            began_s = time.monotonic()
            shown = scrape(client)
            assert time.monotonic() - began_s < 8
            assert "fuze_bookmarks" not in shown
            assert shown["fuze_redis_up"] == {(): 1}
            assert len([t for t in threading.enumerate() if t.name == "metrics"]) == 1
            blocking.rollback()
        wait_until(lambda: scrape(client)["fuze_database_up"] == {(): 1}, what="it to be back")


def test_a_scrape_does_not_wait_for_a_redis_that_hangs(
    settings: Settings, private_redis: PrivateRedis
) -> None:
    with running_api(settings) as base_url:
        client = Client(base_url)
        assert scrape(client)["fuze_redis_up"] == {(): 1}
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: scrape(client)["fuze_redis_up"] == {(): 0}, what="it to be noticed")
            began_s = time.monotonic()
            shown = scrape(client)
            assert time.monotonic() - began_s < 8
            assert shown["fuze_bookmarks"]
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)
        wait_until(lambda: scrape(client)["fuze_redis_up"] == {(): 1}, what="it to be back")


def note_failure(*_arguments: object) -> None:
    """The failure callback of a job that nobody works on any more."""


def test_reading_cleans_nothing_up(settings: Settings) -> None:
    """RQ's own counts clean up first: a signal for the callback's timeout, which a web thread cannot have."""
    with running_api(settings) as base_url, connect(settings.redis_url or "") as connection:
        client = Client(base_url)
        assert [client.save(f"https://example.org/{n}").status for n in range(2)] == [201, 201]
        queue = Queue("default", connection=connection, serializer=JSONSerializer)
        callback = Callback(f"{__name__}.note_failure")
        job = queue.enqueue("fuze_bench.no_such.task", job_id="bookmark-2-1", on_failure=callback)
        connection.lrem(queue.key, 0, job.id)
        job.set_status(JobStatus.STARTED)
        wip = "rq:wip:default"
        connection.zadd(wip, {f"{job.id}:gone": time.time() - 100, "bookmark-8-1:here": time.time() + 100})
        entries = connection.zrange(wip, 0, -1, withscores=True)
        wait_until(lambda: scrape(client)["fuze_jobs"][("default", "started")] == 1, what="the cache to end")
        assert scrape(client)["fuze_jobs"][("default", "waiting")] == 1
        assert client.get("/readyz").status == 200
        assert client.get(f"/api/jobs/{job.id}").json["status"] == "started"
        assert client.get("/api/jobs/bookmark-1-1").json["status"] == "queued"
        assert connection.zrange(wip, 0, -1, withscores=True) == entries
        assert job.get_status() is JobStatus.STARTED


def test_workers_need_no_prometheus_client(tmp_path: Path) -> None:
    code = "import sys, fuze_bench.pipeline.worker, fuze_bench.pipeline.process; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "False\n"
