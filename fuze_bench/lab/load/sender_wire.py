"""HTTP/1.1 as the sender speaks it: requests as bytes, and keep-alive connections with one request under way each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from fuze_bench.errors import LabError


class Target(msgspec.Struct, frozen=True):
    """Where requests go."""

    host: str
    port: int
    netloc: str

    @classmethod
    def of(cls, base_url: str) -> Target:
        """Raises LabError unless it is `http://host` or `http://host:port`."""
        try:
            parts = urlsplit(base_url)
            port = parts.port or 80
        except ValueError:
            raise LabError(f"base_url={base_url!r} cannot be read: use http://host:port") from None
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise LabError(f"base_url={base_url!r} is no server to send to: use http://host:port")
        return cls(parts.hostname, port, parts.netloc)


def request_bytes(
    target: Target, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> bytes:
    """The whole request; a body is JSON unless `headers` say otherwise."""
    fields = {"Host": target.netloc, **headers}
    if body is not None:
        fields.setdefault("Content-Type", "application/json")
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


class Listener(Protocol):
    """Told what becomes of a connection's requests."""

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        """The whole answer is there; `connection.is_open` says whether it can be used again."""

    def lost(self, connection: Connection, error: str) -> None:
        """The connection ended, whether a request was under way or not: `reset`, `closed` or `broken`."""


class Connection(asyncio.Protocol):
    """One connection, made by `create_connection`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._error: str | None = None
        self.idle_since_s = 0.0
        self.is_open = False

    def send(self, request: bytes) -> None:
        """Send a request; the one before must have been answered."""
        self._transport.write(request)

    def abort(self) -> None:
        """End it at once; `lost` is told nothing more than that it ended."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._error = "broken"
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._listener.lost(self, self._error or ("closed" if exc is None else "reset"))

    def on_message_begin(self) -> None:
        """Called by the parser, as are the next two."""
        self._body.clear()

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # not yet the answer
            return
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        self.idle_since_s = time.monotonic()
        self._listener.answered(self, self._parser.get_status_code(), b"".join(self._body))


def error_kind(error: OSError) -> str:
    """What kept a connection from being made, in a word of the record."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    return "timeout" if isinstance(error, TimeoutError) else "unreachable"
