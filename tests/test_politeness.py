"""At most so many fetches of one host at once and a small rate, over all workers; the others are not held up."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import StartWorker, wait_until

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.politeness import Hosts, LocalHosts
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import PrivateRedis, connect, redis_for
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child

_SLOW = "http://slow.example/{}"


@pytest.fixture
def polite(settings: Settings) -> Settings:
    return replace(settings, host_fetches=2, host_interval_s=0.0)


def wait_s(hosts: Hosts, bookmark_id: int) -> float:
    return hosts.enter(_SLOW.format(bookmark_id), bookmark_id).wait_s


def most_at_once(spans_ns: list[tuple[int, int]]) -> int:
    moments = sorted([(start, 1) for start, _ in spans_ns] + [(end, -1) for _, end in spans_ns])
    running, most = 0, 0
    for _, change in moments:
        running += change
        most = max(most, running)
    return most


def test_500_of_a_slow_host_do_not_hold_up_50_others(
    settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    settings = replace(settings, host_fetches=2, host_interval_s=0.5)
    others = origin.url.replace("127.0.0.1", "localhost")
    urls = [f"{origin.url}/slow/700/{n}" for n in range(500)] + [f"{others}/page/{n}" for n in range(50)]
    unlimited = replace(settings, host_unlimited=(others.removeprefix("http://"),))
    with BookmarkService(unlimited) as service:
        service.save([service.check(user_id=1, url=url) for url in urls])

        def done(host: str) -> int:
            return sum(
                row["done_ns"] is not None and host in row["url"]
                for row in service.store.rows("url", "done_ns")
            )

        with start_worker(unlimited, "--count", "3"):
            wait_until(lambda: done("localhost") == 50, timeout_s=90, what="the others to be done")
            early = done("127.0.0.1")
            wait_until(lambda: done("127.0.0.1") >= early + 6, what="the slow ones to go on")
        rows = service.store.rows("url", "started_ns", "done_ns", "attempts", "durations_ms")
    slow = [row for row in rows if "127.0.0.1" in row["url"] and row["done_ns"]]
    assert early < 100
    # Of the fetches: what follows is no business of the host's.
    spans = [(row["started_ns"], row["started_ns"] + int(row["durations_ms"]["fetch"] * 1e6)) for row in slow]
    assert most_at_once(spans) <= 2
    took_s = (max(start for start, _ in spans) - min(start for start, _ in spans)) / 1e9
    assert len(spans) <= took_s / 0.5 + 3
    assert {row["attempts"] for row in slow} == {1}


def test_a_batch_worker_has_many_slow_pages_in_hand_at_once(
    settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    """Also if the first of them say that each takes long: it is the web site's time, not the worker's."""
    with BookmarkService(settings) as service:
        urls = [f"{origin.url}/slow/300/{n}" for n in range(60)]
        service.save([service.check(user_id=1, url=url) for url in urls])
        with start_worker(settings, "--kind", "batch", "--burst", wait=False) as worker:
            assert worker.wait(60) == 0
        rows = service.store.rows("started_ns", "done_ns")
    assert most_at_once([(row["started_ns"], row["done_ns"]) for row in rows]) >= 8


def test_two_at_once(polite: Settings) -> None:
    hosts = Hosts(polite)
    first = hosts.enter(_SLOW.format(1), 1)
    assert [first.wait_s, wait_s(hosts, 2)] == [0, 0]
    assert wait_s(hosts, 3) > 0
    assert hosts.enter("http://other.example/", 4).wait_s == 0
    hosts.leave(first)
    wait_until(lambda: wait_s(hosts, 3) == 0, what="the third to have its turn")
    assert wait_s(hosts, 5) > 0


def test_a_job_that_is_delivered_twice_keeps_its_place_when_the_double_ends(polite: Settings) -> None:
    hosts = Hosts(polite)
    first, double = (hosts.enter(_SLOW.format(1), 1) for _ in range(2))
    assert (first.wait_s, double.wait_s) == (0, 0)
    assert wait_s(hosts, 2) > 0
    hosts.leave(double)
    wait_until(lambda: wait_s(hosts, 2) == 0, what="the double's place")
    assert wait_s(hosts, 3) > 0


def test_a_rate_over_all_workers(settings: Settings) -> None:
    """Each that comes too early is told a moment of its own, one interval apart, in its order."""
    workers = [Hosts(replace(settings, host_fetches=100, host_interval_s=10.0)) for _ in range(3)]
    waits_s = [wait_s(workers[n % 3], n) for n in range(6)]
    assert waits_s[0] == 0
    assert [round(each_s) for each_s in waits_s[1:]] == [10, 20, 30, 40, 50]
    assert round(wait_s(workers[0], 3)) == 30, "a moment once reserved stays"


def test_a_killed_worker_gives_its_place_back(polite: Settings) -> None:
    hosts = Hosts(replace(polite, fetch_total_s=0.1))
    hosts._longest_ms = 300  # the grace for what comes after the fetch is half a minute
    assert wait_s(hosts, 1) == 0

    def gets_in_while_the_host_is_busy() -> bool:
        second = hosts.enter(_SLOW.format(2), 2)
        if second.wait_s == 0 and wait_s(hosts, 3) == 0:
            return True
        hosts.leave(second)
        return False

    wait_until(gets_in_while_the_host_is_busy, what="the place of the first to be free")


def test_nothing_stays_in_redis(polite: Settings) -> None:
    hosts = Hosts(polite)
    hosts.enter(_SLOW.format(1), 1)
    with connect(polite.redis_url or "") as client:
        keys = client.keys("fuze:host:*")
        assert keys
        assert all(client.ttl(key) > 0 for key in keys)


def test_without_a_limit_and_without_redis_it_does_not_ask(
    settings: Settings, polite: Settings, private_redis: PrivateRedis
) -> None:
    unlimited = Hosts(replace(polite, host_unlimited=("slow.example",)))
    hosts = Hosts(polite)
    private_redis.stop()
    for each in (Hosts(settings), unlimited, hosts):
        turns = [each.enter(_SLOW.format(n), n) for n in range(3)]
        assert [turn.wait_s for turn in turns] == [0, 0, 0]
        each.leave(turns[0])


@pytest.mark.parametrize("options", [[], ["--worker-class", "rq.worker.SimpleWorker"]])
def test_a_stock_worker_on_the_private_redis_is_polite(
    options: list[str], data_dir: Path, origin: Origin, tmp_path: Path
) -> None:
    """Nothing but RQ's own option tells it where Redis is."""
    settings = Settings(
        data_dir=data_dir, embedding_model="off", host_interval_s=600.0, fetch_allow=("127.0.0.1",)
    )
    environment = settings.environment(os.environ)
    rq = str(Path(sys.executable).with_name("rq"))
    with redis_for(settings) as running, BookmarkService(running) as service:
        service.save([service.check(user_id=1, url=f"{origin.url}/page/{n}") for n in range(2)])
        argv = [rq, "worker", "--url", running.redis_url or "", "--serializer", "json", "--burst", *options]
        with Child("rq", [*argv, "default"], tmp_path / "rq.log", environment=environment) as worker:
            assert worker.wait(60) == 0
        assert service.store.counts()["processed"] == 1


def test_any_number_at_once_still_keep_the_interval(polite: Settings) -> None:
    many = replace(polite, host_fetches=0, host_interval_s=10.0)
    hosts = Hosts(many)
    assert [round(wait_s(hosts, n)) for n in range(3)] == [0, 10, 20]
    local = LocalHosts(many)
    with local.turn(_SLOW.format(1)):
        assert local._wait_s("slow.example") == pytest.approx(10, abs=5)
    at_once = LocalHosts(replace(many, host_interval_s=0.0))
    with at_once.turn(_SLOW.format(1)), at_once.turn(_SLOW.format(2)), at_once.turn(_SLOW.format(3)):
        assert at_once._wait_s("slow.example") is None


def test_an_address_that_cannot_be_read_waits_for_nobody(polite: Settings) -> None:
    """The fetch says what is wrong with it."""
    turn = Hosts(polite).enter("http://[", 1)
    assert turn.wait_s == 0
    with LocalHosts(polite).turn("http://["):
        pass


def test_threads_wait_for_their_turn() -> None:
    hosts = LocalHosts(Settings(host_fetches=2, host_interval_s=0.0))
    running, most, lock = 0, 0, threading.Lock()
    inside = threading.Barrier(2)

    def visit(n: int) -> None:
        nonlocal running, most
        with hosts.turn(_SLOW.format(n)):
            with lock:
                running += 1
                most = max(most, running)
            inside.wait(timeout=20)  # two get in, and no third
            with lock:
                running -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))
    assert most == 2


def test_the_fallback_is_polite_too(settings: Settings, origin: Origin) -> None:
    offline = replace(settings, redis_url=None, host_fetches=2, host_interval_s=0.0)
    with BookmarkService(offline) as service:
        service.save([service.check(user_id=1, url=f"{origin.url}/page/1")])
        wait_until(lambda: service.store.counts()["processed"] == 1, what="what is loaded at the first use")
        new = [service.check(user_id=1, url=f"{origin.url}/slow/200/{n}") for n in range(8)]
        service.save(new)
        wait_until(lambda: service.store.counts()["processed"] == 9, what="all to be done")
        rows = [
            row
            for row in service.store.rows("url", "durations_ms", "started_ns", "done_ns")
            if "/slow/" in row["url"]
        ]
    took_ms = (max(row["done_ns"] for row in rows) - min(row["started_ns"] for row in rows)) / 1e6
    assert took_ms > 4 * 200 * 0.9, "eight pages of 200 ms, two at once"
    fetching_ms = sum(row["durations_ms"]["fetch"] for row in rows)
    assert fetching_ms <= 2 * took_ms, "the wait for a turn is no part of the fetch"


def test_a_pipeline_in_a_worker_waits_for_nobody(polite: Settings, origin: Origin) -> None:
    pipeline = Pipeline(replace(polite, host_interval_s=30.0))
    with BookmarkService(polite) as service:
        saved = service.save([service.check(user_id=1, url=f"{origin.url}/page/{n}") for n in range(2)])
    pipeline.process([each.bookmark.id for each in saved])
    assert pipeline.store.counts()["processed"] == 2
    pipeline.close()
