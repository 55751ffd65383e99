"""What a trial does to its own parts: kill, pause, take Redis away; with the moment of each, for a timeline."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fuze_bench.errors import ServiceError
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.processes import Child, is_running


@dataclass(frozen=True)
class Mark:
    """Something was done at `at_ns`, nanoseconds of the host's monotonic clock."""

    name: str
    at_ns: int


class Faults:
    """Does it, and notes it in `marks`, in the order done.

    What is taken away in a `with` block is there again after it, whatever happens inside. Use it from a thread that
    lives as long as the parts should (see `Child`).
    """

    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def kill(self, name: str, part: Child) -> None:
        """kill -9 to a part and what is in its group: a worker, or the origin, which then refuses connections.

        Raises ServiceError if it has ended before.
        """
        _check_running(name, [part.pid])
        self._mark(f"{name} killed")
        part.kill_group()

    @contextmanager
    def paused(self, name: str, pids: Sequence[int]) -> Iterator[None]:
        """The processes hang during the block (SIGSTOP): connections to them are accepted and not answered.

        Raises ServiceError, and pauses nothing, if one of them does not run.
        """
        _check_running(name, pids)
        self._mark(f"{name} paused")
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
                    os.kill(pid, signal.SIGCONT)
            self._mark(f"{name} resumed")

    @contextmanager
    def without_redis(self, server: PrivateRedis) -> Iterator[None]:
        """The server is stopped during the block; it comes back where it was, with its data.

        Raises ServiceError if it does not come back.
        """
        self._mark("Redis stopped")
        server.stop()
        try:
            yield
        finally:
            server.start()
            self._mark("Redis started")

    def _mark(self, name: str) -> None:
        self.marks.append(Mark(name, time.monotonic_ns()))


def _check_running(name: str, pids: Sequence[int]) -> None:
    gone = [pid for pid in pids if not is_running(pid)]
    if gone:
        raise ServiceError(f"{name} (process {gone[0]}) does not run any more: see its log")
