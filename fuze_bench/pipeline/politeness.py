"""How often one host is asked, over all workers together; a host that has had its share never holds up a worker.

A job whose host may not be asked now reserves the host's next free moment and comes back then (by RQ's scheduler), so
that the worker goes on with other hosts. A host is the one in the bookmark's address; where it redirects to is not
looked at.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import ada_url
import redis

from fuze_bench.errors import one_line
from fuze_bench.pipeline.redis_server import quick_client
from fuze_bench.pipeline.settings import Settings

logger = logging.getLogger(__name__)

#: A worker that was killed holds its place for so long beyond the longest fetch.
_GRACE_S = 30.0

# Keys: [1] who asks now (until when), [2] the first moment that nobody has reserved, [3] who has reserved which.
# Arguments: bookmark, place, most at once, interval, longest fetch. Times in ms, by the server's clock: one for all hosts.
# Answers 0 if the host may be asked now, else how long to wait for the moment that is now reserved.
_ENTER = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, place = ARGV[1], ARGV[2]
local most, interval, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local next_free = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), now)
local reserved = tonumber(redis.call('HGET', KEYS[3], id) or '-1')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local is_turn = reserved >= 0 and reserved <= now or reserved < 0 and next_free <= now
if is_turn and (most == 0 or redis.call('ZCARD', KEYS[1]) < most) then
  redis.call('HDEL', KEYS[3], id)
  redis.call('ZADD', KEYS[1], now + longest, place)
  redis.call('PEXPIRE', KEYS[1], longest)
  if reserved < 0 then redis.call('SET', KEYS[2], now + interval, 'PX', interval + 60000) end
  return 0
end
if reserved <= now then
  reserved = next_free <= now and now + math.max(interval, 1) or next_free
  redis.call('HSET', KEYS[3], id, reserved)
  redis.call('SET', KEYS[2], reserved + interval, 'PX', reserved - now + interval + 60000)
  redis.call('PEXPIRE', KEYS[3], reserved - now + 3600000)
end
return reserved - now
"""


class Turn(NamedTuple):
    """Whether a host may be asked: after `wait_s` seconds it may be tried again, 0 is now; then `place` is held."""

    wait_s: float = 0.0
    host: str | None = None
    place: str = ""
    """Of this delivery of the job alone: a double that ends must not give away the other's."""


class Hosts:
    """The hosts' turns, kept in Redis for all workers. Safe to use from threads, and after a fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._longest_ms = int((settings.fetch_total_s + _GRACE_S) * 1000)
        self._redis: redis.Redis | None = None

    def enter(self, url: str, bookmark_id: int) -> Turn:
        """Whether the bookmark's host may be asked now; then `leave` must follow."""
        host = _limited_host(url, self._settings)
        if host is None:
            return Turn()
        s = self._settings
        place = uuid.uuid4().hex
        interval_ms = int(s.host_interval_s * 1000)
        try:
            self._redis = self._redis or quick_client(s)
            if self._redis is None:
                return Turn()
            wait_ms = self._redis.eval(
                _ENTER, 3, *_keys(host), bookmark_id, place, s.host_fetches, interval_ms, self._longest_ms
            )
        except redis.RedisError as error:
            # The job is here, and the queue it came from is not: better to do it than to lose the time.
            logger.warning("host %s is asked without waiting for its turn: %s", host, one_line(error))
            return Turn()
        return Turn(int(wait_ms) / 1000, host, place)

    def leave(self, turn: Turn) -> None:
        """The fetch is over: the next may begin. If Redis cannot be told, the place is free after the longest fetch."""
        if turn.host is None or self._redis is None:
            return
        try:
            self._redis.zrem(_keys(turn.host)[0], turn.place)
        except redis.RedisError as error:
            logger.warning("host %s is not told that its fetch is over: %s", turn.host, one_line(error))


class LocalHosts:
    """The same for the threads of this process alone, which wait for their turn: for when Redis is away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._running: dict[str, int] = {}
        self._next_free_s: dict[str, float] = {}

    @contextmanager
    def turn(self, url: str) -> Iterator[None]:
        """Wait until the host may be asked, and hold its place during the block."""
        host = _limited_host(url, self._settings)
        if host is None:
            yield
            return
        with self._changed:
            while (wait_s := self._wait_s(host)) is not None:
                self._changed.wait(wait_s)
            now_s = time.monotonic()
            self._next_free_s = {h: at_s for h, at_s in self._next_free_s.items() if at_s > now_s}
            self._next_free_s[host] = now_s + self._settings.host_interval_s
            self._running[host] = self._running.get(host, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._running[host] -= 1
                if not self._running[host]:
                    del self._running[host]
                self._changed.notify_all()

    def _wait_s(self, host: str) -> float | None:
        """How long to wait before looking again; None: it is this one's turn."""
        most = self._settings.host_fetches
        if most and self._running.get(host, 0) >= most:
            return self._settings.fetch_total_s
        left_s = self._next_free_s.get(host, 0.0) - time.monotonic()
        return left_s if left_s > 0 else None


def _limited_host(url: str, settings: Settings) -> str | None:
    """The host whose turns count for this address; None where there is no limit."""
    if not settings.host_fetches and not settings.host_interval_s:
        return None
    try:
        parsed = ada_url.URL(url)
    except ValueError:
        return None  # it cannot be fetched either, which says why
    if parsed.host in settings.host_unlimited or parsed.hostname in settings.host_unlimited:
        return None
    return str(parsed.hostname)


def _keys(host: str) -> list[str]:
    return [f"fuze:host:{host}:{name}" for name in ("running", "next", "reserved")]
