"""A limit on the total time of a fetch, whatever the other side does.

A socket's own timeout only limits each silence: one byte a second never trips it, in the body or in the headers. Here
a thread watches all fetches of the process and shuts a connection down under the reader when its time is over.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import threading
import time
from typing import Any


class Deadline:
    """One fetch's limit. `watch` tells which connection is in use now; `expired` says that it was cut."""

    def __init__(self, total_s: float) -> None:
        self.at_s = time.monotonic() + total_s
        self.expired = False
        self._lock = threading.Lock()
        self._connection: Any = None

    def remaining_s(self) -> float:
        return max(0.001, self.at_s - time.monotonic())

    def watch(self, connection: Any) -> None:
        """`connection` has a `sock` attribute, which may still be None. Raises TimeoutError if the time is over."""
        with self._lock:
            self._connection = connection
        self.check()

    def check(self) -> None:
        """Raises TimeoutError if the time is over: a connection that was made meanwhile was not there to be cut."""
        if time.monotonic() >= self.at_s:
            self.expired = True
            raise TimeoutError("the fetch took too long")

    def done(self) -> None:
        """The fetch is over: nothing will be cut any more."""
        with self._lock:
            self._connection = None
            self.at_s = float("inf")

    def cut(self) -> None:
        with self._lock:
            if self.at_s > time.monotonic():
                return
            self.expired = True
            sock = getattr(self._connection, "sock", None)
            if sock is not None:
                # The plain socket's shutdown, also under TLS: it wakes the reader and touches nothing it uses.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Watchdog:
    """The watching thread, started at the first fetch and again in every forked child."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._pid = 0
        self._start_lock = threading.Lock()

    def limit(self, total_s: float) -> Deadline:
        """A deadline `total_s` from now."""
        deadline = Deadline(total_s)
        self._ensure_running()
        with self._changed:
            heapq.heappush(self._heap, (deadline.at_s, next(self._order), deadline))
            if self._heap[0][2] is deadline:
                self._changed.notify()
        return deadline

    def _ensure_running(self) -> None:
        with self._start_lock:
            if self._pid != os.getpid():
                self._heap, self._changed = [], threading.Condition()
                threading.Thread(target=self._run, name="fetch-deadlines", daemon=True).start()
                self._pid = os.getpid()

    def _run(self) -> None:
        changed, heap = self._changed, self._heap
        while True:
            with changed:
                while not heap or heap[0][0] > time.monotonic():
                    changed.wait(heap[0][0] - time.monotonic() if heap else None)
                _, _, due = heapq.heappop(heap)
            due.cut()
