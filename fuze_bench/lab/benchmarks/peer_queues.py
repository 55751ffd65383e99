"""Empty jobs a second by other Python queues, each with two processes and the settings that its documentation shows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.peers import note
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.processes import Child

_JOBS = "fuze_bench.lab.benchmarks.peers"
_WORKERS = 2
_WARM_UP = 100
#: Where the jobs wait until the workers are ready.
ASIDE = "fuze:aside"
_LIMIT_S = 120.0


@dataclass(frozen=True)
class Peer:
    """Another queue: its package, the command of its workers, how many of them make two processes, its list in Redis."""

    package: str
    command: tuple[str, ...]
    commands: int
    list_key: str

    @property
    def is_installed(self) -> bool:
        """Whether it can take part: the extra `bench` brings it."""
        return find_spec(self.package) is not None

    @property
    def jobs_module(self) -> str:
        """With the job, and with `send`."""
        return f"{_JOBS}.{self.package.split('_')[0]}_jobs"


PEERS = {
    "Huey": Peer(
        "huey", ("huey.bin.huey_consumer", f"{_JOBS}.huey_jobs.huey", *"-k thread -w 1 -q".split()),
        _WORKERS, "huey.redis.empty",
    ),
    "Taskiq": Peer(
        "taskiq_redis", ("taskiq", "worker", f"{_JOBS}.taskiq_jobs:broker", *f"-w {_WORKERS} --log-level ERROR".split()),
        1, "taskiq",
    ),
    "Dramatiq": Peer(
        "dramatiq", ("dramatiq", f"{_JOBS}.dramatiq_jobs", *f"-p {_WORKERS} -t 5".split()),
        1, "dramatiq:default",
    ),
    "Celery": Peer(
        "celery", ("celery", "-A", f"{_JOBS}.celery_jobs", *f"worker -c {_WORKERS} -l ERROR".split()),
        1, "celery",
    ),
}  # fmt: skip


def rate(peer: Peer, jobs: int) -> float:
    """Jobs a second, from the moment when all of them are there to the last one; workers wait for it.

    Raises LabError where its workers do not come up, or do not get through.
    """
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="fuze-")))
        server = parts.enter_context(PrivateRedis(folder / "redis"))
        client = parts.enter_context(connect(server.url))
        environment = {**os.environ, "REDIS_URL": server.url}
        _send(peer, jobs, note.LAST, environment)
        client.rename(peer.list_key, ASIDE)
        argv = [sys.executable, "-m", *peer.command]
        workers = [
            parts.enter_context(Child(peer.package, argv, folder / f"{number}.log", environment=environment))
            for number in range(peer.commands)
        ]
        deadline_s = time.monotonic() + _LIMIT_S
        while note.workers(client) < _WORKERS:
            _send(peer, _WARM_UP, note.WARM, environment)
            _wait(lambda: not client.exists(peer.list_key), client, workers, deadline_s)
        began_s = time.perf_counter()
        client.rename(ASIDE, peer.list_key)
        _wait(lambda: note.is_over(client), client, workers, deadline_s)
        return jobs / (time.perf_counter() - began_s)


def _send(peer: Peer, jobs: int, kind: str, environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", f"{_JOBS}.send", peer.jobs_module, str(jobs), kind]
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise LabError(f"{peer.package} cannot be given its jobs ({said[0]}): install the extra `bench` anew")


def _wait(is_so: Callable[[], bool], client: redis.Redis, workers: list[Child], deadline_s: float) -> None:
    while not is_so():
        if time.monotonic() > deadline_s or not all(worker.is_alive() for worker in workers):
            raise LabError(f"{workers[0].name} did not get through its empty jobs: {workers[0].log_tail(3)}")
        time.sleep(0.002)
