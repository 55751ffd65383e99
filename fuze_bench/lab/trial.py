"""One configuration once: set up, warm up, save a backlog, wait until all of it is done, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fuze_bench.errors import FuzeError, LabError, one_line
from fuze_bench.lab.results import FAILED, OK, EventRow, TrialRow
from fuze_bench.lab.services import RunningOrigin, Workers, running_origin
from fuze_bench.lab.spec import Experiment, PlannedTrial
from fuze_bench.lab.worker_host import WorkerHost
from fuze_bench.pipeline.bookmarks import Mode, Status
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child

_USER_ID = 1
_POLL_S = 0.05
_LOG_LINES = 20
_COLUMNS = ("url", "status", "reason", "attempts", "queued_ns", "started_ns", "done_ns", "durations_ms")
_DONE = (Status.PROCESSED, Status.FAILED)

#: Told how many bookmarks of how many are done.
Progress = Callable[[int, int], None]


def settings_of_trials(settings: Settings) -> Settings:
    """What every trial runs with, where the caller's settings are these: Redis and database are the trial's own, and
    so is the one site, which may be asked as often as there are workers.
    """
    return replace(settings, redis_url=None, database_url=None, host_fetches=0, host_interval_s=0.0)


class Trial:
    """One planned trial in a fresh `folder`, on an empty Redis and an empty database of its own.

    A context manager: entering it starts the parts, leaving it stops and reaps them. In between come `wait_ready`,
    `measure` and `close`; then `row` and `events` are what to record. Whatever goes wrong, a worker's death or
    running out of `timeout_s` included, makes the trial `failed` with the end of the logs, and what follows
    is skipped; only Ctrl-C and programming errors are raised.
    """

    def __init__(
        self,
        planned: PlannedTrial,
        experiment: Experiment,
        settings: Settings,
        folder: Path,
        host: WorkerHost,
        *,
        timeout_s: float | None = None,
    ) -> None:
        self.planned = planned
        self.events: list[EventRow] = []
        self._experiment = experiment
        self._settings = replace(settings_of_trials(settings), data_dir=folder)
        self._folder = folder
        self._host = host
        self._limit_s = _limit_s(experiment, planned) if timeout_s is None else timeout_s
        self._parts = ExitStack()
        self._origin: RunningOrigin | None = None
        self._workers: Workers | None = None
        self._problem: str | None = None
        self._started_at_s = time.time()
        self._workers_ready_s: float | None = None
        self._duplicated = 0

    def __enter__(self) -> Trial:
        try:
            with self._problems_noted():
                self._start()
        except BaseException:
            self._parts.close()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until every worker has registered, which a first trial's do when their host has loaded the model."""
        with self._problems_noted():
            if self._workers is not None:
                self._workers.wait_ready()
                self._workers_ready_s = time.time() - self._started_at_s

    def measure(self, on_progress: Progress | None = None) -> None:
        """Warm up with one bookmark a worker (other pages, not recorded), save the backlog, wait until it is done."""
        warm_up, backlog = self.planned.configuration.workers, self._experiment.bookmarks
        if self._problem is not None:
            return
        with self._problems_noted():
            self._save(range(backlog, backlog + warm_up))
            self._wait_until_done(warm_up)
            self._save(range(backlog))
            try:
                self._wait_until_done(backlog, before=warm_up, on_progress=on_progress)
            finally:
                self._record(warm_up)

    def close(self) -> None:
        """Stop and reap every part; one that does not end well makes the trial fail. Safe to call twice."""
        with self._problems_noted():
            self._parts.close()
        for child in (self._workers_child, self._origin_child):
            if child is not None and child.returncode() != 0 and self._problem is None:
                self._problem = f"{child.name} ended with code {child.returncode()} when told to stop"

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def row(self) -> TrialRow:
        """What to record of the trial as a whole; the exit codes are known once it is closed."""
        configuration = self.planned.configuration
        done = [event for event in self.events if event.status in _DONE]
        drain_s = _drain_s(done) if self._problem is None else None
        return TrialRow(
            trial=self.planned.number,
            block=self.planned.block,
            kind=configuration.kind,
            workers=configuration.workers,
            status=OK if self._problem is None else FAILED,
            problem=self._problem,
            log_end=None if self._problem is None else _log_end(self._folder),
            started_at_s=self._started_at_s,
            workers_ready_s=self._workers_ready_s,
            drain_s=drain_s,
            throughput_per_s=len(done) / drain_s if drain_s else None,
            processed=sum(event.status == Status.PROCESSED for event in done),
            failed=sum(event.status == Status.FAILED for event in done),
            lost=len(self.events) - len(done),
            duplicated=self._duplicated,
            workers_exit_code=self._workers_child.returncode() if self._workers_child else None,
            origin_exit_code=self._origin_child.returncode() if self._origin_child else None,
        )

    @property
    def _workers_child(self) -> Child | None:
        return None if self._workers is None else self._workers.child

    @property
    def _origin_child(self) -> Child | None:
        return None if self._origin is None else self._origin.child

    @contextmanager
    def _problems_noted(self) -> Iterator[None]:
        try:
            yield
        except FuzeError as error:
            # The first problem is the cause, later ones follow from it.
            self._problem = self._problem or one_line(error)

    def _start(self) -> None:
        server = self._parts.enter_context(PrivateRedis(self._folder / "redis"))
        e = self._experiment
        self._origin = self._parts.enter_context(
            running_origin(self._folder, latency_ms=e.origin_latency_ms, pages=e.pages)
        )
        # A trial fetches from its own origin and nothing else that is not public.
        settings = replace(
            self._settings, redis_url=server.url, fetch_allow=(urlsplit(self._origin.url).netloc,)
        )
        self._service = self._parts.enter_context(BookmarkService(settings))
        workers = Workers(self._host, settings, self.planned.configuration, self._folder)
        self._workers = self._parts.enter_context(workers)

    def _save(self, pages: range) -> None:
        """Save one bookmark a page, all at once. Raises LabError unless every one went to RQ."""
        assert self._origin is not None
        url = self._origin.url
        new = [self._service.check(user_id=_USER_ID, url=f"{url}/page/{n}") for n in pages]
        astray = {result.job.mode for result in self._service.save(new)} - {Mode.RQ}
        if astray:
            raise LabError(f"bookmarks went to {', '.join(astray)} and not to RQ: see the log of Redis")

    def _wait_until_done(self, total: int, *, before: int = 0, on_progress: Progress | None = None) -> None:
        """Wait on the store for `total` bookmarks beyond the `before` that were done already.

        Raises LabError when a worker dies or the time is up.
        """
        assert self._workers is not None
        deadline_s = time.monotonic() + self._limit_s
        while True:
            counts = self._service.store.counts()
            done = sum(counts[status] for status in _DONE) - before
            if on_progress is not None:
                on_progress(done, total)
            if problem := self._workers.problem():
                raise LabError(problem)
            if done >= total:
                return
            if time.monotonic() > deadline_s:
                raise LabError(f"{total - done} of {total} bookmarks were not done after {self._limit_s:g} s")
            time.sleep(_POLL_S)

    def _record(self, warm_up: int) -> None:
        assert self._origin is not None
        rows = self._service.store.rows(*_COLUMNS)[warm_up:]
        self.events = [_event(self.planned, number, row) for number, row in enumerate(rows, start=1)]
        hits = self._origin.hits()
        self._duplicated = sum(max(0, hits.get(urlsplit(row["url"]).path, 0) - 1) for row in rows)


def _event(planned: PlannedTrial, number: int, row: dict[str, Any]) -> EventRow:
    durations_ms = row["durations_ms"] or {}
    return EventRow(
        trial=planned.number,
        block=planned.block,
        kind=planned.configuration.kind,
        workers=planned.configuration.workers,
        bookmark=number,
        status=row["status"],
        reason=row["reason"],
        attempts=row["attempts"],
        queued_ns=row["queued_ns"],
        started_ns=row["started_ns"],
        done_ns=row["done_ns"],
        fetch_ms=durations_ms.get("fetch"),
        extract_ms=durations_ms.get("extract"),
        embed_ms=durations_ms.get("embed"),
        analyse_ms=durations_ms.get("analyse"),
    )


def _drain_s(done: list[EventRow]) -> float | None:
    ends_ns = [event.done_ns for event in done if event.done_ns is not None]
    return (max(ends_ns) - min(event.queued_ns for event in done)) / 1e9 if ends_ns else None


def _log_end(folder: Path) -> str:
    parts = []
    for log in (folder / "workers.log", folder / "origin.log", folder / "redis" / "redis.log"):
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            parts.append("\n".join([f"{log.name}:", *lines[-_LOG_LINES:]]))
    return "\n".join(parts)


def _limit_s(experiment: Experiment, planned: PlannedTrial) -> float:
    """Far longer than the slowest machine should need: what exceeds it hangs."""
    per_bookmark_s = experiment.origin_latency_ms / 1e3 + (60 if planned.configuration.kind == "spawn" else 5)
    return 60 + per_bookmark_s * experiment.bookmarks
