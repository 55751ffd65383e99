"""`/metrics` for Prometheus: what workers counted in Redis, and how queues, workers and bookmarks stand now."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar, cast

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from rq import Queue
from rq.serializers import JSONSerializer
from starlette.requests import Request
from starlette.responses import Response

from fuze_bench.errors import FuzeError, QueueUnavailableError
from fuze_bench.pipeline.bookmarks import Mode, Reason
from fuze_bench.pipeline.control import living_workers, workers_by_queue
from fuze_bench.pipeline.measurements import KEY, SAVE_TO_STORED_BUCKETS_S, STAGE_BUCKETS_S
from fuze_bench.pipeline.redis_server import cannot_be_used, quick_client
from fuze_bench.pipeline.retries import RETRIED
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import QUEUES, Settings
from fuze_bench.pipeline.store import Store

#: How long a scrape waits for Redis and the database, and for how long what they said is shown again.
_PATIENCE_S = 2.0
_KEPT_S = 1.0
STAGES = ("fetch", "extract", "embed", "analyse")
#: What can come of a page that is sent to be saved; `failed`: the database could not be used.
SAVE_RESULTS = ("saved", "duplicate", "refused", "failed")

Value = TypeVar("Value")


class _InRedis(NamedTuple):
    """Fields of the hash of counts, jobs by (queue, state), workers by queue."""

    counts: dict[str, int]
    jobs: dict[tuple[str, ...], int]
    workers: dict[str, int]


class _InDatabase(NamedTuple):
    """Bookmarks by status, and seconds since the oldest that waits was due, by queue."""

    bookmarks: dict[str, int]
    oldest_s: dict[str, float]


class Metrics:
    """All that `/metrics` shows of one API process."""

    def __init__(self, service: BookmarkService) -> None:
        self._service = service
        self._redis = _Reading(_RedisReader(service.settings))
        self._database = _Reading(lambda: _read_database(service.store))

    async def families(self) -> list[Metric]:
        """Every family; those whose source does not answer in time are left out, and its `up` is 0."""
        in_redis, in_database = await asyncio.gather(self._redis.value(), self._database.value())
        result = [
            _gauge("fuze_redis_up", "Whether Redis answers.", float(in_redis is not None)),
            _gauge("fuze_database_up", "Whether the database answers.", float(in_database is not None)),
            _gauge(
                "fuze_fallback_active",
                "Whether this process has saves processed on threads, because Redis is away.",
                float(self._service.queue.uses_threads),
            ),
            _gauge(
                "fuze_fallback_bookmarks",
                "Bookmarks that wait or are at work on threads of this process.",
                float(self._service.fallback.size()),
            ),
            _counter("fuze_saves", "Pages sent to be saved, by what came of it in this process.", ["result"],
                     {(result,): self._service.save_results[result] for result in SAVE_RESULTS}),
        ]  # fmt: skip
        if in_redis is not None:
            result += _of_redis(in_redis)
        if in_database is not None:
            result += _of_database(in_database)
        return result


async def metrics(request: Request) -> Response:
    """Everything, in the format that the scraper prefers."""
    families = await cast(Metrics, request.app.state.metrics).families()
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_Families(families)), headers={"Content-Type": content_type})


class _Families(Collector):
    """What has been collected, as the library's encoders want it."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Reading(Generic[Value]):
    """Something that is read on a thread, one at a time, and kept for a moment.

    A source that hangs holds its thread, but neither a scrape (for longer than its patience) nor the process's end.
    """

    def __init__(self, read: Callable[[], Value]) -> None:
        self._read = read
        self._running: concurrent.futures.Future[Value | None] | None = None
        self._began_s = 0.0

    async def value(self) -> Value | None:
        """What was read within the last moment; None if the source fails or is too slow."""
        running = self._running
        if running is None or (running.done() and time.monotonic() - self._began_s > _KEPT_S):
            self._running = running = concurrent.futures.Future()
            self._began_s = time.monotonic()
            threading.Thread(target=self._run, args=(running,), name="metrics", daemon=True).start()
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(running)), _PATIENCE_S)
        except TimeoutError:
            return None

    def _run(self, running: concurrent.futures.Future[Value | None]) -> None:
        try:
            running.set_result(self._read())
        except FuzeError:
            running.set_result(None)
        except Exception as error:  # noqa: BLE001 - whoever waits for it raises it
            running.set_exception(error)


class _RedisReader:
    """Reads with plain commands: RQ's own counts first clean up, which fails jobs and may run their callbacks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: redis.Redis | None = None

    def __call__(self) -> _InRedis:
        self._client = self._client or quick_client(self._settings)
        if self._client is None:
            raise QueueUnavailableError("no Redis is set or running")
        try:
            return self._read(self._client)
        except redis.RedisError as error:
            raise cannot_be_used(error) from error

    def _read(self, client: redis.Redis) -> _InRedis:
        with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(KEY)
            for name in QUEUES:
                queue = Queue(name, connection=client, serializer=JSONSerializer)
                pipe.llen(queue.key)
                pipe.zcard(queue.scheduled_job_registry.key)
                pipe.zcount(queue.started_job_registry.key, time.time(), "+inf")
            fields, *numbers = pipe.execute()
        counts = {name.decode(): int(number) for name, number in fields.items()}
        keys: list[tuple[str, ...]] = [
            (name, state) for name in QUEUES for state in ("waiting", "scheduled", "started")
        ]
        return _InRedis(
            counts, dict(zip(keys, numbers, strict=True)), workers_by_queue(living_workers(client))
        )


def _read_database(store: Store) -> _InDatabase:
    return _InDatabase(store.counts(), store.oldest_due())


def _of_redis(found: _InRedis) -> Iterator[Metric]:
    yield _gauges("fuze_jobs", "Jobs in Redis: waiting for a worker, scheduled for later, or started.",
                  ["queue", "state"], found.jobs)  # fmt: skip
    yield _gauges("fuze_workers", "Workers alive that listen to the queue.", ["queue"],
                  {(queue,): number for queue, number in found.workers.items()})  # fmt: skip
    counts = found.counts
    ways = [(queue, str(mode)) for queue in QUEUES for mode in (Mode.RQ, Mode.THREAD)]
    yield _counter(
        "fuze_bookmarks_processed",
        "Bookmarks processed and stored, by queue and by who did it: an RQ worker or a thread.",
        ["queue", "mode"],
        {way: counts.get("processed|" + "|".join(way), 0) for way in ways},
    )
    yield _counter(
        "fuze_bookmarks_failed",
        "Times that processing failed for good, by reason; a text that was stored before stays.",
        ["reason"],
        {(reason,): counts.get(f"failed|{reason}", 0) for reason in Reason},
    )
    yield _counter(
        "fuze_bookmarks_retried",
        "Failures after which the bookmark was to be tried again, by reason.",
        ["reason"],
        {(reason,): counts.get(f"retried|{reason}", 0) for reason in Reason if reason in RETRIED},
    )
    yield _histogram(
        "fuze_save_to_stored_seconds",
        "Seconds from the save (or a wish to process it again) to the stored result, of processed bookmarks; what was "
        "tried again waits on purpose, and is included. Wall clock, so hosts must agree on the time.",
        ["queue", "mode"],
        {way: _buckets(counts, "save_to_stored|" + "|".join(way), SAVE_TO_STORED_BUCKETS_S) for way in ways},
    )
    yield _histogram(
        "fuze_stage_seconds",
        "Seconds that a bookmark spent in a stage, failed ones included; what a batch shares is divided evenly.",
        ["stage"],
        {(stage,): _buckets(counts, f"stage|{stage}", STAGE_BUCKETS_S) for stage in STAGES},
    )


def _of_database(found: _InDatabase) -> Iterator[Metric]:
    yield _gauges("fuze_bookmarks", "Bookmarks by status.", ["status"],
                  {(status,): number for status, number in found.bookmarks.items()})  # fmt: skip
    yield _gauges(
        "fuze_oldest_waiting_seconds",
        "Seconds that the oldest waiting bookmark of the queue has been due for; 0 if none waits.",
        ["queue"],
        {(queue,): found.oldest_s.get(queue, 0.0) for queue in QUEUES},
    )


def _buckets(
    counts: Mapping[str, int], name: str, bounds_s: Sequence[float]
) -> tuple[list[tuple[str, float]], float]:
    """(upper bound, how many were within it) for each bound, and the sum in seconds."""
    cumulated, total = [], 0
    for bound in (*map(str, bounds_s), "+Inf"):
        total += counts.get(f"{name}|{bound}", 0)
        cumulated.append((str(float(bound)) if bound != "+Inf" else bound, float(total)))
    return cumulated, counts.get(f"{name}|sum", 0) / 1e6


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Mapping[tuple[str, ...], tuple[list[tuple[str, float]], float]],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, (buckets, total_s) in values.items():
        family.add_metric(label_values, buckets, total_s)
    return family
