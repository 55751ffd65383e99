"""Queues the jobs of bookmarks, all in one trip to Redis, with the keys that RQ's `Queue.enqueue_many` leaves.

RQ makes a Job object for each and sends three commands a job (and asks for the server's version each time): 180 µs of
this process for a job, against 25 here. What RQ writes that is the same for all of them is asked from RQ, once.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from fuze_bench.pipeline.bookmarks import TASK_NAME, Bookmark
from fuze_bench.pipeline.settings import QUEUES, Settings

#: ARGV: what the key of a job begins with, how many strings all hashes have in common, these strings, and then for each
#: job its queue, id, data and description. KEYS: the set of queues, and each queue's list.
_SCRIPT = """
local prefix, common = ARGV[1], tonumber(ARGV[2])
local fields, lists = {}, {}
for i = 1, common do fields[i] = ARGV[2 + i] end
fields[common + 1], fields[common + 3], fields[common + 5] = 'origin', 'data', 'description'
for i = 3 + common, #ARGV, 4 do
  local id = ARGV[i + 1]
  fields[common + 2], fields[common + 4], fields[common + 6] = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  redis.call('HSET', prefix .. id, unpack(fields))
  lists[ARGV[i]] = lists[ARGV[i]] or {}
  table.insert(lists[ARGV[i]], id)
end
for name, ids in pairs(lists) do
  local key = KEYS[1] .. name
  redis.call('SADD', KEYS[2], key)
  for first = 1, #ids, 1000 do
    redis.call('RPUSH', key, unpack(ids, first, math.min(first + 999, #ids)))
  end
end
"""
_LONGEST_ARGUMENT_CHARS = 75
_encode = msgspec.json.Encoder().encode
#: What `zlib` writes at the beginning of what it does not compress, and of the only block there is.
_STORED = b"\x78\x01\x01"
_MOST_STORED_BYTES = 512


class JobWriter:
    """Writes the jobs of one process. Safe to use from threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._common: tuple[Any, ...] | None = None
        self._script: Any = None

    def write(self, client: redis.Redis, bookmarks: Sequence[Bookmark]) -> None:
        """Queue a job for each bookmark, behind what waits in its queue, in the order given; all of them or none.

        Raises redis.RedisError; then they may be queued all the same.
        """
        if self._common is None:
            self._script = client.register_script(_SCRIPT)
            self._common = self._common_fields(client)
        time = utcformat(now())
        common = (*self._common, "created_at", time, "enqueued_at", time)
        arguments: list[Any] = [Job.redis_job_namespace_prefix, len(common), *common]
        for bookmark in bookmarks:
            call = (bookmark.id, bookmark.url, bookmark.user_id)
            arguments += (
                bookmark.queue,
                bookmark.job_id,
                _as_zlib(_encode((TASK_NAME, None, call, {}))),
                _description(*call),
            )
        keys = (Queue.redis_queue_namespace_prefix, Queue.redis_queues_keys)
        self._script(keys=keys, args=arguments, client=client)

    def _common_fields(self, client: redis.Redis) -> tuple[Any, ...]:
        """Names and values of what the hashes of all jobs have in common, whenever they are made, as RQ writes them."""
        s = self._settings
        job = Queue(QUEUES[0], connection=client, serializer=JSONSerializer).create_job(
            TASK_NAME,
            timeout=s.job_timeout_s,
            result_ttl=s.result_ttl_s,
            failure_ttl=s.result_ttl_s,
            status=JobStatus.QUEUED,
        )
        own = ("data", "description", "origin", "created_at", "enqueued_at")
        fields = {name: value for name, value in job.to_dict().items() if name not in own}
        return tuple(part for field in fields.items() for part in field)


def _as_zlib(data: bytes) -> bytes:
    """What `zlib.decompress` makes `data` of, as RQ does. Compressing takes 10 to 50 µs and saves a short one 20 bytes."""
    length = len(data)
    if length > _MOST_STORED_BYTES:
        return zlib.compress(data)
    return b"%b%b%b%b%b" % (
        _STORED,
        length.to_bytes(2, "little"),
        (length ^ 0xFFFF).to_bytes(2, "little"),
        data,
        zlib.adler32(data).to_bytes(4, "big"),
    )


def _description(bookmark_id: int, url: str, user_id: int) -> str:
    """The call as `rq.utils.get_call_string` writes it, which looks at every argument."""
    shown = repr(url)
    if len(shown) > _LONGEST_ARGUMENT_CHARS:
        shown = shown[:_LONGEST_ARGUMENT_CHARS] + "..."
    return f"{TASK_NAME}({bookmark_id}, {shown}, {user_id})"
