"""Talking to an origin byte by byte, and counting what it still holds."""

import asyncio
import gc
import socket
import time
from urllib.parse import urlsplit

import psutil

from fuze_bench.lab.parts.corpus import Page
from fuze_bench.lab.parts.origin import Origin

PAGES = [
    Page("a.html", "text/html; charset=utf-8", b"<title>A</title><p>first</p>", "A & B"),
    Page("b.html", "text/html", b"\xff\xfe<\0p\0>\0"),
    Page("c.html", "text/html; charset=koi8-r", b"<p>\xc1</p>"),
]


def exchange(url: str, request: bytes, *, stop_after: int = 1 << 20, timeout_s: float = 5) -> bytes:
    """What the server sends for these raw bytes, until it closes or `stop_after` bytes came."""
    received = b""
    with connected(url) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(request)
        while len(received) < stop_after and (data := connection.recv(65536)):
            received += data
    return received


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def wait_until(condition, timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def open_connections(origin: Origin) -> int:
    """Connections that the server's side still holds, as the kernel sees them."""
    port = urlsplit(origin.url).port
    sockets = psutil.Process().net_connections("tcp")
    return sum(found.laddr.port == port and found.status != psutil.CONN_LISTEN for found in sockets)


def pending_answers() -> int:
    """Streams and delayed replies that still run somewhere in this process.

    Looks at types, not with isinstance: that asks objects of other libraries, and some answer with a warning.
    """
    tasks = [
        found for found in gc.get_objects() if issubclass(type(found), asyncio.Task) and not found.done()
    ]
    timers = [
        found
        for found in gc.get_objects()
        if issubclass(type(found), asyncio.TimerHandle) and not found.cancelled()
    ]
    streams = sum("Connection._stream" in repr(task.get_coro()) for task in tasks)
    return streams + sum("Connection._send_late" in repr(timer) for timer in timers)
