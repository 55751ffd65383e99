"""What is wrong with a running system, and what to do: one finding for each thing that can be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from fuze_bench.errors import EmbeddingUnavailableError, FuzeError, SettingsError, one_line
from fuze_bench.pipeline import embed
from fuze_bench.pipeline.bookmarks import job_id, parse_job_id
from fuze_bench.pipeline.control import (
    drained_at,
    living_workers,
    noted_embedding,
    paused_queues,
    workers_by_queue,
)
from fuze_bench.pipeline.redis_server import OLDEST_VERSION, check_usable, connect, why_away
from fuze_bench.pipeline.settings import NO_MODEL, QUEUES, Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.task_queue import waiting_job_ids

#: Between the commit of a save and its job lie milliseconds: younger rows without a job are no finding.
_ON_ITS_WAY_S = 2.0


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at. `remedy` says what to do where it is not `ok`; `data` has the figures."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None
    data: dict[str, Any] = {}


def diagnose(settings: Settings) -> Iterator[Finding]:
    """Look at Redis, workers, queues, database, bookmarks, model and tokens; changes nothing but probe keys in Redis.

    Each finding comes as soon as it is there: the next may take its time. `settings.redis_url` None: none is set, and
    no private one runs. Nothing is raised: what cannot be reached is a finding, and what depends on it is left out.
    """
    found, client = _redis(settings)
    yield found
    live = computes_in = None
    if client is not None:
        try:
            yield from _workers(client)
            yield from _queues(client)
            live = waiting_job_ids(client)
            computes_in = noted_embedding(client)
        except redis.RedisError as error:
            yield _redis_fails(error)
    try:
        with Store(settings) as store:
            store.ping()
            yield Finding(name="database", ok=True, detail=f"{store.kind} answers")
            yield from _bookmarks(settings, store, live)
    except FuzeError as error:
        remedy = "check DATABASE_URL, the server behind it, and the disk"
        yield Finding(name="database", ok=False, detail=one_line(error), remedy=remedy)
    yield _model(settings, computes_in)
    yield from _tokens(settings)


def _redis(settings: Settings) -> tuple[Finding, redis.Redis | None]:
    if settings.redis_url is None:
        remedy = "set REDIS_URL, or start one with `fuze-bench up` or `fuze-bench worker`"
        return Finding(name="redis", ok=False, detail="none is set or running", remedy=remedy), None
    try:
        client = connect(settings.redis_url, connect_timeout_s=2, timeout_s=5)
        info = client.info()
        version = str(info["redis_version"])
        check_usable(client)
    except (redis.RedisError, FuzeError) as error:
        return _redis_fails(error), None
    is_old = tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION
    memory = {"version": version, "used_memory_bytes": info["used_memory"]}
    return Finding(
        name="redis",
        ok=not is_old,
        detail=f"version {version} answers and can be written to",
        remedy="use Redis 6.2 or newer" if is_old else None,
        data=memory,
    ), client


def _redis_fails(error: Exception) -> Finding:
    remedy = "check REDIS_URL, the server's log, its memory limit, and that it is no replica or cluster"
    return Finding(name="redis", ok=False, detail=why_away(error), remedy=remedy)


def _workers(client: redis.Redis) -> list[Finding]:
    workers = living_workers(client)
    listeners = workers_by_queue(workers)
    without = [name for name, number in listeners.items() if not number]
    drained_s = drained_at(client)
    detail = f"{len(workers)} alive; " + ", ".join(f"{name} {number}" for name, number in listeners.items())
    if drained_s is not None:
        detail += f"; drained {_ago(drained_s)}"
    schedulers = [name for name in QUEUES if client.exists(RQScheduler.get_locking_key(name))]
    return [
        Finding(
            name="workers",
            ok=not without,
            detail=detail,
            remedy=f"start one that listens to {', '.join(without)}: `fuze-bench worker`"
            if without
            else None,
            data={"alive": len(workers), "by_queue": listeners, "names": [worker.name for worker in workers]},
        ),
        Finding(
            name="scheduler",
            ok=len(schedulers) == len(QUEUES),
            detail=f"alive for {', '.join(schedulers)}"
            if schedulers
            else "none is alive: retries never fire",
            remedy=None
            if len(schedulers) == len(QUEUES)
            else "start a `fuze-bench worker`, or a stock one --with-scheduler",
            data={"queues": schedulers},
        ),
    ]


def _queues(client: redis.Redis) -> list[Finding]:
    depths, scheduled, oldest_s = {}, {}, None
    for name in QUEUES:
        queue = Queue(name, connection=client, serializer=JSONSerializer)
        depths[name] = queue.count
        scheduled[name] = client.zcard(queue.scheduled_job_registry.key)
        sent_s = _oldest_sent_s(queue)
        if sent_s is not None:
            oldest_s = sent_s if oldest_s is None else min(oldest_s, sent_s)
    paused = sorted(paused_queues(client))
    waiting = ", ".join(f"{name} {number}" for name, number in depths.items())
    age = f"; the oldest was sent {_ago(oldest_s)}" if oldest_s is not None else ""
    return [
        Finding(
            name="queues",
            ok=not paused,
            detail=f"waiting: {waiting}; scheduled: {sum(scheduled.values())}{age}"
            + (f"; paused: {', '.join(paused)}" if paused else ""),
            remedy=f"`fuze-bench resume {paused[0]}`" if paused else None,
            data={
                "waiting": depths,
                "scheduled": scheduled,
                "paused": paused,
                "oldest_enqueued_at": oldest_s,
            },
        )
    ]


def _oldest_sent_s(queue: Queue) -> float | None:
    """When the first in the queue was put there; RQ's own `get_jobs` would tidy up what it does not find."""
    for first in queue.get_job_ids(0, 1):
        with contextlib.suppress(NoSuchJobError):
            job = Job.fetch(first, connection=queue.connection, serializer=JSONSerializer)
            return None if job.enqueued_at is None else float(job.enqueued_at.timestamp())
    return None


def _bookmarks(settings: Settings, store: Store, live: frozenset[str] | None) -> list[Finding]:
    counts, failed = store.counts(), store.failed_by_reason()
    reasons = ", ".join(f"{reason} {number}" for reason, number in failed.items())
    findings = [
        Finding(
            name="bookmarks",
            ok=True,
            detail=", ".join(f"{status} {number}" for status, number in counts.items()),
            data={"by_status": counts},
        ),
        Finding(
            name="failed",
            ok=True,
            detail=reasons or "none",
            data={"by_reason": failed},
        ),
    ]
    by_itself = "a worker takes them up by itself; at once: `fuze-bench recover`"
    findings.append(_none_of("stuck", store.expired_leases(), "are held by a worker that is dead", by_itself))
    if live is not None:
        findings += _rows_and_jobs(settings, store, live)
    return findings


def _rows_and_jobs(settings: Settings, store: Store, live: frozenset[str]) -> list[Finding]:
    rows = store.unfinished()
    young_s = time.time() - _ON_ITS_WAY_S
    without_job = sum(
        row.queued_at < young_s and row.is_pending and job_id(row.id, row.generation) not in live
        for row in rows
    )
    known = {(row.id, row.generation) for row in rows}
    keys = {parse_job_id(name) for name in live} - {None}  # None: jobs of others
    without_row = len(keys - known)
    later = f"taken up after {settings.recover_after_s:g} s; at once: `fuze-bench recover`"
    in_vain = "they end by themselves when a worker gets to them"
    return [
        _none_of("rows without a job", without_job, "wait in the database and in no queue", later),
        _none_of("jobs without a row", without_row, "wait for bookmarks that are done or gone", in_vain),
    ]


def _none_of(name: str, number: int, what: str, remedy: str) -> Finding:
    """A finding about what there should be none of."""
    if not number:
        return Finding(name=name, ok=True, detail="none", data={"number": 0})
    return Finding(name=name, ok=False, detail=f"{number} {what}", remedy=remedy, data={"number": number})


def _model(settings: Settings, computes_in: str | None) -> Finding:
    try:
        detail = embed.locate_model(settings)
    except EmbeddingUnavailableError as error:
        remedy = "set FUZE_EMBEDDING_MODEL, or `off`; vectors are filled in once it is there"
        return Finding(name="model", ok=False, detail=one_line(error), remedy=remedy)
    if computes_in is not None and settings.embedding_model != NO_MODEL:
        detail += f"; here it computes in {computes_in}"
    return Finding(name="model", ok=True, detail=detail)


def _tokens(settings: Settings) -> list[Finding]:
    if settings.api_tokens is None:
        return []
    from fuze_bench.pipeline.api.tokens import Tokens  # only here: it brings what serves HTTP

    try:
        Tokens(settings.api_tokens)
    except SettingsError as error:
        remedy = "mend the file: until then the API lets nobody in"
        return [Finding(name="tokens", ok=False, detail=one_line(error), remedy=remedy)]
    return [Finding(name="tokens", ok=True, detail=f"{settings.api_tokens} can be used")]


def _ago(moment_s: float) -> str:
    age_s = max(0.0, time.time() - moment_s)
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= length_s:
            return f"{age_s / length_s:.1f} {unit} ago"
    return f"{age_s:.1f} s ago"
