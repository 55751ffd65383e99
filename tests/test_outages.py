"""Redis refuses, hangs, or loses its last second: saves, workers, commands and retries go on, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from api_server import Client, api_process, running_api
from conftest import StartWorker, wait_until
from relay import Relay
from rq import Worker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.serializers import JSONSerializer

from fuze_bench.lab.parts.origin import Origin
from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """What Redis lost is looked for soon, and its return is noticed soon."""
    return replace(
        settings, lease_check_s=0.5, recovery_interval_s=0.5, recover_after_s=1.0, redis_retry_s=0.2
    )


@contextmanager
def outage(kind: str, server: PrivateRedis) -> Iterator[None]:
    """Redis is away within the block: `refused`, `hanging`, or killed, so that what it had not written is `lost`."""
    pid = server.pid
    match kind:
        case "refused":
            server.stop()
        case "hanging":
            os.kill(pid, signal.SIGSTOP)
        case "lost":
            server.kill()
    try:
        yield
    finally:
        if kind == "hanging":
            os.kill(pid, signal.SIGCONT)
        else:
            server.start()


def save(service: BookmarkService, url: str) -> int:
    return service.save([service.check(user_id=1, url=url)])[0].bookmark.id


def is_done(service: BookmarkService, bookmark_id: int) -> bool:
    found = service.store.get(bookmark_id)
    return found is not None and found.status is Status.PROCESSED


def known_workers(settings: Settings) -> list[Any]:
    with connect(settings.redis_url or "") as client:
        return Worker.all(connection=client, serializer=JSONSerializer)


class Saver(threading.Thread):
    """Saves one page after another over HTTP until it is told to stop; what was acknowledged, and how long each took."""

    def __init__(self, client: Client, url: str) -> None:
        super().__init__(name="saver")
        self._client, self._url, self._stop_asked = client, url, threading.Event()
        self.modes: list[str] = []
        self.took_s: list[float] = []
        self.wrong: list[object] = []

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            start = time.monotonic()
            answer = self._client.save(f"{self._url}/slow/5/{len(self.modes)}")
            self.took_s.append(time.monotonic() - start)
            if answer.status != 201:
                self.wrong.append(answer)
                return
            self.modes.append(answer.json["job"]["mode"])

    def wait_for(self, more: int, mode: str | None = None) -> None:
        start = len(self.modes)
        wait_until(
            lambda: sum(m == mode or mode is None for m in self.modes[start:]) >= more or self.wrong,
            what=f"{more} more saves ({mode})",
        )

    def __enter__(self) -> Saver:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop_asked.set()
        self.join()


@pytest.mark.parametrize("kind", ["refused", "hanging", "lost"])
def test_saves_go_on_and_everything_is_done_once(
    kind: str,
    hasty: Settings,
    private_redis: PrivateRedis,
    origin: Origin,
    tmp_path: Path,
    start_worker: StartWorker,
) -> None:
    with (
        api_process(hasty, tmp_path / "api.log") as (base_url, api),
        start_worker(hasty, "--count", "2") as workers,
        Store(hasty) as store,
    ):
        with Saver(Client(base_url), origin.url) as saver:
            saver.wait_for(10, "rq")
            with outage(kind, private_redis):
                begun = len(saver.took_s)
                saver.wait_for(10, "thread")
                held = saver.took_s[begun + 1 :]
            saver.wait_for(10, "rq")
        assert not saver.wrong
        # The first finds out that Redis hangs; one may have been under way when it began to.
        assert sorted(held)[-2] < 1.0
        total = len(saver.modes)
        wait_until(lambda: store.counts()["processed"] == total, timeout_s=60, what="all to be done")
        assert [origin.hits(f"/slow/5/{n}") for n in range(total)] == [1] * total
        assert "Traceback" not in workers.log_tail(10_000) + api.log_tail(10_000)
        assert "starting another" not in workers.log_tail(10_000)


@pytest.mark.parametrize("kind", ["simple", "fork", "spawn", "batch"])
def test_a_worker_goes_on_after_a_restart_and_obeys_commands(
    kind: str, hasty: Settings, private_redis: PrivateRedis, origin: Origin, start_worker: StartWorker
) -> None:
    """Redis goes away while a job runs, which ends meanwhile, and again while the worker idles."""
    with (
        BookmarkService(hasty) as service,
        start_worker(hasty, "--kind", kind, "--name", "steady") as worker,
    ):
        busy = save(service, f"{origin.url}/slow/1000/1")
        wait_until(lambda: origin.hits("/slow/1000/1"), what="the job to begin")
        with outage("lost", private_redis):
            wait_until(lambda: is_done(service, busy), what="the job to end")
            wait_until(lambda: "Redis is away" in worker.log_tail(1_000), what="the worker to notice")
        wait_until(service.queue.is_available, what="Redis to be back")
        wait_until(lambda: [each.get_state() for each in known_workers(hasty)] == ["idle"], what="it to idle")
        with outage("refused", private_redis):
            wait_until(lambda: not service.queue.is_available(), what="it to be noticed")
        wait_until(service.queue.is_available, what="Redis to be back again")
        after = save(service, f"{origin.url}/page/2")
        wait_until(lambda: is_done(service, after), what="the next job")
        assert [each.name for each in known_workers(hasty)] == ["steady"]
        with connect(hasty.redis_url or "") as client:
            wait_until(
                lambda: client.pubsub_numsub("rq:pubsub:steady")[0][1] == 1,
                what="it to listen to commands again",
            )
            if kind != "simple":  # RQ cannot stop a job that runs in the worker itself
                long = save(service, f"{origin.url}/slow/25000/3")
                wait_until(lambda: origin.hits("/slow/25000/3"), what="the long job to begin")
                send_stop_job_command(client, f"bookmark-{long}-1", serializer=JSONSerializer)
                wait_until(lambda: "stopped by user" in worker.log_tail(1_000), what="it to be stopped")
            send_shutdown_command(client, "steady")
        assert worker.wait(20) == 0
        assert "Traceback" not in worker.log_tail(10_000)
    assert origin.hits("/slow/1000/1") == 1


@pytest.mark.parametrize("kind", ["refused", "hanging"])
@pytest.mark.parametrize("worker_kind", ["simple", "fork", "batch"])
def test_sigterm_while_redis_is_away(
    kind: str, worker_kind: str, settings: Settings, private_redis: PrivateRedis, start_worker: StartWorker
) -> None:
    with start_worker(settings, "--kind", worker_kind) as worker:
        wait_until(lambda: known_workers(settings)[0].get_state() == "idle", what="it to be idle")
        with outage(kind, private_redis):
            if kind == "refused":
                wait_until(lambda: "could not connect" in worker.log_tail(1_000), what="it to be noticed")
            asked = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert worker.wait(30) == 0
            assert time.monotonic() - asked < 6
        with pytest.raises(ProcessLookupError):
            os.killpg(worker.pid, 0)
        assert "Traceback" not in worker.log_tail(10_000)


def test_retries_happen_after_a_restart(
    hasty: Settings, private_redis: PrivateRedis, origin: Origin, start_worker: StartWorker
) -> None:
    """By the scheduler, which is still there: nobody looks for what is lost this soon."""
    patient = replace(hasty, retry_intervals_s=(2.0,), recover_after_s=600.0)
    with BookmarkService(patient) as service, start_worker(patient, "--kind", "simple") as worker:
        bookmark_id = save(service, f"{origin.url}/flaky/1/1")
        wait_until(lambda: service.store.get(bookmark_id).retry_at, what="the retry to be planned")  # type: ignore[union-attr]
        with connect(patient.redis_url or "") as client:
            wait_until(
                lambda: client.zcard("rq:scheduled:default") == 1, what="the retry to be on the schedule"
            )
        [scheduler] = psutil.Process(worker.pid).children()
        with outage("refused", private_redis):
            wait_until(lambda: "scheduler: Redis is away" in worker.log_tail(1_000), what="it to be noticed")
        wait_until(lambda: is_done(service, bookmark_id), what="the second try")
        assert scheduler.is_running()
        assert "Traceback" not in worker.log_tail(10_000)


def test_a_worker_that_redis_forgot_is_known_again(settings: Settings, start_worker: StartWorker) -> None:
    with start_worker(settings, "--name", "unforgettable"):
        with connect(settings.redis_url or "") as client:
            client.flushall()
        wait_until(
            lambda: [each.name for each in known_workers(settings)] == ["unforgettable"],
            what="it to be known again",
        )


def test_a_reply_that_is_lost_is_no_second_job(
    hasty: Settings, private_redis: PrivateRedis, origin: Origin, start_worker: StartWorker
) -> None:
    """Redis took the job, and its answer never came: one 201, one page fetched."""
    lost: list[bytes] = []

    def loses(sent: bytes, _reply: bytes) -> bool:
        if lost or b"EVALSHA" not in sent or b"bookmark-" not in sent:
            return False
        lost.append(sent)
        return True

    with Relay(private_redis.socket_path, loses=loses) as relay:
        through = replace(hasty, redis_url=f"redis://127.0.0.1:{relay.port}/0")
        with running_api(through) as base_url, start_worker(hasty), Store(hasty) as store:
            answers = [Client(base_url).save(f"{origin.url}/page/{n}") for n in range(3)]
            assert lost
            assert [answer.status for answer in answers] == [201] * 3
            wait_until(lambda: store.counts()["processed"] == 3, what="all to be done")
            with connect(hasty.redis_url or "") as client:
                keys = ("rq:queue:default", "rq:wip:default")
                wait_until(lambda: not client.exists(*keys), what="what was sent twice to be taken twice")
            assert [row["attempts"] for row in store.rows("attempts")] == [1] * 3
        assert [origin.hits(f"/page/{n}") for n in range(3)] == [1] * 3
