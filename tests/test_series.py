"""The sampler beside real workers: what it sees, what it leaves out, what it costs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import wait_until
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from fuze_bench.errors import ServiceError
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.load.jobs import JobCall, read_record
from fuze_bench.lab.parts.series import Sampler
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.pipeline.redis_server import PrivateRedis, connect

SPIN, SLEEP = (ServiceLaw(mean_ms=1, how=how).function for how in ("cpu", "sleep"))
Send = Callable[..., Path]


@pytest.fixture
def send(private_redis: PrivateRedis, tmp_path: Path) -> Iterator[Send]:
    """Sends jobs that take so many milliseconds; the file in which they record themselves."""
    with connect(private_redis.url) as client:

        def enqueue(function: str, *times_ms: float, queue: str = "default") -> Path:
            record = tmp_path / "record.jsonl"
            jobs = [JobCall(n, function, [ms]).enqueue_data(record) for n, ms in enumerate(times_ms, 1)]
            Queue(queue, connection=client, serializer=JSONSerializer).enqueue_many(jobs)
            return record

        yield enqueue


@contextmanager
def a_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A session leader that has printed `ready`, ended at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def values(sampler: Sampler, thing: str, metric: str) -> list[float]:
    return [row["value"] for row in sampler.rows(0) if (row["thing"], row["metric"]) == (thing, metric)]


def has(sampler: Sampler, thing: str, metric: str, *, at_least: float) -> Callable[[], bool]:
    return lambda: any(value >= at_least for value in values(sampler, thing, metric))


def test_queues_are_seen_with_their_depth_and_their_oldest_job(
    send: Send, private_redis: PrivateRedis
) -> None:
    send(SLEEP, *[1] * 7, queue="high")
    with Sampler({}, private_redis.url, queues=["high", "low"]) as sampler:
        wait_until(has(sampler, "high", "oldest_age_s", at_least=1.5), what="the job to grow old")
    assert set(values(sampler, "high", "depth")) == {7}
    ages_s = values(sampler, "high", "oldest_age_s")
    assert ages_s == sorted(ages_s)
    assert set(values(sampler, "low", "depth")) == set(values(sampler, "low", "oldest_age_s")) == {0}
    assert sampler.missed == 0


@pytest.mark.parametrize("kind", ["simple", "fork"])
def test_workers_are_seen_at_work_with_all_that_their_jobs_used(
    kind: str, send: Send, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    with StockWorkers(kind, 1, ["default"], private_redis.url, tmp_path) as workers:
        workers.wait_ready()
        parts: dict[str, Callable[[], Sequence[int]]] = {"workers": lambda: workers.pids}
        with Sampler(parts, private_redis.url, queues=["default"]) as sampler:
            wait_until(lambda: values(sampler, "workers", "cpu_s"), what="a sample")
            record = send(SPIN, *[400] * 4)
            wait_until(lambda: len(read_record(record)) == 4, what="the jobs to be done")
            with connect(private_redis.url) as client:
                [worker] = Worker.all(connection=client)
                wait_until(lambda: client.hget(worker.key, "state") == b"idle", what="it to rest")
    busy = values(sampler, "workers", "busy_workers")
    assert set(busy) == {0, 1}
    assert busy[-1] == 0
    used_s = sampler.cpu_s("workers")
    assert used_s is not None
    assert 1.6 <= used_s < 8
    assert (sampler.peak_pss_bytes("workers") or 0) > 10_000_000
    assert (sampler.cpu_s("nobody"), sampler.peak_pss_bytes("nobody")) == (None, None)


def test_a_killed_worker_is_not_busy(send: Send, private_redis: PrivateRedis, tmp_path: Path) -> None:
    send(SLEEP, 600_000)
    with (
        StockWorkers("simple", 1, ["default"], private_redis.url, tmp_path) as workers,
        Sampler({}, private_redis.url, queues=["default"]) as sampler,
    ):
        wait_until(has(sampler, "workers", "busy_workers", at_least=1), what="the job to begin")
        workers.children[0].kill_group()
        with connect(private_redis.url) as client:
            assert {client.hget(key, "state") for key in Worker.all_keys(connection=client)} == {b"busy"}
        wait_until(lambda: values(sampler, "workers", "busy_workers")[-1] == 0, what="it to be known")


def test_memory_that_processes_share_counts_once() -> None:
    code = (
        "import os, time; held = bytearray(os.urandom(1_000_000)) * 200; children = [os.fork() for _ in range(2)]\n"
        "0 in children or print('ready', flush=True)\ntime.sleep(600)"
    )
    with a_process(code) as process, Sampler({"part": lambda: [process.pid]}, None, queues=[]) as sampler:
        wait_until(lambda: values(sampler, "part", "pss_bytes"), what="a sample")
    assert 200_000_000 < (sampler.peak_pss_bytes("part") or 0) < 350_000_000


def test_samples_keep_to_the_seconds() -> None:
    with Sampler({"us": lambda: [os.getsid(0)]}, None, queues=[]) as sampler:
        wait_until(lambda: len(values(sampler, "us", "cpu_s")) >= 4, what="four samples")
        times_s = [row["t_s"] for row in sampler.rows(0) if row["metric"] == "cpu_s"][:4]
    assert [round(at_s - times_s[0]) for at_s in times_s] == [0, 1, 2, 3]
    assert all(abs(at_s - times_s[0] - round(at_s - times_s[0])) < 0.3 for at_s in times_s)


def test_commands_are_those_of_others(private_redis: PrivateRedis) -> None:
    with connect(private_redis.url) as client:
        client.ping()
        with Sampler({}, private_redis.url, queues=["high", "low"]) as sampler:
            wait_until(lambda: values(sampler, "redis", "commands"), what="a sample")
            for _ in range(500):
                client.ping()
            wait_until(lambda: len(values(sampler, "redis", "commands")) >= 3, what="three samples")
    assert sampler.redis_commands() == 500
    assert min(values(sampler, "redis", "memory_bytes")) > 100_000


def test_a_redis_that_goes_away_is_left_out_and_counted(private_redis: PrivateRedis) -> None:
    parts: dict[str, Callable[[], Sequence[int]]] = {"redis": lambda: [private_redis.pid]}
    with Sampler(parts, private_redis.url, queues=["default"]) as sampler:
        wait_until(lambda: values(sampler, "redis", "commands"), what="a sample")
        private_redis.stop()
        with pytest.raises(ServiceError, match="stopped"):
            _ = private_redis.pid
        wait_until(lambda: sampler.missed >= 2, what="missed samples")
        private_redis.start()
        before = len(values(sampler, "redis", "commands"))
        wait_until(lambda: len(values(sampler, "redis", "commands")) > before, what="it to be back")
    assert sampler.redis_commands() is None
    assert (sampler.cpu_s("redis") or 0) >= 0


def test_a_redis_that_hangs_keeps_nothing_else_from_being_sampled(private_redis: PrivateRedis) -> None:
    with (
        a_process("import time; print('ready', flush=True); time.sleep(600)") as process,
        Sampler({"part": lambda: [process.pid]}, private_redis.url, queues=["default"]) as sampler,
    ):
        wait_until(lambda: values(sampler, "redis", "commands"), what="a sample")
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            seen = len(values(sampler, "part", "cpu_s"))
            started_s = time.monotonic()
            wait_until(lambda: len(values(sampler, "part", "cpu_s")) >= seen + 3, what="samples")
            assert time.monotonic() - started_s < 6
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)
    assert sampler.missed >= 2


def test_a_part_that_ends_is_left_out_and_counted() -> None:
    code = "import time; print('ready', flush=True); time.sleep(600)"
    with a_process(code) as process, Sampler({"part": lambda: [process.pid]}, None, queues=[]) as sampler:
        wait_until(lambda: values(sampler, "part", "cpu_s"), what="a sample")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: sampler.missed >= 1, what="a missed sample")
    assert min(values(sampler, "part", "cpu_s")) > 0


def test_sampling_is_cheap(send: Send, private_redis: PrivateRedis, tmp_path: Path) -> None:
    with StockWorkers("simple", 4, ["default"], private_redis.url, tmp_path) as workers:
        workers.wait_ready()
        send(SLEEP, *[100] * 200)
        sampler = Sampler(
            {"workers": lambda: workers.pids, "redis": lambda: [private_redis.pid]},
            private_redis.url,
            queues=["high", "default", "low"],
        )
        sampler._sample()
        start_s = time.thread_time()
        for _ in range(20):
            sampler._sample()
        assert (time.thread_time() - start_s) / 20 < 0.02
        with connect(private_redis.url) as client:
            client.flushall()
    assert len(values(sampler, "workers", "cpu_s")) == 21


def test_memory_that_takes_long_to_add_up_is_looked_at_less_often() -> None:
    us = str(os.getpid())
    sampler = Sampler({}, None, queues=[])
    assert [len(sampler._memory_of({"one": [us]})) for _ in range(2)] == [1, 1]
    assert [len(sampler._memory_of({"many": [us] * 300})) for _ in range(2)] == [1, 0]
