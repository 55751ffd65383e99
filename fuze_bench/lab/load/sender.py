"""The lean load generator: sends requests at their intended times over raw HTTP, and waits for no answer to do so.

    python -m fuze_bench.lab.load.sender PLAN.json

A process of its own, so that nothing else of the lab delays it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import uvloop

from fuze_bench.errors import FuzeError, LabError, one_line
from fuze_bench.lab.load.request_log import Outcome, Sample, read_request_log
from fuze_bench.lab.load.sender_wire import Connection, Target, error_kind, request_bytes
from fuze_bench.processes import Child

QUICK_SAVE = "/api/bookmarks/quick-save"
#: Before a server closes what is idle (uvicorn after 5 s): a request sent into that would be lost.
_IDLE_S = 2.0
_SWEEP_S = 0.05
_START_S = 0.2
#: Answers are looked at after at most this many requests, however many are due.
_AT_ONCE = 32


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request of a plan; `intended_s` counts from the plan's start, `body` is anything that JSON can say."""

    intended_s: float
    path: str = QUICK_SAVE
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = {}
    name: str = "quick-save"


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send where. Requests are in the order of their times.

    `start_ns`: the monotonic time that they count from, None: soon. `connections`: the most that are open at once.
    `timeout_s`: when a request without an answer has failed. `drain_s`: how long after the last request answers are
    waited for.
    """

    base_url: str
    record: str
    requests: list[PlannedRequest]
    start_ns: int | None = None
    connections: int = 1_000
    timeout_s: float = 30.0
    drain_s: float = 10.0


def planned_saves(
    times_s: Sequence[float], urls: Iterable[str], queues: Iterable[str]
) -> list[PlannedRequest]:
    """A quick-save for each time; `urls` and `queues` are as many, or go on for ever."""
    return [
        PlannedRequest(intended_s=time_s, body={"url": url, "queue": queue})
        for time_s, url, queue in zip(times_s, urls, queues, strict=False)
    ]


def start_sender(plan: Plan, folder: Path) -> Child:
    """The process that carries out the plan; it ends by itself, SIGTERM makes it end at once with all recorded."""
    path = folder / "sender-plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    argv = [sys.executable, "-m", "fuze_bench.lab.load.sender", str(path)]
    return Child("the sender", argv, folder / "sender.log")


def send(plan: Plan, folder: Path) -> list[Sample]:
    """Carry out the plan in a process of its own, and what became of it. Raises LabError if the process fails."""
    last_s = plan.requests[-1].intended_s if plan.requests else 0.0
    with start_sender(plan, folder) as child:
        if child.wait(last_s + plan.drain_s + 60):
            raise LabError(f"the sender ended with code {child.returncode()}: {child.log_tail(1)}")
    return read_request_log(Path(plan.record))


class _Answer(msgspec.Struct, rename="camel"):
    """As much of quick-save's answer as is recorded."""

    class _Bookmark(msgspec.Struct):
        id: int
        queue: str | None = None

    class _Job(msgspec.Struct):
        id: str
        mode: str

    bookmark: _Bookmark
    job: _Job
    was_duplicate: bool


_decode_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class _Pending:
    """A request on its way."""

    __slots__ = ("connection", "intended_ns", "is_limited", "job", "name", "raw", "sent_ns")

    def __init__(self, job: int, name: str, intended_ns: int, raw: bytes) -> None:
        self.job, self.name, self.intended_ns, self.raw = job, name, intended_ns, raw
        self.sent_ns: int | None = None
        self.connection: Connection | None = None
        self.is_limited = False


class _Load:
    """Carries out one plan."""

    def __init__(self, plan: Plan, record: BinaryIO) -> None:
        self._plan, self._record = plan, record
        self._target = Target.of(plan.base_url)
        self._lines: list[bytes] = []
        self._idle: list[Connection] = []
        self._open = 0
        self._busy: dict[Connection, _Pending] = {}
        self._in_flight: dict[int, _Pending] = {}
        self._waiting: deque[_Pending] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send everything, wait for the answers; cancelled, record at once how things stand."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await self._offer(self._prepared())
            end_ns = time.monotonic_ns() + int(self._plan.drain_s * 1e9)
            while (self._in_flight or self._waiting) and time.monotonic_ns() < end_ns:
                await asyncio.sleep(_SWEEP_S / 10)
        except asyncio.CancelledError:
            pass  # told to stop
        finally:
            sweeping.cancel()
            self._give_up()

    def _prepared(self) -> list[_Pending]:
        encoded = [
            request_bytes(
                self._target, r.method, r.path, None if r.body is None else _encode(r.body), r.headers
            )
            for r in self._plan.requests
        ]
        start_ns = self._plan.start_ns or time.monotonic_ns() + int(_START_S * 1e9)
        return [
            _Pending(number, request.name, start_ns + round(request.intended_s * 1e9), raw)
            for number, (request, raw) in enumerate(zip(self._plan.requests, encoded, strict=True), start=1)
        ]

    async def _offer(self, schedule: list[_Pending]) -> None:
        # A collection would hold up everything that is due meanwhile.
        gc.collect()
        gc.disable()
        for number, pending in enumerate(schedule):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            while (wait_ns := pending.intended_ns - time.monotonic_ns()) > 0:
                await asyncio.sleep(wait_ns / 1e9)
            self._dispatch(pending)

    def _dispatch(self, pending: _Pending) -> None:
        connection = self._usable()
        if connection is not None:
            self._send(pending, connection)
        elif self._open < self._plan.connections:
            self._open += 1
            self._begin(pending)
            task = asyncio.create_task(self._connect(pending))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        else:
            pending.is_limited = True
            self._waiting.append(pending)

    def _usable(self) -> Connection | None:
        """The connection that was used last, unless it has been idle for too long."""
        fresh_s = time.monotonic() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since_s > fresh_s:
                return connection
            if connection.is_open:
                connection.abort()
        return None

    def _begin(self, pending: _Pending) -> None:
        pending.sent_ns = time.monotonic_ns()
        self._in_flight[pending.job] = pending

    async def _connect(self, pending: _Pending) -> None:
        loop, target = asyncio.get_running_loop(), self._target
        try:
            _, connection = await loop.create_connection(lambda: Connection(self), target.host, target.port)
        except OSError as error:
            self._open -= 1
            if pending.job in self._in_flight:
                self._settle(pending, "failed", error=error_kind(error))
            self._serve_next()
            return
        if pending.job in self._in_flight:
            self._write(pending, connection)
        else:  # it has timed out meanwhile
            self._release(connection)

    def _send(self, pending: _Pending, connection: Connection) -> None:
        self._begin(pending)
        self._write(pending, connection)

    def _write(self, pending: _Pending, connection: Connection) -> None:
        pending.connection = connection
        self._busy[connection] = pending
        connection.send(pending.raw)

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        """Called by the connection."""
        pending = self._busy.pop(connection, None)
        if pending is not None:
            is_ok = 200 <= status < 300
            self._settle(
                pending, "ok" if is_ok else "failed", None if is_ok else f"http_{status}", status, body
            )
        if connection.is_open:
            self._release(connection)

    def lost(self, connection: Connection, error: str) -> None:
        """Called by the connection."""
        self._open -= 1
        pending = self._busy.pop(connection, None)
        if pending is not None and pending.job in self._in_flight:
            self._settle(pending, "failed", error)
        self._serve_next()

    def _release(self, connection: Connection) -> None:
        if self._waiting:
            self._send(self._waiting.popleft(), connection)
        else:
            self._idle.append(connection)

    def _serve_next(self) -> None:
        if self._waiting and self._open < self._plan.connections:
            self._dispatch(self._waiting.popleft())

    def _settle(
        self,
        pending: _Pending,
        outcome: Outcome,
        error: str | None = None,
        status: int | None = None,
        body: bytes = b"",
    ) -> None:
        self._in_flight.pop(pending.job, None)
        answer = None
        if outcome == "ok" and body.startswith(b"{"):
            with contextlib.suppress(msgspec.DecodeError):  # the answer to something else
                answer = _decode_answer(body)
        is_over = outcome in ("ok", "failed")
        sample = Sample(
            job=pending.job,
            name=pending.name,
            intended_ns=pending.intended_ns,
            sent_ns=pending.sent_ns,
            acknowledged_ns=time.monotonic_ns() if is_over else None,
            outcome=outcome,
            limited=pending.is_limited,
            http_status=status,
            error=error,
            queue=answer.bookmark.queue if answer else None,
            bookmark_id=answer.bookmark.id if answer else None,
            job_id=answer.job.id if answer else None,
            mode=answer.job.mode if answer else None,
            was_duplicate=answer.was_duplicate if answer else None,
        )
        self._lines.append(_encode(sample))

    async def _sweep(self) -> None:
        """Now and then: let go of what takes too long, write what is known."""
        timeout_ns = int(self._plan.timeout_s * 1e9)
        while True:
            await asyncio.sleep(_SWEEP_S)
            too_old_ns = time.monotonic_ns() - timeout_ns
            # The oldest come first.
            overdue = []
            for pending in self._in_flight.values():
                assert pending.sent_ns is not None
                if pending.sent_ns > too_old_ns:
                    break
                overdue.append(pending)
            for pending in overdue:
                self._settle(pending, "failed", "timeout")
                if pending.connection is not None:
                    self._busy.pop(pending.connection, None)
                    pending.connection.abort()
            self._write_lines()

    def _write_lines(self) -> None:
        if self._lines:
            self._record.write(b"\n".join(self._lines) + b"\n")
            self._lines.clear()

    def _give_up(self) -> None:
        for pending in list(self._in_flight.values()):
            self._settle(pending, "unfinished")
        for pending in self._waiting:
            self._settle(pending, "unsent")
        self._waiting.clear()
        self._busy.clear()
        self._write_lines()


async def _carry_out(plan: Plan) -> None:
    with Path(plan.record).open("wb", buffering=0) as record:
        running = asyncio.create_task(_Load(plan, record).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        await running


def _allow_many_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def main(argv: list[str]) -> int:
    """Carry out the plan of the one file named; 2 and a line on standard error if that cannot be."""
    try:
        if len(argv) != 1:
            raise LabError("name one plan: python -m fuze_bench.lab.load.sender PLAN.json")
        try:
            plan = msgspec.json.decode(Path(argv[0]).read_bytes(), type=Plan)
        except (OSError, msgspec.DecodeError) as error:
            raise LabError(f"cannot read the plan {argv[0]} ({one_line(error)})") from None
        _allow_many_files(plan.connections + 64)
        uvloop.run(_carry_out(plan))
    except (FuzeError, OSError) as error:
        print(one_line(error), file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
