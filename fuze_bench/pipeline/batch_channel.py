"""Between a batch worker and the child that runs its jobs: batches one way, records the other, and a shared page.

A record is written as soon as its job has ended, so that a child which dies takes no ended job along. The bell is rung
less often: the worker wakes up for a batch, not for a job.
"""

from __future__ import annotations

import contextlib
import marshal
import mmap
import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct("<I")
_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
_BUFFER_BYTES = 1 << 20
#: While jobs are short, the worker hears of them this often.
_RING_EVERY_S = 0.05


class Progress:
    """How far the child is, in memory that both see. Jobs are numbered; the numbers only grow.

    The child announces what it begins before it looks at what was withdrawn, the worker withdraws before it looks at
    what was begun: at least one of them sees the other.
    """

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, first: int, end: int) -> None:
        """The child is at the jobs from `first` to before `end`."""
        _FLOAT.pack_into(self._page, 16, time.monotonic())
        _INT.pack_into(self._page, 0, first)
        _INT.pack_into(self._page, 8, end)

    def hold(self, end: int) -> None:
        """Jobs before `end` are being prepared: too late to take them away."""
        _INT.pack_into(self._page, 24, end)

    def idle(self) -> None:
        _INT.pack_into(self._page, 0, _INT.unpack_from(self._page, 8)[0])

    @property
    def running(self) -> tuple[int, int]:
        """The first and the end of what the child is at; equal if it is at none."""
        return int(_INT.unpack_from(self._page, 0)[0]), int(_INT.unpack_from(self._page, 8)[0])

    @property
    def running_s(self) -> float:
        """For how long it has been at that."""
        return time.monotonic() - float(_FLOAT.unpack_from(self._page, 16)[0])

    @property
    def withdrawn_before(self) -> int:
        return int(_INT.unpack_from(self._page, 32)[0])

    @property
    def covered_until(self) -> float:
        """The time (since boot) up to which the worker's lease covers what the child begins."""
        return float(_FLOAT.unpack_from(self._page, 40)[0])

    @covered_until.setter
    def covered_until(self, since_boot_s: float) -> None:
        _FLOAT.pack_into(self._page, 40, since_boot_s)

    @property
    def waits(self) -> bool:
        """Whether the child has nothing to compute until the input that it has asked for is there."""
        return bool(_INT.unpack_from(self._page, 48)[0])

    @waits.setter
    def waits(self, waits: bool) -> None:
        _INT.pack_into(self._page, 48, waits)

    def withdraw(self, before: int) -> int:
        """Take back jobs numbered below `before` that the child has not begun: those from the returned number on."""
        _INT.pack_into(self._page, 32, before)
        time.sleep(0.001)  # the processor may let the child's announcement wait for a moment
        return max(self.running[1], int(_INT.unpack_from(self._page, 24)[0]))


class WorkerEnd:
    """The worker's end of the channel."""

    def __init__(self, batches: socket.socket, bell: int, progress: Progress) -> None:
        self._socket = batches
        self._bell = bell
        self._left_over = b""
        self.progress = progress
        os.set_blocking(bell, False)

    def send(self, batch: Any) -> None:
        """Raises BrokenPipeError or ConnectionResetError if the child is gone."""
        data = marshal.dumps(batch)
        self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def wait(self, timeout_s: float, woken: int) -> None:
        """Until the bell rings, the child is gone, something is written to the pipe `woken`, or the time is over."""
        poll = select.poll()
        for pipe in (self._bell, woken):
            poll.register(pipe, select.POLLIN)
        for pipe, _ in poll.poll(timeout_s * 1000):
            with contextlib.suppress(BlockingIOError):
                while len(os.read(pipe, 512)) == 512:
                    pass

    def records(self) -> Iterator[Any]:
        """What has arrived."""
        data = self._left_over
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while chunk := self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT):
                data += chunk
        at = 0
        records = []
        while len(data) - at >= 4:
            end = at + 4 + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            records.append(marshal.loads(data[at + 4 : end]))
            at = end
        self._left_over = data[at:]
        yield from records

    def close(self) -> None:
        self._socket.close()
        os.close(self._bell)


class ChildEnd:
    """The child's end. A thread takes in what the worker sends, so that neither waits for the other to read."""

    def __init__(self, batches: socket.socket, bell: int, progress: Progress) -> None:
        self._socket = batches
        self._bell = bell
        self._rung_s = time.monotonic()
        self._silent = False
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.progress = progress
        os.set_blocking(bell, False)

    def listen(self) -> None:
        threading.Thread(target=self._take_in, name="batches", daemon=True).start()

    def next_batch(self) -> Any:
        """The next batch; None once the worker has closed the channel."""
        return self._batches.get()

    def waiting_batch(self, timeout_s: float = 0.0) -> Any:
        """A batch that is there already, or comes soon; else None."""
        try:
            batch = self._batches.get(timeout=timeout_s) if timeout_s else self._batches.get_nowait()
        except queue.Empty:
            return None
        if batch is None:
            self._batches.put(None)  # for `next_batch`
        return batch

    def record(self, record: Any) -> None:
        """Tell what became of a job."""
        data = marshal.dumps(record)
        data = _LENGTH.pack(len(data)) + data
        self._silent = True
        try:
            sent = self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.ring()
            self._socket.sendall(data[sent:])
            self._silent = True
        if time.monotonic() - self._rung_s > _RING_EVERY_S:
            self.ring()

    def ring(self, *, always: bool = False) -> None:
        """Let the worker see what was recorded; `always`: also if nothing was."""
        if not (self._silent or always):
            return
        self._silent = False
        self._rung_s = time.monotonic()
        with contextlib.suppress(BlockingIOError):  # it has not yet heard the last rings
            os.write(self._bell, b"!")

    def _take_in(self) -> None:
        # A worker that closes its end while records are on their way to it resets the connection.
        with contextlib.suppress(ConnectionResetError), self._socket.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                self._batches.put(marshal.loads(stream.read(_LENGTH.unpack(head)[0])))
        self._batches.put(None)


def channel() -> tuple[socket.socket, socket.socket, int, int, Progress]:
    """Two ends of a socket, the bell's reading and writing end, and the page: made before the fork."""
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    heard, rung = os.pipe()
    return ours, theirs, heard, rung, Progress()
