"""Whether anybody will take the jobs of a queue: looked up at most once a second, for the answers to saves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import redis

from fuze_bench.pipeline.control import living_workers, loading_queues, paused_queues

_HOLDS_S = 1.0


class Listeners:
    """Remembers which queues have workers and which are paused. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s = 0.0
        self._paused: frozenset[str] = frozenset()
        self._listened: frozenset[str] = frozenset()

    def warning(self, queue: str, client: Callable[[], redis.Redis]) -> str | None:
        """Why nothing happens to what waits on the queue, and what to do; None if a worker listens to it, or will
        as soon as it has loaded its model.

        Raises what `client` raises, and redis.RedisError.
        """
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._look(client())
                self._until_s = time.monotonic() + _HOLDS_S
        if queue in self._paused:
            return f"the queue {queue!r} is paused: `fuze-bench resume {queue}`"
        if queue not in self._listened:
            return f"no worker listens to the queue {queue!r}: start one with `fuze-bench worker`"
        return None

    def _look(self, client: redis.Redis) -> None:
        self._paused = paused_queues(client)
        # Whoever loads the model listens in a moment: nothing is to be done about that.
        self._listened = loading_queues(client).union(
            name for worker in living_workers(client) for name in worker.queue_names()
        )
