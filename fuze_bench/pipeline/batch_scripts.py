"""Claiming and finishing RQ's jobs many at a time: server-side scripts that leave the keys which RQ's workers leave.

RQ 3.0 spends some twenty commands on a job, one after another. A script does the same writes for a batch in one round
trip, and nobody sees half of them.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import redis
from rq.defaults import RQ_KEY_PREFIX

#: What a claim begins with: the names of keys, whatever RQ's prefix is.
_NAMES = """
local prefix, worker = ARGV[1], ARGV[2]
local worker_executions = prefix .. ':worker:' .. worker .. ':executions'
local function job_key(id) return prefix .. ':job:' .. id end
local function execution_key(id, execution) return prefix .. ':execution:' .. id .. ':' .. execution end
local function queue_key(name) return prefix .. ':queue:' .. name end
"""

#: Takes jobs from the queues, in their order, and marks them as started by this worker, as `prepare_execution` and
#: `prepare_job_execution` of RQ's workers do. Near the end of a backlog it takes less than it may, so that the last
#: jobs are shared by all workers (guided self-scheduling, Polychronopoulos and Kuck 1987).
_CLAIM = (
    _NAMES
    + """
local limit, strategy, now_iso, now_s = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local incarnation, interval_s, default_timeout_s = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local in_hand, popped_queue, popped_id, described = tonumber(ARGV[10]), ARGV[12], ARGV[13], ARGV[14] == '1'
local next_serial = tonumber(ARGV[15])
local queues = {}
for i = 16, #ARGV do queues[#queues + 1] = ARGV[i] end
local unknown = redis.call('SCARD', worker_executions) - in_hand

local out, longest_s = {}, 0
local in_progress, executions = {}, {worker_executions}
local function take(name, id)
  local key = job_key(id)
  local job = redis.call('HMGET', key, 'data', 'timeout', 'result_ttl', 'success_callback_name', 'repeats_left',
    'rate_limit_key', 'webhooks', 'dependency_ids', 'ttl')
  if not job[1] then return end
  local execution = incarnation .. string.format('%016x', next_serial + #out)
  local timeout_s = tonumber(job[2]) or default_timeout_s
  local ttl_s = interval_s + 60
  if timeout_s > 0 and timeout_s < interval_s then ttl_s = math.floor(timeout_s) + 60 end
  if ttl_s > longest_s then longest_s = ttl_s end
  local of_job = prefix .. ':executions:' .. id
  local composite = id .. ':' .. execution
  redis.call('HSET', execution_key(id, execution), 'id', execution, 'job_id', id, 'created_at', ARGV[6],
    'last_heartbeat', ARGV[6], 'worker_name', worker)
  redis.call('EXPIRE', execution_key(id, execution), ttl_s)
  redis.call('ZADD', of_job, now_s + ttl_s + 60, execution)
  redis.call('EXPIRE', of_job, ttl_s + 60)
  redis.call('HSET', key, 'last_heartbeat', now_iso, 'status', 'started', 'started_at', now_iso, 'worker_name', worker)
  if job[9] and job[9] ~= '' then redis.call('PERSIST', key) end
  local scores = in_progress[name]
  if not scores then scores = {prefix .. ':wip:' .. name}; in_progress[name] = scores end
  scores[#scores + 1] = now_s + ttl_s
  scores[#scores + 1] = composite
  executions[#executions + 1] = composite
  local plain = 1
  for field = 4, 8 do
    if job[field] and job[field] ~= '' and job[field] ~= '[]' then plain = 0 end
  end
  out[#out + 1] = {name, id, execution, job[1], job[2] or '', job[3] or '', plain,
    described and redis.call('HGET', key, 'description') or ''}
end

if popped_id ~= '' then
  redis.call('LREM', queue_key(popped_queue) .. ':intermediate', 1, popped_id)
  take(popped_queue, popped_id)
end
if redis.call('EXISTS', prefix .. ':suspended') == 0 and #queues > 0 then
  local waiting = 0
  for _, name in ipairs(queues) do waiting = waiting + redis.call('LLEN', queue_key(name)) end
  local workers = math.max(1, redis.call('SCARD', prefix .. ':workers:' .. queues[1]))
  limit = math.min(limit, math.max(1, math.ceil(waiting / (2 * workers))))
  if strategy == 'default' then
    for _, name in ipairs(queues) do
      -- Ids whose job has expired are dropped: go on until there are enough, or none.
      while #out < limit do
        local ids = redis.call('LRANGE', queue_key(name), 0, limit - #out - 1)
        if #ids == 0 then break end
        redis.call('LTRIM', queue_key(name), #ids, -1)
        for _, id in ipairs(ids) do take(name, id) end
      end
    end
  else
    local order = {unpack(queues)}
    if strategy == 'random' then math.randomseed(tonumber(ARGV[11])) end
    while #out < limit and #order > 0 do
      local place = 1
      if strategy == 'random' then place = math.random(#order) end
      local name = table.remove(order, place)
      local id = redis.call('LPOP', queue_key(name))
      if id then
        take(name, id)
        table.insert(order, name)
      end
    end
  end
end
if #out > 0 then
  for _, scores in pairs(in_progress) do redis.call('ZADD', unpack(scores)) end
  redis.call('SADD', unpack(executions))
  redis.call('EXPIRE', worker_executions, longest_s + 60)
end
return {unknown, out}
"""
)

#: Ends jobs that went well, as `handle_job_success` does. Skips what is not this worker's any more, so that a reply
#: which was lost can be asked for again, and leaves no trace of a job that was deleted meanwhile. Returns the places
#: of those that others depend on: they take RQ's own way.
_FINISH = (
    _NAMES
    + """
local now_s, working_s = tonumber(ARGV[3]), ARGV[4]
local fields, first = 9, 5
local number = (#ARGV - first + 1) / fields
local done, unfinished, gone = 0, {}, {}
local finished, in_progress = {}, {}
for n = 0, number - 1 do
  local at = first + n * fields
  local name, id, execution, ttl_s = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local key, composite = job_key(id), id .. ':' .. execution
  local there = redis.call('EXISTS', key, key .. ':dependents')
  if there == 2 then
    unfinished[#unfinished + 1] = n
  elseif redis.call('SREM', worker_executions, composite) == 1 then
    done = done + 1
    gone[#gone + 1] = execution_key(id, execution)
    gone[#gone + 1] = prefix .. ':executions:' .. id
    if not finished[name] then
      finished[name] = {prefix .. ':finished:' .. name}
      in_progress[name] = {prefix .. ':wip:' .. name}
    end
    local members = in_progress[name]
    members[#members + 1] = composite
    if there == 1 then
      local returned, ended_iso, results = ARGV[at + 4], ARGV[at + 6], prefix .. ':results:' .. id
      redis.call('HSET', key, 'status', 'finished', 'started_at', ARGV[at + 5], 'ended_at', ended_iso, 'last_heartbeat',
        ended_iso)
      if returned == '' then
        redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', worker, 'execution_id',
          execution, 'execution_started_at', ARGV[at + 7], 'execution_ended_at', ARGV[at + 8])
      else
        redis.call('XADD', results, 'MAXLEN', '~', '10', '*', 'type', '1', 'worker_name', worker, 'return_value',
          returned, 'execution_id', execution, 'execution_started_at', ARGV[at + 7], 'execution_ended_at', ARGV[at + 8])
      end
      local score = '+inf'
      if ttl_s > 0 then
        redis.call('EXPIRE', results, ttl_s)
        redis.call('EXPIRE', key, ttl_s)
        score = now_s + ttl_s
      end
      local scores = finished[name]
      scores[#scores + 1] = score
      scores[#scores + 1] = id
    end
  end
end
if done > 0 then
  for name, scores in pairs(finished) do
    if #scores > 1 then redis.call('ZADD', unpack(scores)) end
    redis.call('ZREM', unpack(in_progress[name]))
  end
  redis.call('DEL', unpack(gone))
  redis.call('HINCRBY', prefix .. ':worker:' .. worker, 'successful_job_count', done)
  redis.call('HINCRBYFLOAT', prefix .. ':worker:' .. worker, 'total_working_time', working_s)
end
return unfinished
"""
)

_PUT_BACK = """
local function let_go(name, id, execution)
  redis.call('ZREM', prefix .. ':wip:' .. name, id .. ':' .. execution)
  redis.call('DEL', execution_key(id, execution), prefix .. ':executions:' .. id)
end
local function queue_again(name, id)
  redis.call('HSET', job_key(id), 'status', 'queued')
  redis.call('HDEL', job_key(id), 'started_at', 'worker_name', 'last_heartbeat')
  redis.call('LPUSH', queue_key(name), id)
end
"""

#: Puts claimed jobs that were not begun back at the front of their queues, in their old order. Returns how many.
_GIVE_BACK = (
    _NAMES
    + _PUT_BACK
    + """
local number = 0
for at = #ARGV - 2, 3, -3 do
  local name, id, execution = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local composite = id .. ':' .. execution
  if redis.call('SREM', worker_executions, composite) == 1 then
    let_go(name, id, execution)
    if redis.call('EXISTS', job_key(id)) == 1 then
      queue_again(name, id)
      number = number + 1
    end
  end
end
return number
"""
)

#: Puts back what dead batch workers had claimed and not begun (see `batch_lease`), in its old order. Returns how many.
_TAKE_BACK = (
    _NAMES
    + _PUT_BACK
    + """
local function begun_before(incarnation)
  local lease = prefix .. ':batch:' .. incarnation
  local begun = redis.call('GET', lease .. ':begun')
  if not begun or redis.call('EXISTS', lease) == 1 then return math.huge end
  return tonumber(begun)
end
local number, begun = 0, {}
for at = 3, #ARGV do
  local name = ARGV[at]
  local in_progress, lost = prefix .. ':wip:' .. name, {}
  for _, composite in ipairs(redis.call('ZRANGE', in_progress, 0, -1)) do
    local id, incarnation, serial = string.match(composite, '^(.*):(%x+)(' .. string.rep('%x', 16) .. ')$')
    if id then
      begun[incarnation] = begun[incarnation] or begun_before(incarnation)
      if tonumber(serial, 16) >= begun[incarnation] then lost[#lost + 1] = {incarnation .. serial, id, composite} end
    end
  end
  table.sort(lost, function(one, other) return one[1] > other[1] end)
  for _, each in ipairs(lost) do
    local execution, id, composite = unpack(each)
    let_go(name, id, execution)
    local owner, status = unpack(redis.call('HMGET', job_key(id), 'worker_name', 'status'))
    if owner then redis.call('SREM', prefix .. ':worker:' .. owner .. ':executions', composite) end
    if status == 'started' then
      queue_again(name, id)
      number = number + 1
    end
  end
end
return number
"""
)

_SCRIPTS = (_CLAIM, _FINISH, _GIVE_BACK, _TAKE_BACK)
_SHA = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in _SCRIPTS}


class Claim(NamedTuple):
    """A job in hand: what RQ's job hash says of it, and the execution that was registered for it.

    `data` is the call as RQ serialises it, perhaps compressed. `timeout_s` is below zero for a job without a limit.
    `plain` jobs need nothing at their end but what the script does; the others take RQ's own way.
    """

    serial: int
    queue: str
    job_id: str
    execution_id: str
    data: bytes
    timeout_s: int
    result_ttl_s: int
    plain: bool


class Finished(NamedTuple):
    """A job that went well. `returned` is its value as RQ stores it in results, empty for None; Unix times.

    `worked_s`: how long it kept the child from other jobs.
    """

    claim: Claim
    returned: bytes
    started_s: float
    ended_s: float
    worked_s: float


class BatchScripts:
    """The scripts on one connection, for the worker of that name."""

    def __init__(self, connection: redis.Redis, worker_name: str) -> None:
        self._connection = connection
        self._head = (RQ_KEY_PREFIX, worker_name)
        #: Tells this worker from an earlier one of the same name; the first half of its executions' ids.
        self._incarnation = os.urandom(8).hex()

    @property
    def lease_keys(self) -> tuple[str, str]:
        """There while the worker lives; and the serial number below which its jobs may have begun."""
        lease = f"{RQ_KEY_PREFIX}:batch:{self._incarnation}"
        return lease, f"{lease}:begun"

    def execute(self, pipeline: Any) -> list[Any]:
        """The answers to what is on the pipeline. Raises the first error among them."""
        commands = list(pipeline.command_stack)
        try:
            return list(pipeline.execute())
        except redis.exceptions.NoScriptError:
            # A server that has not seen the scripts yet has done nothing of this.
            for script in _SCRIPTS:
                self._connection.script_load(script)
            pipeline.command_stack = commands
            return list(pipeline.execute())

    def claim(
        self,
        client: Any,
        queues: Sequence[str],
        limit: int,
        *,
        strategy: str,
        now_s: float,
        interval_s: int,
        default_timeout_s: int,
        in_hand: int,
        next_serial: int,
        popped: tuple[str, str] = ("", ""),
        described: bool = False,
    ) -> Any:
        """At most `limit` jobs (more by one if there is a `popped` one, of a queue and an id), numbered in their order."""
        return client.evalsha(
            _SHA[_CLAIM],
            0,
            *self._head,
            *(
                limit,
                strategy,
                _iso(now_s),
                repr(now_s),
                self._incarnation,
                interval_s,
                default_timeout_s,
                in_hand,
                random.getrandbits(31),
                *popped,
                int(described),
                next_serial,
                *queues,
            ),
        )

    def finish(self, client: Any, jobs: Sequence[Finished], now_s: float) -> Any:
        """End these jobs."""
        args: list[Any] = [int(now_s), repr(sum(job.ended_s - job.started_s for job in jobs))]
        for claim, returned, started_s, ended_s, _ in jobs:
            args += (
                claim.queue,
                claim.job_id,
                claim.execution_id,
                claim.result_ttl_s,
                returned,
                _iso(started_s),
                _iso(ended_s),
                repr(started_s),
                repr(ended_s),
            )
        return client.evalsha(_SHA[_FINISH], 0, *self._head, *args)

    def give_back(self, jobs: Iterable[tuple[str, str, str]]) -> int:
        """Put these jobs (queue, job id, execution id) back at the front of their queues. How many were."""
        pipeline = self._connection.pipeline(transaction=False)
        pipeline.evalsha(_SHA[_GIVE_BACK], 0, *self._head, *(part for job in jobs for part in job))
        return int(self.execute(pipeline)[0])

    def take_back(self, queues: Sequence[str]) -> int:
        """Put what dead workers had claimed from these queues and not begun back at their front. How many were."""
        pipeline = self._connection.pipeline(transaction=False)
        pipeline.evalsha(_SHA[_TAKE_BACK], 0, *self._head, *queues)
        return int(self.execute(pipeline)[0])


@lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def as_date(unix_s: float) -> datetime:
    """A Unix time as RQ's objects hold times."""
    return datetime.fromtimestamp(unix_s, UTC)


def _iso(unix_s: float) -> str:
    """A Unix time as RQ writes times."""
    whole_s = int(unix_s)
    return f"{_second(whole_s)}{int((unix_s - whole_s) * 1e6):06d}Z"
