"""What RQ users enqueue, and what a worker leaves in Redis of it: the same for every kind of worker."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import redis
import their_calls
from rq import Callback, Queue, Repeat, Retry
from rq.group import Group
from rq.job import Dependency
from rq.rate_limit import RateLimit


def in_a_fork(work: Callable[[], object]) -> int:
    """Run it in a process of its own, as a worker is: signals and alarms are not the tests' then. Its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def burst(
    worker_class: type, connection: redis.Redis, queues: Sequence[str] = ("high", "low"), **options: Any
) -> None:
    """Let a worker of that class do all that waits."""

    def work() -> None:
        worker = worker_class(list(queues), connection=connection, name="the-worker")
        worker.work(burst=True, logging_level="CRITICAL", **options)

    assert in_a_fork(work) == 0


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Queue], object]:
    return lambda queue: queue.enqueue(function, *args, job_id=f"job-{queue.count}", **options)


def _chain(queue: Queue) -> None:
    first = queue.enqueue(their_calls.add, 1, job_id="first")
    second = queue.enqueue(their_calls.add, 2, job_id="second", depends_on=first)
    queue.enqueue(their_calls.fail, job_id="third", depends_on=second)
    queue.enqueue(their_calls.add, 3, job_id="never", depends_on="third")
    queue.enqueue(their_calls.add, 4, job_id="still", depends_on=Dependency("third", allow_failure=True))


def _group(queue: Queue) -> None:
    calls = [Queue.prepare_data(their_calls.add, (n,), job_id=f"of-{n}") for n in range(3)]
    Group.create(connection=queue.connection, name="group").enqueue_many(queue, calls)


def _limited(queue: Queue) -> None:
    for n in range(4):
        queue.enqueue(their_calls.add, n, job_id=f"limited-{n}", rate_limit=RateLimit("key", 1))


def _deleted(queue: Queue) -> None:
    job = queue.enqueue(their_calls.nothing, job_id="deleted")
    queue.connection.delete(job.key)
    queue.enqueue(their_calls.nothing, job_id="there")


def _unreadable(queue: Queue) -> None:
    job = queue.enqueue(their_calls.nothing, job_id="unreadable")
    queue.connection.hset(job.key, "data", b"nonsense")


def _in_front(queue: Queue) -> None:
    queue.enqueue(their_calls.add, 1, job_id="behind")
    queue.enqueue(their_calls.add, 2, job_id="in-front", at_front=True)


def _later(queue: Queue) -> None:
    queue.enqueue_in(timedelta(hours=1), their_calls.add, 1, job_id="later")
    queue.enqueue(their_calls.add, 2, job_id="now")


def _many(queue: Queue) -> None:
    queue.enqueue_many([Queue.prepare_data(their_calls.add, (n,), job_id=f"one-of-{n}") for n in range(250)])


SCENARIOS: dict[str, Callable[[Queue], object]] = {
    "a value": _call(their_calls.add, 2, b=3),
    "no value": _call(their_calls.nothing),
    "a coroutine": _call(their_calls.later, 5),
    "a method": _call(their_calls.Counter(4).up, 2),
    "many": _many,
    "an error": _call(their_calls.fail),
    "an exit": _call(their_calls.leave),
    "a function that is not there": lambda queue: queue.enqueue("their_calls.missing", job_id="missing"),
    "a module that is not there": lambda queue: queue.enqueue("no.such.module", job_id="missing"),
    "data that cannot be read": _unreadable,
    "a value that cannot be stored": _call(their_calls.unserialisable),
    "its own job": _call(their_calls.who),
    "kept for ever": _call(their_calls.add, 1, result_ttl=-1),
    "kept for five minutes": _call(their_calls.add, 1, result_ttl=300),
    "not kept": _call(their_calls.add, 1, result_ttl=0),
    "good for an hour": _call(their_calls.add, 1, ttl=3600),
    "a failure kept for an hour": _call(their_calls.fail, failure_ttl=3600),
    "no time limit": _call(their_calls.add, 1, job_timeout=-1),
    "too slow": _call(their_calls.sleep, 30, job_timeout=1),
    "retries": _call(their_calls.fail, retry=Retry(max=2)),
    "a retry later": _call(their_calls.fail, retry=Retry(max=2, interval=[600, 60])),
    "asks to be tried again": _call(their_calls.again, 2),
    "a success callback": _call(their_calls.add, 1, on_success=Callback(their_calls.note_success)),
    "a failure callback": _call(their_calls.fail, on_failure=Callback(their_calls.note_failure)),
    "repeats": _call(their_calls.add, 1, repeat=Repeat(times=2)),
    "repeats later": _call(their_calls.add, 1, repeat=Repeat(times=1, interval=600)),
    "depends on each other": _chain,
    "a group": _group,
    "limited": _limited,
    "deleted": _deleted,
    "in front": _in_front,
    "later": _later,
    "unique": _call(their_calls.add, 1, unique=True),
    "metadata": _call(their_calls.who, meta={"mine": 1}),
}

#: Fields that say which process it was.
_OWN = (b"pid", b"ip_address")
_VOLATILE = (
    rb"[0-9a-f]{32}",
    rb"\d{4}-\d\d-\d\dT[\d:.]+Z",
    rb"\d{10}\.\d+",
)


def state(connection: redis.Redis) -> dict[str, Any]:
    """Everything in Redis, without what no two runs share: times, ids of executions, and how long something took."""
    return {_plain(key).decode(): _value(connection, key) for key in sorted(connection.keys())}


def _value(connection: redis.Redis, key: bytes) -> Any:
    kind = connection.type(key).decode()
    ttl_s = connection.ttl(key)
    # To the hundred: on a busy machine one of two workers takes some seconds longer.
    lasts = ttl_s if ttl_s < 0 else 100 * round(ttl_s / 100)
    now_s = time.time()
    match kind:
        case "hash":
            content: Any = {
                field.decode(): _field(field, value) for field, value in connection.hgetall(key).items()
            }
        case "list":
            content = [_plain(each) for each in connection.lrange(key, 0, -1)]
        case "set":
            content = sorted(_plain(each) for each in connection.smembers(key))
        case "zset":
            content = [
                (_plain(member), 100 * round((score - now_s) / 100) if score < 1e12 else score)
                for member, score in sorted(connection.zrange(key, 0, -1, withscores=True))
            ]
        case "stream":
            content = [
                {field.decode(): _field(field, value) for field, value in entry.items()}
                for _, entry in connection.xrange(key)
            ]
        case _:
            content = _plain(connection.get(key) or b"")
    return kind, lasts, content


def _field(field: bytes, value: bytes) -> object:
    if field in (b"exc_info", b"exc_string", b"total_working_time", *_OWN):
        return "something"
    return _plain(value)


def _plain(value: bytes) -> bytes:
    for pattern in _VOLATILE:
        value = re.sub(pattern, b"*", value)
    return value
