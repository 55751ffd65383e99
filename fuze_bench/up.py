"""`fuze-bench up`: Redis, API, workers and origin as one, with a live screen; Ctrl-C stops all of it."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import redis
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rq import Queue

from fuze_bench.errors import ServiceError, SettingsError
from fuze_bench.pipeline.bulk import in_groups, refusal, save_group
from fuze_bench.pipeline.control import living_workers
from fuze_bench.pipeline.imports import ImportItem
from fuze_bench.pipeline.redis_server import connect, kept_redis_for, masked_url, running_private_url
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import QUEUES, Kind, Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.worker_command import remark
from fuze_bench.processes import Child, free_port

_REFRESH_S = 0.5
#: A log that is larger than this when the system starts is begun anew, else what is logged is added to it.
_LARGEST_LOG_BYTES = 10 * 1024 * 1024
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Snapshot:
    """What the screen shows: numbers of bookmarks by status, jobs by queue (None: Redis is away) and of all queues for
    later, workers alive.
    """

    bookmarks: dict[str, int]
    waiting: dict[str, int] | None
    scheduled: int
    workers: int
    drained: bool

    def line(self) -> str:
        """On one line, for logs and pipes."""
        return f"bookmarks: {_pairs(self.bookmarks)} · waiting: {self.queues()} · workers: {self.workers}{self.hint(1)}"

    def queues(self) -> str:
        """How many jobs wait where, and how many come later: to be tried again, or when their host may be asked."""
        if self.waiting is None:
            return "Redis is away"
        return _pairs(self.waiting) + (f", later {self.scheduled}" if self.scheduled else "")

    def hint(self, wanted: int) -> str:
        """Why there are fewer workers than wanted, as far as it is known."""
        if self.drained:
            return " (drained)"
        return " (starting)" if self.workers < wanted and self.waiting is not None else ""


class System:
    """The running parts. Made by `running_system`, which stops them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        children: list[Child],
        keep_redis: Callable[[], None],
        api_url: str,
        origin_url: str,
    ) -> None:
        self.settings = settings
        self.api_url = api_url
        self.origin_url = origin_url
        self._store = store
        self._children = children
        self._keep_redis = keep_redis
        assert settings.redis_url is not None
        self._redis = connect(settings.redis_url, connect_timeout_s=1, timeout_s=1)

    def snapshot(self) -> Snapshot:
        """The present state; a private Redis that died is started again. Raises ServiceError if another of the processes
        has ended, or if Redis does not come up.
        """
        self._keep_redis()
        drained = False
        for child in self._children:
            # Workers that were told to drain end well; everything else stays up.
            if child.is_alive():
                continue
            drained = child.name == "worker" and child.returncode() == 0
            if not drained:
                raise ServiceError(f"{child.name} ended with code {child.returncode()}:\n{child.log_tail()}")
        try:
            queues = {name: Queue(name, connection=self._redis) for name in QUEUES}
            waiting = {name: queue.count for name, queue in queues.items()}
            scheduled = sum(self._redis.zcard(q.scheduled_job_registry.key) for q in queues.values())
            workers = len(living_workers(self._redis))
        except redis.RedisError:
            return Snapshot(self._store.counts(), None, 0, 0, drained)
        return Snapshot(self._store.counts(), waiting, scheduled, workers, drained)


@contextmanager
def running_system(
    settings: Settings,
    *,
    workers: int,
    kind: Kind,
    port: int,
    origin_port: int | None,
    pages: Path | None,
    latency_ms: int,
) -> Iterator[System]:
    """Start everything, prove the API ready, and stop everything at the end, whatever happens."""
    port = free_port(_HOST, port)
    python = sys.executable
    with ExitStack() as stack:
        settings, keep_redis = stack.enter_context(kept_redis_for(settings))
        try:
            origin_port = free_port(_HOST, origin_port or 0)
        except SettingsError as error:
            raise SettingsError(f"the site to fetch from: {error} with --origin-port") from None
        # The site is there to be asked, and as often as anybody likes.
        own = (f"{_HOST}:{origin_port}",)
        settings = replace(
            settings,
            fetch_allow=settings.fetch_allow + own,
            host_unlimited=settings.host_unlimited + own,
        )
        store = stack.enter_context(Store(settings))
        environment = settings.environment(os.environ)
        logs = settings.data_dir / "logs"

        def start(name: str, *arguments: str) -> Child:
            log = logs / f"{name}.log"
            if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
                log.unlink()
            return stack.enter_context(Child(name, [python, "-m", *arguments], log, environment=environment))

        origin_options = ["--port", str(origin_port), "--latency-ms", str(latency_ms)]
        if pages is not None:
            origin_options += ["--pages", str(pages)]
        origin = start("origin", "fuze_bench.lab.parts.origin", *origin_options)
        worker = start("worker", "fuze_bench.pipeline.worker", "--count", str(workers), "--kind", str(kind))
        api = start("api", "fuze_bench.cli", "api", "--port", str(port))
        api_url = f"http://{_HOST}:{port}"
        api.wait_ready(lambda: _answers(f"{api_url}/healthz"), timeout_s=60)
        origin.wait_ready(lambda: origin.log_tail().startswith("ready "), timeout_s=60)
        origin_url = origin.log_tail().split()[1]
        yield System(settings, store, [origin, worker, api], keep_redis, api_url, origin_url)


def run(system: System, workers: int) -> None:
    """Show the system's state until SIGINT or SIGTERM: a screen on a terminal, else a line whenever it changes."""
    console = Console()
    console.print(f"API and page  {system.api_url}/")
    url, data_dir = system.settings.redis_url or "", system.settings.data_dir
    if url == running_private_url(data_dir):
        console.print(f"Redis         {url}  (rq info --url {url})", soft_wrap=True)
    else:
        console.print(f"Redis         {masked_url(url)}", soft_wrap=True)
    sign_in = " -H 'Authorization: Bearer …'" if system.settings.api_tokens else ""
    console.print(f"some pages    {system.origin_url}/page/0 … to save", soft_wrap=True)
    site = system.origin_url.removeprefix("http://")
    console.print(
        f"              (a worker or save beside this needs FUZE_FETCH_ALLOW={site} to fetch them)",
        soft_wrap=True,
    )
    console.print(f"try           curl -s {system.api_url}/api/bookmarks/quick-save -H 'Content-Type: application/json'{sign_in}"
                  f""" -d '{{"url": "{system.origin_url}/page/0"}}'""", soft_wrap=True)  # fmt: skip
    console.print("Ctrl-C stops everything")
    with _until_stopped() as stopped:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=False) as live:
                while not stopped:
                    live.update(_screen(system.snapshot(), workers), refresh=True)
                    time.sleep(_REFRESH_S)
        else:
            shown = ""
            while not stopped:
                line = system.snapshot().line()
                if line != shown:
                    console.print(line, soft_wrap=True, highlight=False)
                    shown = line
                time.sleep(_REFRESH_S)
    console.print("stopping …")


def _save(service: BookmarkService, items: list[ImportItem]) -> None:
    """Save what can be saved, and say what cannot."""
    for group in in_groups(items):
        for result in save_group(service, group, user_id=1, queue="low"):
            if result.error is not None:
                remark(refusal(result))


def _screen(snapshot: Snapshot, workers: int) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_row("workers", f"{snapshot.workers} of {workers}{snapshot.hint(workers)}")
    table.add_row("waiting", snapshot.queues())
    table.add_row("bookmarks", _pairs(snapshot.bookmarks))
    return table


def _pairs(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


@contextmanager
def _until_stopped() -> Iterator[list[int]]:
    """A list that is empty until the process is told to stop."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def run_up(
    settings: Settings,
    *,
    workers: int,
    kind: Kind,
    port: int,
    origin_port: int | None,
    pages: Path | None,
    items: list[ImportItem],
    latency_ms: int,
) -> None:
    """The whole command; saves `items` once everything runs. SIGTERM while it starts is as good as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    with running_system(
        settings,
        workers=workers,
        kind=kind,
        port=port,
        origin_port=origin_port,
        pages=pages,
        latency_ms=latency_ms,
    ) as system:
        if items:
            with BookmarkService(system.settings) as service:
                _save(service, items)
        run(system, workers)
