"""A queue with several servers, replayed job by job: when each would start, from arrivals and service times; pure."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fuze_bench.errors import LabError, nearest

Floats = NDArray[np.float64]
Strategy = Literal["strict", "round_robin", "random"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)


@dataclass(frozen=True, eq=False)
class Replay:
    """What the queue did with every job, in the order the jobs were given. Arrays of seconds, shape (jobs,)."""

    arrivals_s: Floats
    starts_s: Floats
    ends_s: Floats

    @property
    def waits_s(self) -> Floats:
        """From arrival to start."""
        return self.starts_s - self.arrivals_s


def replay(
    arrivals_s: ArrayLike,
    services_s: ArrayLike,
    servers: int,
    priorities: ArrayLike | None = None,
    *,
    strategy: str = "strict",
    batch: int = 1,
    overhead_s: float = 0.0,
    pickup_s: float = 0.0,
    seed: int = 1,
) -> Replay:
    """Put recorded (or drawn) jobs through a queue with `servers` servers; no job is ever interrupted.

    `arrivals_s`, `services_s`: one value a job, in any order of arrival. `priorities`: each job's queue, 0 the first;
    None: one queue, first come first served. Within a queue the order is always that of arrival. The server that has
    been free longest takes the next job, as Redis serves the client that has been blocked longest.

    `strategy`: `strict` takes from the first queue that holds a job; `round_robin` begins behind the queue that this
    server took from last, and `random` at a queue drawn anew (from `seed`), as RQ's dequeue strategies of these names.

    `batch`: a server takes up to so many waiting jobs at once and works through them: they start together, and end
    together after the sum of their service times.

    `overhead_s`: from the end of a job (or batch) until its server can have started another. `pickup_s`: from a job's
    arrival until an idle server has started it, part of its wait; an overhead is never shorter than that.

    Raises LabError for what cannot be replayed: arrays of unequal length, negative or missing values, no server.
    """
    arrivals, services = _seconds("arrivals_s", arrivals_s), _seconds("services_s", services_s)
    classes = np.zeros(len(arrivals), dtype=np.int64) if priorities is None else np.asarray(priorities)
    _check(arrivals, services, classes, servers, batch)
    if strategy not in STRATEGIES:
        raise LabError(f"strategy={strategy!r} is not one: {nearest(strategy, STRATEGIES)}")
    for name, value in (("overhead_s", overhead_s), ("pickup_s", pickup_s)):
        if not 0 <= value < float("inf"):
            raise LabError(f"{name}={value!r}: give seconds, 0 or more")
    order = np.argsort(arrivals, kind="stable")
    after_s = max(0.0, overhead_s - pickup_s)
    line = arrivals[order]
    starts, ends = np.empty(len(arrivals)), np.empty(len(arrivals))
    if batch == 1 and (strategy == "strict" or not classes.any()):
        held = services[order] + (pickup_s + after_s)
        if classes.any():
            starts[order] = _strictly(line, held, classes[order], servers)
        else:
            starts[order] = _first_come_first_served(line, held, servers)
        starts += pickup_s
        return Replay(arrivals, starts, starts + services)
    _, ranks = np.unique(classes[order], return_inverse=True)
    queues: list[deque[int]] = [deque() for _ in range(int(ranks.max(initial=0)) + 1)]
    take = _taker(strategy, queues, servers, seed)
    work = services[order].tolist()
    began, ended = _by_queue(
        line.tolist(), work, ranks.tolist(), queues, take, servers, batch, pickup_s, after_s
    )
    starts[order], ends[order] = began, ended
    return Replay(arrivals, starts, ends)


def _seconds(name: str, values: ArrayLike) -> Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabError(f"{name} holds something that is no number: leave out the jobs without it") from None
    if found.ndim != 1:
        raise LabError(f"{name} has {found.ndim} dimensions: give one value a job")
    if not np.isfinite(found).all():
        raise LabError(f"{name} holds a value that is missing or not finite: leave out the jobs without it")
    return found


def _check(arrivals: Floats, services: Floats, classes: NDArray[np.int64], servers: int, batch: int) -> None:
    if len(services) != len(arrivals) or classes.shape != arrivals.shape:
        raise LabError(
            f"{len(arrivals)} arrivals, {len(services)} service times and {len(classes)} priorities: give one of each a job"
        )
    if len(services) and services.min() < 0:
        raise LabError(f"services_s holds {services.min():g}: a service time is 0 or more seconds")
    if len(classes) and not (classes.dtype.kind in "iu" and classes.min() >= 0):
        raise LabError("priorities holds something else than whole numbers from 0, the first queue")
    for name, value in (("servers", servers), ("batch", batch)):
        if value < 1 or int(value) != value:
            raise LabError(f"{name}={value!r}: give a whole number from 1")


# Both take the arrivals in order, and loop over Python's own floats: several times faster than over those of numpy.


def _first_come_first_served(line: Floats, held: Floats, servers: int) -> Floats:
    """When a server takes each job; it is free again when it has been `held` for the job's time and its own overhead.

    Kiefer and Wolfowitz's recursion: the next job goes to the server that is free first.
    """
    free = [float("-inf")] * servers
    replace = heapq.heapreplace
    # It returns since when the server that takes the job has been free.
    free_since = [
        replace(free, (arrival if arrival > free[0] else free[0]) + keeps)
        for arrival, keeps in zip(line.tolist(), held.tolist(), strict=True)
    ]
    return np.maximum(line, np.fromiter(free_since, np.float64, len(free_since)))


def _strictly(line: Floats, held: Floats, classes: NDArray[np.int64], servers: int) -> list[float]:
    """When a server takes each job: the first one of the first queue that holds any."""
    jobs = len(line)
    taken = [0.0] * jobs
    free = [float("-inf")] * servers
    # What waits, as one number a job: the first queue's first job is the smallest.
    keys = (classes * jobs + np.arange(jobs)).tolist()
    waiting: list[int] = []
    push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
    arrivals: list[float] = line.tolist()
    keeps: list[float] = held.tolist()
    arrival, following = arrivals[0], [*arrivals[1:], float("inf")]
    arrived, now = 0, float("-inf")
    for _ in range(jobs):
        # A server that has been idle takes a job that arrived with the one before now, not earlier.
        if free[0] > now:
            now = free[0]
        if not waiting and arrival > now:
            now = arrival
        while arrival <= now:
            push(waiting, keys[arrived])
            arrival = following[arrived]
            arrived += 1
        job = pop(waiting) % jobs
        taken[job] = now
        replace(free, now + keeps[job])
    return taken


def _by_queue(
    line: list[float],
    work: list[float],
    ranks: list[int],
    queues: list[deque[int]],
    take: Callable[[int], int],
    servers: int,
    batch: int,
    pickup_s: float,
    after_s: float,
) -> tuple[list[float], list[float]]:
    jobs = len(line)
    began, ended = [0.0] * jobs, [0.0] * jobs
    # When each server is free, and which it is; the number in the middle keeps the one free longest in front.
    free = [(float("-inf"), server, server) for server in range(servers)]
    turns = itertools.count(servers)
    replace = heapq.heapreplace
    arrived = waiting = 0
    now = float("-inf")
    while arrived < jobs or waiting:
        ready, _, server = free[0]
        if ready > now:
            now = ready
        if not waiting and line[arrived] > now:
            now = line[arrived]
        while arrived < jobs and line[arrived] <= now:
            queues[ranks[arrived]].append(arrived)
            arrived += 1
            waiting += 1
        taken = [take(server) for _ in range(min(batch, waiting))]
        waiting -= len(taken)
        start = now + pickup_s
        end = start
        for job in taken:
            end += work[job]
        for job in taken:
            began[job] = start
            ended[job] = end
        replace(free, (end + after_s, next(turns), server))
    return began, ended


def _taker(strategy: str, queues: list[deque[int]], servers: int, seed: int) -> Callable[[int], int]:
    """How a server, given by its number, takes a job from queues that hold at least one."""
    if strategy == "round_robin":
        last = [len(queues) - 1] * servers
        return lambda server: _take_in_turn(queues, last, server)
    if strategy == "random":
        draw = random.Random(seed)
        return lambda server: draw.choice([queue for queue in queues if queue]).popleft()
    return lambda server: _take_first(queues)


def _take_first(queues: list[deque[int]]) -> int:
    for queue in queues:
        if queue:
            return queue.popleft()
    raise AssertionError("no job is waiting")


def _take_in_turn(queues: list[deque[int]], last: list[int], server: int) -> int:
    count = len(queues)
    for step in range(1, count + 1):
        number = (last[server] + step) % count
        if queues[number]:
            last[server] = number
            return queues[number].popleft()
    raise AssertionError("no job is waiting")
