"""HTTP/1.1 on one connection of the origin: parse a request, send its answer whole, late, piecemeal or broken."""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from http.client import responses

HTML = "text/html; charset=utf-8"
REQUEST_LIMIT_BYTES = 64 * 1024
_END = b"\r\n\r\n"


class Ending(Enum):
    """What becomes of the connection after an answer."""

    KEEP = "keep"
    CLOSE = "close"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer: its head with the blank line, and its body, sent after `delay_s` seconds."""

    head: bytes
    body: bytes
    delay_s: float = 0.0
    ending: Ending = Ending.KEEP


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body is generated while it is sent; HEAD gets the head alone, if there is one.

    Without a head, the pieces are everything that goes over the wire.
    """

    head: bytes
    pieces: Callable[[], AsyncGenerator[bytes, None]]
    ending: Ending = Ending.KEEP


Answer = Reply | Stream


def reply(
    status: int = 200,
    body: bytes = b"",
    content_type: str = HTML,
    headers: Mapping[str, str] | None = None,
    *,
    delay_s: float = 0.0,
    ending: Ending = Ending.KEEP,
) -> Reply:
    """A reply with an honest Content-Length, unless `headers` name another one."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body))}
    if status in (204, 304):
        fields, body = {}, b""
    if ending is not Ending.KEEP:
        fields["Connection"] = "close"
    return Reply(head(status, fields | dict(headers or {})), body, delay_s, ending)


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line, headers and blank line."""
    lines = (f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {reason(status)}\r\n{''.join(lines)}\r\n".encode("latin-1")


def reason(status: int) -> str:
    """The status's usual reason phrase."""
    return responses.get(status, "Unknown")


class Connection(asyncio.Protocol):
    """One client's connection; `answer` maps a request target to its answer, `open_connections` lists all open ones.

    Whole replies go out straight from the parser; only streams take a task. Whatever is pending ends with
    the connection.
    """

    def __init__(self, answer: Callable[[str], Answer], open_connections: set["Connection"]) -> None:
        self._answer = answer
        self._open = open_connections
        self._buffer = b""
        self._pending: asyncio.Task[None] | asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take part in the list of open connections."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away: stop what is pending."""
        self._open.discard(self)
        if self._pending is not None:
            self._pending.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._writable.set()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer every complete request, one after the other."""
        self._buffer += data
        if len(self._buffer) > REQUEST_LIMIT_BYTES:
            self._transport.write(reply(431, ending=Ending.CLOSE).head)
            self._transport.close()
            return
        self._take_requests()

    def _take_requests(self) -> None:
        while self._pending is None and not self._transport.is_closing() and _END in self._buffer:
            request, _, self._buffer = self._buffer.partition(_END)
            self._take(request)

    def _take(self, request: bytes) -> None:
        method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
        target, _, version = rest.partition(b" ")
        lowered = request.lower()
        keeps = version == b"HTTP/1.1" and b"\nconnection: close" not in lowered
        if not version.startswith(b"HTTP/1.") or not target.startswith(b"/"):
            self._send(reply(400, ending=Ending.CLOSE), keeps=False, bodiless=False)
        elif method not in (b"GET", b"HEAD") or b"\ncontent-length:" in lowered:
            self._send(
                reply(405, headers={"Allow": "GET, HEAD"}, ending=Ending.CLOSE), keeps=False, bodiless=False
            )
        else:
            self._begin(self._answer(target.decode("latin-1")), keeps=keeps, bodiless=method == b"HEAD")

    def _begin(self, answer: Answer, *, keeps: bool, bodiless: bool) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(answer, Stream):
            self._pending = loop.create_task(self._stream(answer, keeps=keeps, bodiless=bodiless))
        elif answer.delay_s:
            self._pending = loop.call_later(answer.delay_s, self._send_late, answer, keeps, bodiless)
        else:
            self._send(answer, keeps=keeps, bodiless=bodiless)

    def _send_late(self, answer: Reply, keeps: bool, bodiless: bool) -> None:
        self._send(answer, keeps=keeps, bodiless=bodiless)
        self._pending = None
        self._take_requests()

    def _send(self, answer: Reply, *, keeps: bool, bodiless: bool) -> None:
        self._transport.write(answer.head if bodiless else answer.head + answer.body)
        self._end(answer.ending if keeps else Ending.CLOSE)

    async def _stream(self, answer: Stream, *, keeps: bool, bodiless: bool) -> None:
        if answer.head:
            self._transport.write(answer.head)
        if not (answer.head and bodiless):
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    self._transport.write(piece)
                    await asyncio.sleep(0)  # others get their turn even if this client keeps up
                    await self._writable.wait()
        self._pending = None
        self._end(answer.ending if keeps or answer.ending is Ending.RESET else Ending.CLOSE)
        self._take_requests()

    def _end(self, ending: Ending) -> None:
        if ending is Ending.CLOSE:
            self._transport.close()
        elif ending is Ending.RESET:
            no_linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, no_linger
            )
            self._transport.abort()
