"""Pause, resume, drain, and the warning that nobody is there: real workers, told through Redis."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from api_server import Client, running_api
from click.testing import CliRunner
from conftest import StartWorker, wait_until
from nursery import nursery

from fuze_bench.cli import app
from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline import control
from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with connect(settings.redis_url or "") as opened:
        yield opened


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments, env=settings.to_mapping())
    return done.exit_code, done.output


def save(service: BookmarkService, url: str, queue: str = "default") -> int:
    return service.save([service.check(user_id=1, url=url, queue=queue)])[0].bookmark.id


def is_done(service: BookmarkService, bookmark_id: int) -> bool:
    found = service.store.get(bookmark_id)
    return found is not None and found.status is Status.PROCESSED


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_a_paused_queue_waits_and_the_others_go_on(
    kind: str, service: BookmarkService, settings: Settings, origin: Origin, start_worker: StartWorker
) -> None:
    with start_worker(settings, "--kind", kind) as worker:
        assert run(settings, "pause", "default") == (
            0,
            "default is paused; `fuze-bench resume default` lets it go on\n",
        )
        assert run(settings, "pause", "default")[1] == "default was paused already\n"
        waits = save(service, f"{origin.url}/page/1")
        goes = save(service, f"{origin.url}/page/2", "low")
        wait_until(lambda: is_done(service, goes), what="the low one to be done")
        assert origin.hits("/page/1") == 0
        assert run(settings, "resume", "default") == (0, "default goes on\n")
        wait_until(lambda: is_done(service, waits), what="the default one to be done")
        assert run(settings, "resume", "default") == (0, "default was not paused\n")
        assert worker.is_alive()


def test_a_worker_whose_queues_are_all_paused_stays_and_stops_when_told(
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    client: redis.Redis,
    start_worker: StartWorker,
) -> None:
    control.pause(client, "low")
    bookmark_id = save(service, f"{origin.url}/page/1", "low")
    with start_worker(settings, "--queue", "low") as worker:
        wait_until(lambda: "paused queues: low" in worker.log_tail(100), what="it to notice")
        [known] = control.living_workers(client)
        assert known.queue_names() == ["low"]
        control.resume(client, "low")
        wait_until(lambda: is_done(service, bookmark_id), what="it to go on")
        control.pause(client, "low")
        wait_until(lambda: worker.log_tail(100).count("paused queues: low") == 2, what="it to notice again")
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 0


@pytest.mark.parametrize("kind", ["simple", "fork", "batch"])
def test_drain_finishes_what_runs_and_takes_nothing_new(
    kind: str,
    service: BookmarkService,
    settings: Settings,
    origin: Origin,
    tmp_path: Path,
    start_worker: StartWorker,
) -> None:
    running = [save(service, f"{origin.url}/slow/2000/{n}") for n in range(2)]
    with start_worker(settings, "--count", "2", "--kind", kind, wait=False) as workers:
        wait_until(lambda: origin.total_hits() == 2, timeout_s=60, what="both to be at work")
        environment, log = settings.environment(os.environ), tmp_path / "drain.log"
        with nursery().start("drain", "fuze_bench.cli:main", ["drain"], environment, log) as drain:
            wait_until(
                lambda: workers.log_tail(100).count("warm shut down") == 2, what="the workers to know of it"
            )
            waiting = save(service, f"{origin.url}/page/1")
            assert drain.wait(20) == 0
        assert drain.log_tail(1) == "workers ended: 2; what waits stays in the queues"
        assert workers.wait(10) == 0
    assert [is_done(service, each) for each in (*running, waiting)] == [True, True, False]
    assert origin.hits("/page/1") == 0
    with connect(settings.redis_url or "") as client:
        assert control.drained_at(client) is not None
        assert run(settings, "drain") == (0, "no worker was running\n")
        with start_worker(settings):
            wait_until(lambda: is_done(service, waiting), what="a new worker to do the rest")
            assert control.drained_at(client) is None


def test_a_worker_that_has_a_redis_of_its_own(data_dir: Path, tmp_path: Path) -> None:
    """It takes that Redis along when it ends, under the eyes of `drain`."""
    alone = Settings(data_dir=data_dir, embedding_model="off")
    argv = [sys.executable, "-m", "fuze_bench.cli", "worker"]
    with Child("worker", argv, tmp_path / "w.log", environment=alone.environment(os.environ)) as worker:
        worker.wait_ready(lambda: "Listening on" in worker.log_tail(100), timeout_s=60)
        assert run(alone, "drain") == (0, "workers ended: 1; what waits stays in the queues\n")
        assert worker.wait(10) == 0


def test_a_second_drain_cuts_nothing_short(
    service: BookmarkService, settings: Settings, origin: Origin, tmp_path: Path, start_worker: StartWorker
) -> None:
    bookmark_id = save(service, f"{origin.url}/slow/5000/1")
    environment, log = settings.environment(os.environ), tmp_path / "drain.log"
    with start_worker(settings) as worker:
        wait_until(lambda: origin.total_hits() == 1, what="it to be at work")
        with nursery().start("drain", "fuze_bench.cli:main", ["drain"], environment, log) as first:
            wait_until(lambda: "warm shut down" in worker.log_tail(100), what="the worker to know")
            first.signal(signal.SIGINT)
            assert first.wait(10) == 130
        assert run(settings, "drain")[0] == 0
        assert worker.wait(10) == 0
    assert is_done(service, bookmark_id)
    assert origin.total_hits() == 1


def test_without_redis_it_says_so(settings: Settings, private_redis: PrivateRedis) -> None:
    private_redis.stop()
    for command in (["pause", "low"], ["resume", "low"], ["drain"]):
        done = CliRunner().invoke(app, command, env=settings.to_mapping())
        assert "Redis cannot be used" in str(done.exception)


def test_a_save_says_that_nobody_is_there(
    settings: Settings, origin: Origin, client: redis.Redis, start_worker: StartWorker
) -> None:
    with running_api(settings) as url:
        api = Client(url)
        answer = api.save(f"{origin.url}/page/1")
        assert answer.status == 201
        assert answer.json["warning"] == (
            "no worker listens to the queue 'default': start one with `fuze-bench worker`"
        )
        assert "warning" in api.save(f"{origin.url}/page/1").json, "it still waits"
        with start_worker(settings, "--queue", "default") as worker:
            numbers = iter(range(2, 1000))

            def warning(queue: str) -> str | None:
                return api.save(f"{origin.url}/page/{next(numbers)}", queue=queue).json.get("warning")

            wait_until(lambda: warning("default") is None, what="the worker to be seen")
            assert (
                warning("low") == "no worker listens to the queue 'low': start one with `fuze-bench worker`"
            )
            control.pause(client, "default")
            paused = "the queue 'default' is paused: `fuze-bench resume default`"
            wait_until(lambda: warning("default") == paused, what="the pause to be seen")
            control.resume(client, "default")
            wait_until(lambda: warning("default") is None, what="the worker to be seen")
            worker.kill_group()
            wait_until(lambda: warning("default") is not None, what="its death to be seen")


def test_a_worker_that_loads_its_model_is_on_its_way(
    service: BookmarkService, settings: Settings, client: redis.Redis, start_worker: StartWorker
) -> None:
    """Nobody has to start another; but should it die over it, that is said in time."""
    [new] = [service.check(user_id=1, url="https://example.org/1")]
    with start_worker(replace(settings, embedding_model="bundled"), wait=False) as worker:
        worker.wait_ready(lambda: "loading the model" in worker.log_tail(), timeout_s=60)
        assert control.living_workers(client) == []
        assert service.save([new])[0].warning is None
        assert 0 < client.ttl("fuze:loading:default") <= 60
    with start_worker(settings):
        wait_until(lambda: not client.keys("fuze:loading:*"), what="what it said of loading to be gone")


def test_without_redis_there_is_nothing_to_warn_of(settings: Settings, private_redis: PrivateRedis) -> None:
    private_redis.stop()
    with running_api(settings) as url:
        answer = Client(url).save("http://127.0.0.1:1/nothing")
        assert (answer.json["job"]["mode"], "warning" in answer.json) == ("thread", False)


def test_what_is_done_needs_no_worker(service: BookmarkService, settings: Settings, origin: Origin) -> None:
    new = [service.check(user_id=1, url=f"{origin.url}/page/1")]
    [first] = service.save(new)
    assert first.warning is not None
    pipeline = Pipeline(settings)
    pipeline.process([first.bookmark.id])
    pipeline.close()
    [again] = service.save(new)
    assert (again.was_duplicate, again.warning) == (True, None)


def test_looked_up_at_most_once_a_second(service: BookmarkService, client: redis.Redis) -> None:
    new = [service.check(user_id=1, url=f"https://example.org/{n}") for n in range(300)]
    before = client.info("commandstats").get("cmdstat_smembers", {"calls": 0})["calls"]
    service.save(new)
    after = client.info("commandstats")["cmdstat_smembers"]["calls"]
    assert after - before <= 4  # one look asks twice: for pauses and for workers


def test_the_command_line_warns_once(settings: Settings) -> None:
    done = CliRunner().invoke(
        app, ["save", "https://example.org/1", "https://example.org/2"], env=settings.to_mapping()
    )
    assert done.exit_code == 0
    assert done.stderr.count("no worker listens to the queue 'default'") == 1
