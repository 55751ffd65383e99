"""What is said between a process and its confined reader, over a socket: messages with their length in front."""

from __future__ import annotations

import socket
import time
from typing import Any, TypeVar

import msgspec

from fuze_bench.pipeline.bookmarks import Reason
from fuze_bench.pipeline.extract import Extracted

_LENGTH_BYTES = 8


class Request(msgspec.Struct, frozen=True):
    """A page to read: the arguments of `extract`, and what log lines about it carry."""

    body: bytes
    content_type: str
    url: str
    log_fields: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True):
    """What was found on the page, or why nothing was; one with neither says that the reader is ready.

    `ends`: the reader's process ends after this, and another is to be started.
    """

    extracted: Extracted | None = None
    reason: Reason | None = None
    detail: str = ""
    ends: bool = False


Message = TypeVar("Message", Request, Reply)


def send(connection: socket.socket, message: Request | Reply, timeout_s: float | None = None) -> None:
    """Send the message. Raises OSError; TimeoutError if the other side does not take it in time."""
    data = msgspec.msgpack.encode(message)
    connection.settimeout(timeout_s)
    connection.sendall(len(data).to_bytes(_LENGTH_BYTES, "big"))
    connection.sendall(data)


def receive(connection: socket.socket, kind: type[Message], timeout_s: float | None = None) -> Message | None:
    """The next message; None if the other side is gone. Raises TimeoutError if it is not there in time."""
    until_s = None if timeout_s is None else time.monotonic() + timeout_s
    header = _exactly(connection, _LENGTH_BYTES, until_s)
    data = None if header is None else _exactly(connection, int.from_bytes(header, "big"), until_s)
    return None if data is None else msgspec.msgpack.decode(data, type=kind)


def _exactly(connection: socket.socket, size_bytes: int, until_s: float | None) -> bytearray | None:
    """So many bytes; None if the other side is gone before."""
    data = bytearray()
    while len(data) < size_bytes:
        connection.settimeout(None if until_s is None else max(0.001, until_s - time.monotonic()))
        try:
            piece = connection.recv(min(size_bytes - len(data), 2**20))
        except ConnectionError:
            return None
        if not piece:
            return None
        data += piece
    return data
