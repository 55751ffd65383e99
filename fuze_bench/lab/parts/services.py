"""The real parts of a trial as context managers: start, prove ready, stop, always reap."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from rq import Worker

from fuze_bench.errors import QueueUnavailableError, ServiceError, one_line
from fuze_bench.lab.experiments.factors import Configuration
from fuze_bench.lab.parts.stock_workers import POOL, StockWorkers
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import QUEUES, Settings
from fuze_bench.processes import Child, free_port

_ORIGIN_READY_S = 30.0
_WORKERS_READY_S = 60.0
_API_READY_S = 60.0
_WORKERS_STOP_S = 30.0
_ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class RunningOrigin:
    """The web site that the workers fetch from."""

    child: Child
    url: str

    def hits(self) -> dict[str, int]:
        """How often each target (path and query string) was asked for. Raises ServiceError if it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/hits", timeout=_ANSWER_TIMEOUT_S) as answer:
                found: dict[str, int] = json.load(answer)
        except (OSError, ValueError) as error:
            raise ServiceError(f"the origin does not tell its hits ({one_line(error)})") from None
        return found


@contextmanager
def running_origin(
    folder: Path, *, latency_ms: float, failure_rate: float = 0.0, pages: str | None = None
) -> Iterator[RunningOrigin]:
    """The origin as a process of its own, with its output in `folder`. Raises ServiceError if it does not start."""
    argv = [
        sys.executable,
        "-m",
        "fuze_bench.lab.parts.origin",
        "--port",
        "0",
        "--latency-ms",
        f"{latency_ms:g}",
    ]
    argv += ["--failure-rate", f"{failure_rate:g}"]
    if pages is not None:
        argv += ["--pages", pages]
    with Child("the origin", argv, folder / "origin.log", environment=_own_environment()) as child:
        child.wait_ready(lambda: _ready_url(child) is not None, _ORIGIN_READY_S)
        url = _ready_url(child)
        assert url is not None
        yield RunningOrigin(child, url)


def _ready_url(child: Child) -> str | None:
    for line in child.log_path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if line.startswith("ready ") and line.endswith("\n"):
            return line.removeprefix("ready ").strip()
    return None


@contextmanager
def running_api(settings: Settings, folder: Path, *, inline: bool = False) -> Iterator[tuple[str, Child]]:
    """The API as a process of its own: its URL and the process. `inline`: the one that processes within the request.

    Raises ServiceError if it does not start.
    """
    port = free_port()
    module = ["fuze_bench.lab.parts.inline_api"] if inline else ["fuze_bench.cli", "api"]
    argv = [sys.executable, "-m", *module, "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    environment = settings.environment(os.environ)
    with Child("the API", argv, folder / "api.log", environment=environment) as child:
        child.wait_ready(lambda: _answers(f"{url}/healthz"), _API_READY_S)
        yield url, child


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class RedisOutage:
    """Stops a Redis at a moment and starts it again, when `tick` is called about then.

    Not in a thread: the server would end with it (see `Child`).
    """

    def __init__(self, server: PrivateRedis, begin_ns: int, length_s: float) -> None:
        self._server, self._begin_ns = server, begin_ns
        self._end_ns = begin_ns + round(length_s * 1e9)
        self._stamps: list[tuple[str, int]] = []

    @property
    def is_over(self) -> bool:
        return len(self._stamps) == 2

    def tick(self) -> None:
        """Do what is due. Raises ServiceError if the server does not come up again."""
        now_ns = time.monotonic_ns()
        if not self._stamps and now_ns >= self._begin_ns:
            self._server.stop()
            self._stamps.append(("Redis stopped", now_ns))
        elif len(self._stamps) == 1 and now_ns >= self._end_ns:
            self._server.start()
            self._stamps.append(("Redis started", time.monotonic_ns()))

    def text(self, start_ns: int) -> str:
        """What was done, and when (seconds from `start_ns`), as JSON."""
        return json.dumps([{"what": what, "t_s": (at_ns - start_ns) / 1e9} for what, at_ns in self._stamps])


def workers_of(
    configuration: Configuration, label: str, settings: Settings, folder: Path, host: WorkerHost | None
) -> Workers | StockWorkers:
    """The workers of a configuration: ours, forked by a host that holds the model, or RQ's own pool without one."""
    assert settings.redis_url is not None
    if configuration.kind == POOL:
        environment = settings.environment(os.environ)
        return StockWorkers(
            POOL,
            configuration.workers,
            QUEUES,
            settings.redis_url,
            folder,
            strategy=configuration.strategy,
            environment=environment,
        )
    assert host is not None
    return Workers(host, settings, configuration, label, folder)


class Workers:
    """The workers of one configuration, forked by a host that holds the model. A context manager."""

    def __init__(
        self, host: WorkerHost, settings: Settings, configuration: Configuration, label: str, folder: Path
    ) -> None:
        assert settings.redis_url is not None
        self._count = configuration.workers
        self._names: frozenset[str] = frozenset()
        self._redis = connect(settings.redis_url, connect_timeout_s=2, timeout_s=5)
        self.child = host.start(
            label,
            settings,
            configuration.kind,
            configuration.workers,
            folder / "workers.log",
            strategy=configuration.strategy,
        )

    @property
    def pids(self) -> list[int]:
        """Of the processes that were started; theirs follow from them."""
        return [self.child.pid]

    def exit_codes(self) -> list[int | None]:
        """Of the processes that were started; None for one that runs."""
        return [self.child.returncode()]

    def wait_ready(self) -> None:
        """Wait until all have registered in RQ, which is when they begin to work.

        Raises ServiceError if they do not get there, QueueUnavailableError if Redis is away.
        """
        self.child.wait_ready(self._are_ready, _WORKERS_READY_S)

    def problem(self) -> str | None:
        """What became of a worker that is no longer there; None while all of them live."""
        if not self.child.is_alive():
            return f"the workers ended with code {self.child.returncode()}"
        replaced = self._registered() - self._names
        return f"a worker died and was replaced by {', '.join(sorted(replaced))}" if replaced else None

    def _are_ready(self) -> bool:
        self._names = self._registered()
        return len(self._names) == self._count

    def _registered(self) -> frozenset[str]:
        try:
            return frozenset(Worker.all_keys(connection=self._redis))
        except redis.RedisError as error:
            raise QueueUnavailableError(f"the trial's Redis is away ({one_line(error)})") from None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.child.signal(signal.SIGTERM)
        try:
            self.child.wait(_WORKERS_STOP_S)
        finally:
            self.child.kill_group()
            self._redis.close()


def _own_environment() -> Mapping[str, str]:
    """This process's environment without what would lead a part to the user's own Redis or database."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FUZE_", "REDIS_")) and name != "DATABASE_URL"
    }
