"""Jobs written many at a time are RQ's own: the same keys, the same call, in the order saved."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest
import redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from fuze_bench.pipeline.bookmarks import TASK_NAME, Bookmark, Status
from fuze_bench.pipeline.job_writer import JobWriter
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.settings import Settings

SETTINGS = Settings(job_timeout_s=601, result_ttl_s=302)
#: When something was written differs from one time to the next.
TIMES = (b"created_at", b"enqueued_at")


@pytest.fixture
def client(private_redis: PrivateRedis) -> Any:
    with connect(private_redis.url) as client:
        client.flushall()
        yield client


def bookmark(number: int, queue: str = "default", url: str = "https://example.org/é") -> Bookmark:
    return Bookmark(
        id=number, user_id=7, url=url, canonical_url=url, status=Status.PENDING, queue=queue, generation=2,
        attempts=0, times_saved=1, created_at=0.0,
    )  # fmt: skip


def by_rq(client: redis.Redis, bookmarks: list[Bookmark]) -> None:
    for name in ("high", "default", "low"):
        Queue(name, connection=client, serializer=JSONSerializer).enqueue_many(
            Queue.prepare_data(
                TASK_NAME,
                (each.id, each.url, each.user_id),
                job_id=each.job_id,
                timeout=SETTINGS.job_timeout_s,
                result_ttl=SETTINGS.result_ttl_s,
                failure_ttl=SETTINGS.result_ttl_s,
            )
            for each in bookmarks
            if each.queue == name
        )


def everything(client: redis.Redis) -> dict[bytes, Any]:
    """All keys with what they hold and whether they expire, without times; the call as Python has it."""
    found: dict[bytes, Any] = {}
    for key in client.keys("*"):
        kind = client.type(key)
        if kind == b"hash":
            fields = client.hgetall(key)
            assert all(fields[name].endswith(b"Z") for name in TIMES)
            call = msgspec.json.decode(zlib.decompress(fields[b"data"]))
            value: Any = {
                **{name: value for name, value in fields.items() if name not in TIMES},
                b"data": call,
            }
        else:
            value = client.lrange(key, 0, -1) if kind == b"list" else client.smembers(key)
        found[key] = (value, client.ttl(key))
    return found


def test_they_leave_the_keys_that_rq_leaves(client: redis.Redis) -> None:
    urls = [
        "https://example.org/é",
        "https://example.org/'\"\\",
        "https://example.org/" + "long" * 40,
        "https://example.org/" + "0123456789" * 90,
    ]
    bookmarks = [
        bookmark(n, queue, url)
        for n, (queue, url) in enumerate(((q, u) for q in ("low", "default") for u in urls), start=1)
    ]
    by_rq(client, bookmarks)
    expected = everything(client)
    client.flushall()
    JobWriter(SETTINGS).write(client, bookmarks)
    found = everything(client)
    assert found == {key: value for key, value in expected.items() if key != b"rq:queue:high"} != {}


def test_more_than_a_script_takes_at_once_keep_their_order(client: redis.Redis) -> None:
    JobWriter(SETTINGS).write(client, [bookmark(n) for n in range(1, 2_502)])
    ids = client.lrange("rq:queue:default", 0, -1)
    assert ids == [b"bookmark-%d-2" % n for n in range(1, 2_502)]


def test_rq_runs_them(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(
        "fuze_bench.pipeline.process.process_bookmark_content_task", lambda *a: called.append(a)
    )
    JobWriter(SETTINGS).write(client, [bookmark(1), bookmark(2)])
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    SimpleWorker([queue], connection=client, serializer=JSONSerializer).work(
        burst=True, logging_level="ERROR"
    )
    assert called == [(n, "https://example.org/é", 7) for n in (1, 2)]
    job = Job.fetch("bookmark-1-2", connection=client, serializer=JSONSerializer)
    assert (job.is_finished, job.timeout, job.result_ttl) == (True, 601, 302)
