"""Child processes that never outlive us: start, prove ready, stop, reap."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import psutil

from fuze_bench.errors import ServiceError, SettingsError

#: What people and supervisors stop a process with.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
#: Of malloc.h.
_M_ARENA_MAX = -8
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def keep_one_heap() -> None:
    """Have all threads that are started from now on take their memory from one heap, where it is glibc's.

    Of its own it gives each of the first dozens of threads another, which keeps what is freed in it: a worker that
    fetches on threads grows by a quarter. Threads that hold the interpreter's lock do not wait for each other here.
    """
    if _LIBC is not None and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Let the system have what is free in the heap, where it is glibc's, which keeps tens of megabytes of it."""
    if _LIBC is not None and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def die_with_parent(number: signal.Signals = signal.SIGTERM, parent: int | None = None) -> None:
    """Called in a child: Linux then sends it the signal when the thread that started it ends, kill -9 included.

    `parent`: the process that started it, if known: one that has ended before this call counts, too.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), number)


def _begin() -> None:
    die_with_parent()
    # A shell's background jobs ignore SIGINT, and so would what they start: nobody could interrupt it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_running(pid: int, since: datetime | None = None) -> bool:
    """Whether this host has a process of that number (that was there at `since` already).

    One that has ended, and that nobody has waited for, is none: pid 1 of many a container waits for nobody.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return since is None or bool(process.create_time() <= since.timestamp())
    except psutil.NoSuchProcess:
        return False


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_port(host: str = "127.0.0.1", port: int = 0) -> int:
    """`port` if it can be listened on now, or any free one for 0. Raises SettingsError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} cannot be used on {host} ({error.strerror}): choose another"
            ) from None
        return int(probe.getsockname()[1])


class Running(Protocol):
    """As much of subprocess.Popen as a Child needs."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


class Child:
    """A process of ours in a group of its own, with its output in a file.

    A context manager: leaving it stops and reaps the whole group, also after an exception or Ctrl-C.
    Start it from a thread that lives as long as it should: on Linux it is ended with that thread.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stop_timeout_s: float = 10.0,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._stop_timeout_s = stop_timeout_s
        self._stop_signal = stop_signal
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_from = log.tell()
            try:
                self._process: Running = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=None if environment is None else dict(environment),
                    start_new_session=True,
                    preexec_fn=_begin,
                )
            except OSError as error:
                raise ServiceError(f"{name} cannot be started ({error}): is {argv[0]} installed?") from None

    @classmethod
    def around(cls, name: str, process: Running, log_path: Path, *, stop_timeout_s: float = 10.0) -> Child:
        """A Child of a process that was started elsewhere, as the leader of a session of its own."""
        child = cls.__new__(cls)
        child.name, child.log_path, child._process = name, log_path, process
        child._log_from = 0
        child._stop_timeout_s, child._stop_signal = stop_timeout_s, signal.SIGTERM
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of what it printed; what others printed to the same file before is left out."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_from)
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `is_ready` says yes. Raises ServiceError with the log's end if it dies or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_alive():
                raise ServiceError(
                    f"{self.name} ended with code {self.returncode()} at start:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} was not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.01)

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; its exit code. Raises ServiceError if it does not."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServiceError(f"{self.name} still runs after {timeout_s:g} s:\n{self.log_tail()}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its children."""
        if self.is_alive():
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """kill -9 to the process and everything it started, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to stop, insist after the timeout, reap it and what it left in its group. Safe to call twice."""
        if self.is_alive():
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_timeout_s)
        self.kill_group()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
