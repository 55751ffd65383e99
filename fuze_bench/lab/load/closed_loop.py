"""Saves as fast as they are answered: so many connections, each sending its next request when it has the last answer.

    python -m fuze_bench.lab.load.closed_loop URL CONNECTIONS DURATION_S

prints the answers a second and the p99 of their latency as JSON. For benchmarks of the server alone: a client that
waits for answers sends less when they are slow, so that a pipeline is to be loaded by `sender`, which does not.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement.stats import quantile

_START_S = 30
_RAMP_S = 0.5


class Answered(msgspec.Struct, frozen=True):
    """`per_s`: answers a second; `p99_ms`: of the time from sending to the whole answer, None of too few."""

    per_s: float
    p99_ms: float | None


def answers(url: str, connections: int, duration_s: float) -> Answered:
    """POST saves of pages that are all different to `url`, by a process of its own.

    What happens in the first half second does not count. Raises LabError where any answer is no success.
    """
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.lab.load.closed_loop", url, str(connections), str(duration_s)],
        capture_output=True,
        text=True,
        timeout=duration_s + _START_S,
        check=False,
    )
    if done.returncode:
        raise LabError(f"saving to {url} went wrong: {done.stderr.strip().splitlines()[-1]}")
    return msgspec.json.decode(done.stdout, type=Answered)


class _Saver(asyncio.Protocol):
    """One connection."""

    def __init__(self, number: int, target: bytes, latencies_ns: list[tuple[int, int]]) -> None:
        self._prefix = b'{"url":"http://example.org/%d/%d/' % (time.time_ns(), number)
        self._target = target
        self._latencies_ns = latencies_ns
        self._sent = 0
        self._answer = b""
        self.problem: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 2"):
            self.problem = f"answered {head[:40]!r} {body[:200]!r}"
            self._transport.close()
            return
        now_ns = time.perf_counter_ns()
        self._latencies_ns.append((now_ns, now_ns - self._sent_ns))
        self._answer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.problem = self.problem or "the server closed the connection"

    def _send(self) -> None:
        self._sent += 1
        body = self._prefix + b'%d","title":"A page about something"}' % self._sent
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(b"%s%d\r\n\r\n%s" % (self._target, len(body), body))


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[at:].split(b"\r\n", 1)[0])


def _same(saver: _Saver) -> _Saver:
    return saver


async def _save(url: str, connections: int, duration_s: float) -> Answered:
    parts = urlsplit(url)
    target = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    latencies_ns: list[tuple[int, int]] = []
    loop = asyncio.get_running_loop()
    savers = [_Saver(number, target, latencies_ns) for number in range(connections)]
    for saver in savers:
        await loop.create_connection(partial(_same, saver), parts.hostname or "", parts.port or 80)
    begin_ns = time.perf_counter_ns() + round(_RAMP_S * 1e9)
    await asyncio.sleep(_RAMP_S + duration_s)
    end_ns = time.perf_counter_ns()
    problems = [saver.problem for saver in savers if saver.problem]
    if problems:
        raise LabError(problems[0])
    counted_ms = [latency / 1e6 for at, latency in latencies_ns if begin_ns <= at < end_ns]
    return Answered(len(counted_ms) / (end_ns - begin_ns) * 1e9, quantile(counted_ms, 0.99))


if __name__ == "__main__":
    try:
        _found = uvloop.run(_save(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    except LabError as error:
        sys.exit(str(error))
    print(json.dumps(msgspec.to_builtins(_found)))  # noqa: T201
