"""One configuration once: set up, warm up, save a backlog, wait until all of it is done, record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from fuze_bench.errors import FuzeError, LabError, one_line
from fuze_bench.lab.results import FAILED, OK, EventRow, TrialRow
from fuze_bench.lab.services import RunningOrigin, RunningWorkers, running_origin, running_workers
from fuze_bench.lab.spec import Experiment, PlannedTrial
from fuze_bench.pipeline.bookmarks import Mode, Status
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child

_USER_ID = 1
_POLL_S = 0.05
_LOG_LINES = 20
_STAMPS = ("id", "url", "status", "reason", "attempts", "queued_ns", "started_ns", "done_ns", "durations_ms")
_DONE = (Status.PROCESSED, Status.FAILED)

#: Told how many bookmarks of how many are done.
Progress = Callable[[int, int], None]


@dataclass
class _Recording:
    """What is known of the trial so far; it becomes rows however the trial ends."""

    planned: PlannedTrial
    started_at_s: float
    workers_ready_s: float | None = None
    events: list[EventRow] = field(default_factory=list)
    duplicated: int = 0
    problem: str | None = None
    origin: Child | None = None
    workers: Child | None = None
    logs: dict[str, str] = field(default_factory=dict)


def run_trial(
    planned: PlannedTrial,
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    *,
    on_progress: Progress | None = None,
    timeout_s: float | None = None,
) -> tuple[TrialRow, list[EventRow]]:
    """Run one trial in the fresh `folder`, on an empty Redis and an empty database of its own.

    The workers are ready and have each had about one bookmark (of other pages, not recorded) before the backlog is
    saved. Whatever goes wrong, a worker's death or running out of `timeout_s` included, makes the trial `failed`
    with the end of the logs; only Ctrl-C and programming errors are raised.
    """
    recording = _Recording(planned, time.time())
    own = replace(settings, data_dir=folder, redis_url=None, database_url=None)
    limit_s = _limit_s(experiment, planned) if timeout_s is None else timeout_s
    try:
        with ExitStack() as parts:
            _measure(recording, experiment, own, folder, parts, on_progress, limit_s)
    except FuzeError as error:
        recording.problem = recording.problem or one_line(error)
    _check_exit_codes(recording)
    return _trial_row(recording, folder), recording.events


def _measure(
    recording: _Recording,
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    parts: ExitStack,
    on_progress: Progress | None,
    limit_s: float,
) -> None:
    server = parts.enter_context(PrivateRedis(folder / "redis"))
    settings = replace(settings, redis_url=server.url)
    service = parts.enter_context(BookmarkService(settings))
    origin = parts.enter_context(
        running_origin(
            folder, latency_ms=experiment.origin_latency_ms, seed=experiment.seed, pages=experiment.pages
        )
    )
    recording.origin = origin.child
    start_s = time.monotonic()
    workers = parts.enter_context(running_workers(settings, recording.planned.configuration, folder))
    recording.workers, recording.workers_ready_s = workers.child, time.monotonic() - start_s
    warm_up_count = recording.planned.configuration.workers
    _save(service, origin, range(experiment.bookmarks, experiment.bookmarks + warm_up_count))
    _wait_until_done(service, workers, warm_up_count, None, limit_s)
    try:
        _save(service, origin, range(experiment.bookmarks))
        _wait_until_done(
            service, workers, warm_up_count + experiment.bookmarks, on_progress, limit_s, warm_up_count
        )
    finally:
        _record(recording, service, origin, warm_up_count)


def _save(service: BookmarkService, origin: RunningOrigin, pages: range) -> None:
    """Save one bookmark a page, all at once. Raises LabError unless every one went to RQ."""
    results = service.save([service.check(user_id=_USER_ID, url=f"{origin.url}/page/{n}") for n in pages])
    astray = [result.job.mode for result in results if result.job.mode is not Mode.RQ]
    if astray:
        raise LabError(f"{len(astray)} bookmarks went to {astray[0]} and not to RQ: see the log of Redis")


def _wait_until_done(
    service: BookmarkService,
    workers: RunningWorkers,
    total: int,
    on_progress: Progress | None,
    limit_s: float,
    already_done: int = 0,
) -> None:
    """Wait on the store. Raises LabError when a worker dies or the time is up."""
    deadline_s = time.monotonic() + limit_s
    while True:
        counts = service.store.counts()
        done = sum(counts[status] for status in _DONE)
        if on_progress is not None:
            on_progress(done - already_done, total - already_done)
        if problem := workers.problem():
            raise LabError(problem)
        if done >= total:
            return
        if time.monotonic() > deadline_s:
            raise LabError(f"{total - done} of {total} bookmarks were not done after {limit_s:g} s")
        time.sleep(_POLL_S)


def _record(
    recording: _Recording, service: BookmarkService, origin: RunningOrigin, warm_up_count: int
) -> None:
    planned = recording.planned
    rows = service.store.rows(*_STAMPS)[warm_up_count:]
    for number, row in enumerate(rows, start=1):
        durations_ms = row["durations_ms"] or {}
        recording.events.append(
            EventRow(
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
        )
    hits = origin.hits()
    recording.duplicated = sum(max(0, hits.get(urlsplit(row["url"]).path, 0) - 1) for row in rows)


def _check_exit_codes(recording: _Recording) -> None:
    """A part that ends badly when it is told to stop spoils the trial."""
    for child in (recording.workers, recording.origin):
        if child is not None and child.returncode() != 0 and recording.problem is None:
            recording.problem = f"{child.name} ended with code {child.returncode()} when told to stop"


def _trial_row(recording: _Recording, folder: Path) -> TrialRow:
    planned, events = recording.planned, recording.events
    done = [event for event in events if event.status in _DONE]
    drain_s = _drain_s(done) if recording.problem is None else None
    return TrialRow(
        trial=planned.number,
        block=planned.block,
        kind=planned.configuration.kind,
        workers=planned.configuration.workers,
        status=OK if recording.problem is None else FAILED,
        problem=recording.problem,
        log_end=None if recording.problem is None else _log_end(folder),
        started_at_s=recording.started_at_s,
        workers_ready_s=recording.workers_ready_s,
        drain_s=drain_s,
        throughput_per_s=len(done) / drain_s if drain_s else None,
        processed=sum(event.status == Status.PROCESSED for event in done),
        failed=sum(event.status == Status.FAILED for event in done),
        lost=len(events) - len(done),
        duplicated=recording.duplicated,
        workers_exit_code=recording.workers.returncode() if recording.workers else None,
        origin_exit_code=recording.origin.returncode() if recording.origin else None,
    )


def _drain_s(done: list[EventRow]) -> float | None:
    ends_ns = [event.done_ns for event in done if event.done_ns is not None]
    return (max(ends_ns) - min(event.queued_ns for event in done)) / 1e9 if ends_ns else None


def _log_end(folder: Path) -> str:
    logs = [folder / "workers.log", folder / "origin.log", folder / "redis" / "redis.log"]
    parts = []
    for log in logs:
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            parts.append("\n".join([f"{log.name}:", *lines[-_LOG_LINES:]]))
    return "\n".join(parts)


def _limit_s(experiment: Experiment, planned: PlannedTrial) -> float:
    """Far longer than the slowest machine should need: what exceeds it hangs."""
    per_bookmark_s = experiment.origin_latency_ms / 1e3 + (60 if planned.configuration.kind == "spawn" else 5)
    return 60 + per_bookmark_s * experiment.bookmarks
