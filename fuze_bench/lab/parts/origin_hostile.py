"""The hostile answers of the origin: what a fetcher must survive."""

import asyncio
import functools
import random
import struct
import zlib
from collections.abc import AsyncGenerator, Callable

from .origin_wire import HTML, Answer, Ending, Stream, head, reply

BOMB_BYTES = 126_000_000
HUGE_BYTES = 100_000_000
DRIP_S = 0.2
_BINARY_BYTES = 64 * 1024
_PIECE_BYTES = 50_000
_BLOCK_BYTES = 1_000_000
_ENDLESS_PAUSE_S = (
    0.002  # at most 25 MB a second: enough for any limit, and the core stays free for the client
)


def empty() -> Answer:
    """200 and no body."""
    return reply()


def blank() -> Answer:
    """A newline for a page."""
    return reply(body=b"\n")


def binary() -> Answer:
    """64 KB of random bytes, always the same, declared as HTML."""
    return reply(body=random.Random(0).randbytes(_BINARY_BYTES), content_type="text/html")


def pdf() -> Answer:
    """A PDF that declares a charset."""
    body = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    return reply(body=body, content_type="application/pdf;charset=UTF-8")


def misdeclared() -> Answer:
    """A PNG picture of one pixel, declared as HTML."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\0")),
        (b"IEND", b""),
    )
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return reply(body=b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def bomb() -> Answer:
    """126 MB of HTML in some 375 KB of gzip, whatever the client accepts."""
    return reply(body=bomb_bytes(), headers={"Content-Encoding": "gzip"})


@functools.cache
def bomb_bytes() -> bytes:
    """The compressed bomb: one megabyte is compressed, its self-contained deflate block is repeated."""
    opening = b"<!DOCTYPE html><title>Bomb</title>".ljust(_BLOCK_BYTES)
    line = b"<p>The bomb is a page that grows when it is unpacked.</p>\n"
    block = (line * (_BLOCK_BYTES // len(line))).ljust(_BLOCK_BYTES)
    repeats = BOMB_BYTES // _BLOCK_BYTES - 1
    checksum = zlib.crc32(opening)
    for _ in range(repeats):
        checksum = zlib.crc32(block, checksum)
    deflated = _deflated(opening) + _deflated(block) * repeats + zlib.compressobj(wbits=-15).flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + deflated + struct.pack("<II", checksum, BOMB_BYTES)


def _deflated(block: bytes) -> bytes:
    """The block as raw deflate that ends on a byte and refers to nothing before it (RFC 1951)."""
    compressor = zlib.compressobj(9, wbits=-15)
    return compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)


def endless() -> Answer:
    """A chunked body that never ends."""
    chunk = b"%x\r\n%b\r\n" % (_PIECE_BYTES, _filler(_PIECE_BYTES))
    return _for_ever(chunk, head=head(200, {"Content-Type": HTML, "Transfer-Encoding": "chunked"}))


def long_chunk_line() -> Answer:
    """A chunk that never gets to the end of the line that says its size."""
    return _for_ever(
        b"1;" * _PIECE_BYTES, head=head(200, {"Content-Type": HTML, "Transfer-Encoding": "chunked"})
    )


def many_headers() -> Answer:
    """A head of ever more lines."""
    return _for_ever(b"X-More: and more\r\n" * 1_000, beginning=b"HTTP/1.1 200 OK\r\n")


def long_header() -> Answer:
    """A head with a line that never ends."""
    return _for_ever(b"x" * _PIECE_BYTES, beginning=b"HTTP/1.1 200 OK\r\nX-Long: ")


def many_continues() -> Answer:
    """ "Go on", said for ever, to a request that has nothing to go on with."""
    return _for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def _for_ever(piece: bytes, *, head: bytes = b"", beginning: bytes = b"") -> Stream:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield beginning
        while True:
            yield piece
            await asyncio.sleep(_ENDLESS_PAUSE_S)

    return Stream(head, pieces)


def huge() -> Answer:
    """100 MB with a Content-Length, generated on the way."""
    piece = _filler(_PIECE_BYTES)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for _ in range(HUGE_BYTES // _PIECE_BYTES):
            yield piece

    return Stream(head(200, {"Content-Type": HTML, "Content-Length": str(HUGE_BYTES)}), pieces)


def drip_body() -> Answer:
    """A body of 100 KB at one byte every 0.2 s."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        for byte in _filler(100_000):
            yield bytes((byte,))
            await asyncio.sleep(DRIP_S)

    return Stream(head(200, {"Content-Type": HTML, "Content-Length": "100000"}), pieces)


def drip_headers() -> Answer:
    """A head that never ends, at one byte every 0.2 s."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Drip: ":
            yield bytes((byte,))
            await asyncio.sleep(DRIP_S)
        while True:
            yield b"x"
            await asyncio.sleep(DRIP_S)

    return Stream(b"", pieces)


def hang() -> Answer:
    """The request is accepted and never answered."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    return Stream(b"", pieces)


def reset() -> Answer:
    """The connection is reset in the middle of the head."""
    whole = head(200, {"Content-Type": HTML, "Content-Length": "1000"})

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield whole[: len(whole) // 2]

    return Stream(b"", pieces, Ending.RESET)


def short() -> Answer:
    """Content-Length promises 10,000 bytes, the connection closes after fewer."""
    body = b"<!DOCTYPE html><title>Short</title><p>This page breaks off"
    return reply(body=body, headers={"Content-Length": "10000"}, ending=Ending.CLOSE)


def _filler(size_bytes: int) -> bytes:
    line = b"<p>One more paragraph of a page that goes on and on.</p>\n"
    return (line * (size_bytes // len(line))).ljust(size_bytes)


HOSTILE: dict[str, Callable[[], Answer]] = {
    "empty": empty,
    "blank": blank,
    "binary": binary,
    "pdf": pdf,
    "misdeclared": misdeclared,
    "bomb": bomb,
    "endless": endless,
    "long-chunk-line": long_chunk_line,
    "many-headers": many_headers,
    "long-header": long_header,
    "many-continues": many_continues,
    "huge": huge,
    "drip-body": drip_body,
    "drip-headers": drip_headers,
    "hang": hang,
    "reset": reset,
    "short": short,
}
