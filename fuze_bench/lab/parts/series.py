"""What a trial's parts do, second by second: queues, busy workers, processor time, memory, and Redis.

Sampling costs what it measures: `test_sampling_is_cheap` holds a sample below two hundredths of a second of one core.
Adding up the memory of processes that hold a model takes longest, and is done less often where it takes long.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import redis

from fuze_bench.errors import FuzeError
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.processes import is_running

_EVERY_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TIMEOUT_S = 0.5
#: How much of one core looking at memory may take; beyond, it is looked at less often.
_MEMORY_SHARE = 0.02

#: Gives the session leaders of a part: what they started is in their session, forks for jobs included.
Leaders = Callable[[], Sequence[int]]


class Sampler:
    """Takes a sample each second, in a thread, from entering it until it is left or closed. A context manager.

    `parts`: names with the leaders of their sessions. `redis_url` None: there is none. Nothing is raised into the
    trial: what cannot be read is left out, and counted in `missed`, as is a second that passed without a sample.

    Things and their metrics: a part's `cpu_s` (processor seconds of all its processes since they began, of those that
    ended and were waited for too) and `pss_bytes` (memory, shared pages counted once); a queue's `depth` (jobs) and
    `oldest_age_s` (of the job that is next, 0 without one); `workers` with `busy_workers`; `redis` with `commands`
    (since it began, without the sampler's) and `memory_bytes`.
    """

    def __init__(self, parts: Mapping[str, Leaders], redis_url: str | None, *, queues: Sequence[str]) -> None:
        self.missed = 0
        self._parts, self._queues = parts, queues
        self._redis = (
            None
            if redis_url is None
            else connect(redis_url, connect_timeout_s=_TIMEOUT_S, timeout_s=_TIMEOUT_S)
        )
        self._samples: list[tuple[int, str, str, float]] = []
        self._asked = 0
        self._memory_due_s = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def rows(self, start_ns: int) -> list[dict[str, Any]]:
        """The samples: t_s (seconds from the monotonic time `start_ns`), thing, metric, value."""
        return [
            {"t_s": (at_ns - start_ns) / 1e9, "thing": thing, "metric": metric, "value": value}
            for at_ns, thing, metric, value in self._samples
        ]

    def cpu_s(self, part: str) -> float | None:
        """Processor time of a part from the first to the last sample, seconds; None if there are no two."""
        found = self._values(part, "cpu_s")
        # Not the last: what a fork used is nowhere to be seen for a moment when it ends, and gone with its worker.
        return max(found) - found[0] if len(found) > 1 else None

    def peak_pss_bytes(self, part: str) -> int | None:
        """Most memory of a part in a sample, pages that processes share counted once; None if there is none."""
        return int(max(self._values(part, "pss_bytes"), default=0)) or None

    def redis_commands(self) -> int | None:
        """Commands that Redis processed from the first to the last sample, the sampler's own left out.

        None if there are no two, or if Redis was started anew in between, which begins its count again.
        """
        found = self._values("redis", "commands")
        return int(found[-1] - found[0]) if len(found) > 1 and found == sorted(found) else None

    def _values(self, thing: str, metric: str) -> list[float]:
        return [value for _, t, m, value in self._samples if (t, m) == (thing, metric)]

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._closed.is_set():
            self._sample()
            next_s += _EVERY_S
            while next_s < time.monotonic():  # the sample took longer than the next was due
                next_s += _EVERY_S
                self.missed += 1
            self._closed.wait(next_s - time.monotonic())
        self._memory_due_s = 0.0
        self._sample()

    def _sample(self) -> None:
        at_ns = time.monotonic_ns()
        found = self._of_processes()
        if self._redis is not None:
            try:
                found += self._of_redis(self._redis)
            except (redis.RedisError, ValueError):
                self.missed += 1
        self._samples += [(at_ns, *each) for each in found]

    def _of_processes(self) -> list[tuple[str, str, float]]:
        part_of = self._leaders()
        cpu_s: dict[str, float] = {}
        members: dict[str, list[str]] = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            fields = _stat(pid)
            part = part_of.get(int(fields[3])) if fields else None
            if part is not None:
                # With that of children that have ended and were waited for: the forks that ran jobs.
                used_s = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S
                cpu_s[part] = cpu_s.get(part, 0.0) + used_s
                members.setdefault(part, []).append(pid)
        self.missed += len(set(part_of.values()) - set(cpu_s))
        return [(part, "cpu_s", value) for part, value in cpu_s.items()] + self._memory_of(members)

    def _leaders(self) -> dict[int, str]:
        """Each leader's part."""
        found: dict[int, str] = {}
        for part, leaders in self._parts.items():
            try:
                found |= dict.fromkeys(leaders(), part)
            except (FuzeError, OSError):
                self.missed += 1
        return found

    def _memory_of(self, members: Mapping[str, Sequence[str]]) -> list[tuple[str, str, float]]:
        if time.monotonic() < self._memory_due_s:
            return []
        start_s = time.thread_time()
        found = [(part, "pss_bytes", float(sum(map(_pss_bytes, pids)))) for part, pids in members.items()]
        self._memory_due_s = time.monotonic() + (time.thread_time() - start_s) / _MEMORY_SHARE - _EVERY_S
        return found

    def _of_redis(self, client: redis.Redis) -> list[tuple[str, str, float]]:
        pipe: Any = client.pipeline(transaction=False)
        pipe.info("stats")
        pipe.info("memory")
        pipe.smembers("rq:workers")
        for queue in self._queues:
            pipe.llen(f"rq:queue:{queue}")
            pipe.lindex(f"rq:queue:{queue}", 0)
        stats, memory, workers, *lists = pipe.execute()
        depths, first = lists[::2], lists[1::2]
        for worker in workers:
            pipe.hmget(worker, "state", "pid")
        for job in first:
            pipe.hget(f"rq:job:{(job or b'none').decode()}", "enqueued_at")
        answers = pipe.execute()
        commands = stats["total_commands_processed"] - self._asked
        self._asked += 3 + len(lists) + len(answers)
        busy = [pid for state, pid in answers[: len(workers)] if state == b"busy"]
        found = [
            ("redis", "commands", float(commands)),
            ("redis", "memory_bytes", float(memory["used_memory"])),
            # Redis goes on saying so of a worker that was killed.
            ("workers", "busy_workers", float(sum(is_running(int(pid or -1)) for pid in busy))),
        ]
        for queue, depth, since in zip(self._queues, depths, answers[len(workers) :], strict=True):
            found += [(queue, "depth", float(depth)), (queue, "oldest_age_s", _age_s(since))]
        return found

    def close(self) -> None:
        """Take a last sample and end. Safe to call twice."""
        self._closed.set()
        self._thread.join()
        if self._redis is not None:
            self._redis.connection_pool.disconnect()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _stat(pid: str) -> list[str]:
    """proc(5)'s fields from the 3rd on, none if the process has ended. The 2nd, in brackets, may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _pss_bytes(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
            found = next((line for line in file if line.startswith("Pss:")), "Pss: 0 kB")
    except OSError:
        return 0  # it has ended meanwhile
    return int(found.split()[1]) * 1024


def _age_s(enqueued_at: object) -> float:
    """Seconds since a time as RQ writes it; 0 where nothing waits."""
    if not enqueued_at:
        return 0.0
    since = datetime.fromisoformat(cast(bytes, enqueued_at).decode())
    return max(0.0, (datetime.now(UTC) - since).total_seconds())
