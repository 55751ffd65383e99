"""The child process of a batch worker, as the worker sees it: started when there is work, watched, and let go."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fuze_bench.pipeline.batch_channel import ChildEnd, WorkerEnd, channel
from fuze_bench.pipeline.batch_scripts import Claim
from fuze_bench.processes import die_with_parent


class Death(NamedTuple):
    """How a child ended: its wait status and usage, as `os.wait4` gives them, and what it was running (serials)."""

    pid: int
    status: int
    usage: Any
    running: tuple[int, int]


class BatchProcess:
    """At most one child at a time; `run` is its whole life, given the child's end of the channel."""

    def __init__(self, run: Callable[[ChildEnd], int]) -> None:
        self._run = run
        self._end: WorkerEnd | None = None
        self._last_serials: deque[int] = deque()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._covered_until = 0.0
        self.pid = 0

    @property
    def batches(self) -> int:
        """How many batches it has that are not done."""
        return len(self._last_serials)

    @property
    def running(self) -> tuple[int, int]:
        """The first and the end of the serials that it is at; equal if it is at none."""
        return self._end.progress.running if self._end else (0, 0)

    @property
    def running_s(self) -> float:
        """For how long it has been at that."""
        first, end = self.running
        return self._end.progress.running_s if self._end and end > first else 0.0

    @property
    def waits(self) -> bool:
        """Whether it could begin more, as it only waits for the input of what it has begun."""
        return self._end is not None and self._end.progress.waits

    def send(self, batch: list[Claim]) -> None:
        """Hand it a batch; starts it first if need be."""
        self._last_serials.append(batch[-1].serial)
        if self._end is None:
            self._start()
        assert self._end is not None
        # One that is gone is found to be so soon, and what it was sent is then not begun.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._end.send([tuple(claim) for claim in batch])

    def covered_until(self, since_boot_s: float) -> None:
        """It may begin jobs until then."""
        self._covered_until = since_boot_s
        if self._end is not None:
            self._end.progress.covered_until = since_boot_s

    def wait(self, timeout_s: float) -> None:
        """Until it has something to tell, is gone, or `wake` is called."""
        if self._end is not None:
            self._end.wait(timeout_s, self._woken)

    def wake(self) -> None:
        """End a wait, from a signal handler or another thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def records(self) -> Iterator[Any]:
        """What became of jobs since the last call; see `batch_child`."""
        return self._end.records() if self._end else iter(())

    def done_before(self, serial: int) -> None:
        """Nothing below `serial` is with it any more."""
        while self._last_serials and self._last_serials[0] < serial:
            self._last_serials.popleft()

    def withdraw(self, before: int) -> int:
        """Take back what it has not begun: everything from the returned serial on, below `before`."""
        return self._end.progress.withdraw(before) if self._end else 0

    def death(self) -> Death | None:
        """None as long as it lives. Its records are still to be had, until it is `forget`-ten."""
        if self._end is None:
            return None
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has waited for it
            pid, status, usage = self.pid, 0, None
        return Death(pid, status, usage, self.running) if pid else None

    def forget(self) -> None:
        """It is dead."""
        if self._end is not None:
            self._end.close()
        self._end, self.pid = None, 0
        self._last_serials.clear()

    def dismiss(self) -> None:
        """Let it go; returns when it has done what it has and has ended."""
        pid = self.pid
        self.forget()
        if pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _start(self) -> None:
        ours, theirs, heard, rung, progress = channel()
        progress.covered_until = self._covered_until
        pid = os.fork()
        if pid == 0:
            # The fork does not come back from here, whatever happens.
            code = 1
            try:
                ours.close()
                os.close(heard)
                os.setpgrp()
                die_with_parent(signal.SIGKILL)
                random.seed()
                code = self._run(ChildEnd(theirs, rung, progress))
            finally:
                os._exit(code)
        theirs.close()
        os.close(rung)
        self.pid = pid
        self._end = WorkerEnd(ours, heard, progress)
