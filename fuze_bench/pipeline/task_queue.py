"""RQ for the pipeline: enqueue, look up, and know when Redis is away."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import as_text

from fuze_bench.errors import InputError, QueueUnavailableError
from fuze_bench.pipeline.bookmarks import Bookmark, Mode, parse_job_id
from fuze_bench.pipeline.fallback import ThreadFallback
from fuze_bench.pipeline.job_states import JobHandle, JobState, state_of_job, state_of_row
from fuze_bench.pipeline.job_writer import JobWriter
from fuze_bench.pipeline.listeners import Listeners
from fuze_bench.pipeline.redis_server import (
    check_usable,
    connect,
    known_meaning,
    running_private_url,
    why_away,
    with_running_redis,
)
from fuze_bench.pipeline.settings import QUEUES, Settings
from fuze_bench.pipeline.store import Store

if TYPE_CHECKING:
    from fuze_bench.pipeline.service import BookmarkService

logger = logging.getLogger(__name__)

_NOT_BEGUN = (JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.DEFERRED)
_SHORTEST_RETRY_S = 0.05
_FILL_IN_JOB = "fill-in-embeddings"
_FILL_IN_TASK = "fuze_bench.pipeline.process.fill_in_embeddings_task"


class TaskQueue:
    """The pipeline's queues in Redis, and threads for when it is away.

    After Redis failed, no save asks it again: one that hangs would hold every save. Where there are threads to fall
    back to, another thread asks every `redis_retry_s` seconds whether it is back; else the next call after that time
    does. Safe to use from threads.
    """

    def __init__(self, settings: Settings, fallback: ThreadFallback | None = None) -> None:
        self._settings = settings
        self._fallback = fallback
        self._lock = threading.Lock()
        self._retry_at_s = 0.0
        self._is_away = False
        self._closed = threading.Event()
        self._listeners = Listeners()
        self._writer = JobWriter(settings)
        self._redis = self._connect(settings.redis_url)

    def close(self) -> None:
        """Wait for the return of Redis no longer. Safe to call twice."""
        self._closed.set()

    def dispatch(self, bookmarks: Sequence[Bookmark], *, again: bool = False) -> list[JobHandle]:
        """See to the processing of saved bookmarks: on their queues, else on threads, else by whoever recovers them.

        `again`: they had a job before, whose end is forgotten.
        """
        if not bookmarks:
            return []
        try:
            self.enqueue(bookmarks, again=again)
            return [_handle(bookmark, Mode.RQ) for bookmark in bookmarks]
        except QueueUnavailableError:
            return [_handle(bookmark, self._on_thread(bookmark)) for bookmark in bookmarks]

    def enqueue(self, bookmarks: Sequence[Bookmark], *, again: bool = False) -> None:
        """Put one job for each bookmark on its queue, in one round trip.

        Raises QueueUnavailableError if Redis is away; then it may have taken some, which a claim makes harmless.
        """
        client = self._client()
        try:
            if again:
                self._forget_ends(client, bookmarks)
            self._writer.write(client, bookmarks)
        except redis.RedisError as error:
            raise self._went_away(error) from error
        self._came_back()

    def ask_for_vectors(self) -> None:
        """Have texts embedded that were stored without a vector: one job, unless it waits or runs already.

        Raises QueueUnavailableError.
        """
        client = self._client()
        low, s = self._queue("low", client), self._settings
        try:
            if _FILL_IN_JOB not in low.get_job_ids() + low.started_job_registry.get_job_ids(cleanup=False):
                times = {
                    "job_timeout": s.job_timeout_s,
                    "result_ttl": s.result_ttl_s,
                    "failure_ttl": s.result_ttl_s,
                }
                low.enqueue(_FILL_IN_TASK, job_id=_FILL_IN_JOB, **times)
        except redis.RedisError as error:
            raise self._went_away(error) from error
        self._came_back()

    def forget(self, bookmarks: Sequence[Bookmark]) -> None:
        """Take the bookmarks' jobs out of the queues, unless they run already.

        Where Redis is away they stay there, and find nothing to do when their turn comes.
        """
        try:
            for bookmark in bookmarks:
                job = self._fetch(bookmark.job_id)
                if job is not None and job.get_status(refresh=False) in _NOT_BEGUN:
                    job.delete()
        except (QueueUnavailableError, redis.RedisError) as error:
            logger.info("jobs stay in Redis: %s", why_away(error))

    def waiting_job_ids(self) -> frozenset[str]:
        """Ids of all jobs that will run without anybody's help: in a queue's list, or scheduled.

        Raises QueueUnavailableError. Bookmarks that a thread here holds count, too.
        """
        client = self._client()
        try:
            found = waiting_job_ids(client)
        except redis.RedisError as error:
            raise self._went_away(error) from error
        self._came_back()
        return found

    def depths(self) -> dict[str, tuple[int, int]]:
        """For each queue, how many jobs wait, and how many are scheduled for later. Raises QueueUnavailableError."""
        client = self._client()
        queues = [self._queue(name, client) for name in QUEUES]
        try:
            with client.pipeline(transaction=False) as pipeline:
                for queue in queues:
                    pipeline.llen(queue.key)
                    pipeline.zcard(queue.scheduled_job_registry.key)
                found = pipeline.execute()
        except redis.RedisError as error:
            raise self._went_away(error) from error
        self._came_back()
        return dict(zip(QUEUES, zip(found[::2], found[1::2], strict=True), strict=True))

    @property
    def has_threads(self) -> bool:
        """Whether this process works on bookmarks itself when Redis is away."""
        return self._fallback is not None

    @property
    def uses_threads(self) -> bool:
        """Whether saves go to threads of this process now."""
        return self.has_threads and self._is_away

    def is_first(self, name: str, period_s: float) -> bool:
        """Whether this caller is the first of all processes to ask within `period_s`. Raises QueueUnavailableError."""
        client, key, period_ms = self._client(), f"fuze:first:{name}", max(1, int(period_s * 1000))
        try:
            first = client.set(key, "1", px=period_ms, nx=True)
            if not first and client.pttl(key) > period_ms:
                # Its end was set before the server's clock was set back: nobody would be first until then.
                first = client.set(key, "1", px=period_ms)
        except redis.RedisError as error:
            raise self._went_away(error) from error
        self._came_back()
        return bool(first)

    def warning(self, queue: str) -> str | None:
        """Why nothing happens to what waits on the queue, and what to do; None if a worker listens to it.

        Looked up at most once a second; while Redis is away there is nothing to say of workers.
        """
        try:
            return self._listeners.warning(queue, self._client)
        except QueueUnavailableError:
            return None
        except redis.RedisError as error:
            self._went_away(error)
            return None

    def mode_of(self, bookmark: Bookmark) -> Mode:
        """Who has the bookmark's present job in hand, as far as can be seen from here."""
        if self._fallback is not None and self._fallback.holds(bookmark.id):
            return Mode.THREAD
        try:
            return Mode.RQ if self._fetch(bookmark.job_id) is not None else Mode.DEFERRED
        except QueueUnavailableError:
            return Mode.DEFERRED

    def is_available(self) -> bool:
        """Whether Redis takes jobs now: it answers, and it can be written to."""
        return self.problem() is None

    def problem(self) -> str | None:
        """Why Redis takes no jobs now, in words that anybody may read; None if it does."""
        client = self._found_redis()
        if client is None:
            return "none is set or running"
        try:
            check_usable(client)
        except redis.RedisError as error:
            self._went_away(error)
            return known_meaning(error) or "the log says why"
        self._came_back(looked=True)
        return None

    def job_state(self, job_id: str, store: Store, user_id: int | None = None) -> JobState | None:
        """What is known of a job, from the bookmark's row and from RQ; None if neither knows it.

        Where a user is given, None as well unless there is a bookmark of this user to it.
        """
        key = parse_job_id(job_id)
        if key is None:
            return None
        bookmark = store.get(key[0], user_id)
        if bookmark is None and user_id is not None:
            return None
        try:
            job = self._fetch(job_id)
            result = None if job is None else job.return_value()
        except (QueueUnavailableError, redis.RedisError):
            job, result = None, None
        if bookmark is not None and bookmark.generation == key[1]:
            return state_of_row(job_id, bookmark, job, result)
        return None if job is None else state_of_job(job, result)

    def _on_thread(self, bookmark: Bookmark) -> Mode:
        if self._fallback is not None and self._fallback.submit(bookmark.id):
            return Mode.THREAD
        return Mode.DEFERRED

    def _connect(self, url: str | None) -> redis.Redis | None:
        s = self._settings
        if url is None:
            return None
        return connect(url, connect_timeout_s=s.redis_connect_timeout_s, timeout_s=s.redis_timeout_s)

    def _found_redis(self) -> redis.Redis | None:
        """The Redis of the settings; without one, a private server that somebody has started meanwhile."""
        if self._redis is None:
            self._redis = self._connect(running_private_url(self._settings.data_dir))
        return self._redis

    def _client(self) -> redis.Redis:
        with self._lock:
            if self._is_away and (self.has_threads or time.monotonic() < self._retry_at_s):
                raise QueueUnavailableError("Redis was away a moment ago")
        client = self._found_redis()
        if client is None:
            raise self._went_away(
                QueueUnavailableError("none is set or running; set REDIS_URL or use `fuze-bench up`")
            )
        return client

    def _went_away(self, error: Exception) -> QueueUnavailableError:
        with self._lock:
            first, self._is_away = not self._is_away, True
            self._retry_at_s = time.monotonic() + self._settings.redis_retry_s
        if first and self.has_threads:
            logger.warning("Redis is away (%s): falling back to threading", why_away(error))
            threading.Thread(target=self._wait_for_return, name="redis-return", daemon=True).start()
        return QueueUnavailableError(f"Redis is away: {why_away(error)}")

    def _wait_for_return(self) -> None:
        """Where saves are taken, none of them finds out whether Redis is back: one that hangs would hold it."""
        while not self._closed.wait(max(_SHORTEST_RETRY_S, self._settings.redis_retry_s)):
            if self.is_available():
                return

    def _came_back(self, *, looked: bool = False) -> None:
        if self.has_threads and not looked:
            return  # begun before Redis went away, or of what even one that cannot be used answers
        with self._lock:
            was_away, self._is_away = self._is_away, False
        if was_away and self.has_threads:
            logger.warning("Redis is back: new bookmarks go to RQ again")

    def _forget_ends(self, client: redis.Redis, bookmarks: Sequence[Bookmark]) -> None:
        for name in {bookmark.queue: None for bookmark in bookmarks}:
            queue = self._queue(name, client)
            ids = [bookmark.job_id for bookmark in bookmarks if bookmark.queue == name]
            for registry in (queue.failed_job_registry, queue.finished_job_registry):
                client.zrem(registry.key, *ids)

    def _queue(self, name: str, client: redis.Redis) -> Queue:
        return Queue(name, connection=client, serializer=JSONSerializer)

    def _fetch(self, job_id: str) -> Job | None:
        try:
            return Job.fetch(job_id, connection=self._client(), serializer=JSONSerializer)
        except NoSuchJobError:
            return None
        except redis.RedisError as error:
            raise self._went_away(error) from error


def waiting_job_ids(client: redis.Redis) -> frozenset[str]:
    """Ids of all jobs in a queue's list, or scheduled, read without changing anything. Raises redis.RedisError."""
    found: set[str] = set()
    for name in QUEUES:
        queue = Queue(name, connection=client, serializer=JSONSerializer)
        found.update(queue.get_job_ids())
        scheduled: Any = client.zrange(queue.scheduled_job_registry.key, 0, -1)
        found.update(as_text(member) for member in scheduled)
    return frozenset(found)


def check_queue(name: str) -> str:
    """`name` if it is one of the pipeline's queues. Raises InputError."""
    if name not in QUEUES:
        raise InputError(f"there is no queue {name!r}: use one of {', '.join(QUEUES)}", field="queue")
    return name


def _handle(bookmark: Bookmark, mode: Mode) -> JobHandle:
    return JobHandle(bookmark.job_id, bookmark.queue, mode)


@lru_cache(maxsize=1)
def _from_environment() -> BookmarkService:
    """This process's service, set up by the environment at the first use; its idle threads end by themselves."""
    from fuze_bench.pipeline.service import BookmarkService

    return BookmarkService(with_running_redis(Settings.from_mapping(os.environ)))


def _known(bookmark_id: int, url: str, user_id: int, queue_name: str | None = None) -> Bookmark:
    bookmark = _from_environment().store.get(bookmark_id, user_id)
    if bookmark is None or bookmark.url != url:
        raise InputError(
            f"user {user_id} has no bookmark {bookmark_id} of that URL: save it first", status=404
        )
    return (
        bookmark if queue_name is None else msgspec.structs.replace(bookmark, queue=check_queue(queue_name))
    )


def enqueue_bookmark_processing(bookmark_id: int, url: str, user_id: int, queue_name: str = "default") -> str:
    """Put the job for a saved bookmark on a queue; its id.

    Raises QueueUnavailableError if Redis is away, InputError for an unknown bookmark or queue.
    """
    bookmark = _known(bookmark_id, url, user_id, queue_name)
    _from_environment().queue.enqueue([bookmark])
    return bookmark.job_id


def process_bookmark_content_async(bookmark_id: int, url: str, user_id: int) -> JobHandle:
    """Have a saved bookmark processed in the background: by RQ, else on a thread of this process."""
    return _from_environment().queue.dispatch([_known(bookmark_id, url, user_id)])[0]


def is_rq_available() -> bool:
    """Whether Redis takes jobs now (not: whether it did at import)."""
    return _from_environment().queue.is_available()


def get_job_status(job_id: str) -> dict[str, Any] | None:
    """`id, status, queue, created_at, enqueued_at, started_at, ended_at, attempts, error, result` of a job,
    times in seconds since 1970 UTC; None if nobody knows it.
    """
    service = _from_environment()
    state = service.queue.job_state(job_id, service.store)
    return None if state is None else msgspec.to_builtins(state)
