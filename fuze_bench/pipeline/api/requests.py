"""What comes in and goes out: bodies within their limits, numbers, answers as JSON, and whose request it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fuze_bench.errors import InputError
from fuze_bench.pipeline.service import BookmarkService

#: Without tokens everything belongs to the one user.
ONLY_USER = 1
#: Where the guard notes in the scope whose request it is.
USER_KEY = "fuze_bench.user_id"
#: How much of a body that is too large is read, and for how long, before it is refused.
_DISCARDED_BYTES = 2 * 1024 * 1024
_DISCARD_S = 1.0

_encode = msgspec.json.Encoder().encode


def known_user(request: Request) -> int | None:
    """Whose request it is; None if that is not known."""
    user: int | None = request.scope.get(USER_KEY)
    return user


def user_id(request: Request) -> int:
    """Whose request it is. Raises HTTPException (401) if that is not known."""
    user = known_user(request)
    if user is None:
        raise HTTPException(401, "sign in, or send Authorization: Bearer and a token")
    return user


def service_of(request: Request) -> BookmarkService:
    """The application's service."""
    return cast(BookmarkService, request.app.state.service)


@contextlib.contextmanager
def counting_refusals(request: Request) -> Iterator[None]:
    """An InputError that passes is counted as a refused save."""
    try:
        yield
    except InputError:
        service_of(request).count_saves("refused")
        raise


def require_json(request: Request) -> None:
    """Raises InputError (415) unless the body is said to be JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InputError(f"Content-Type is {media_type[:50]!r}: send application/json", status=415)


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body; reading stops soon after the limit, whatever Content-Length says or does not say."""
    declared = request.headers.get("content-length", "0")
    stream = request.stream()
    if int(declared[:19]) > limit:
        if int(declared[:19]) <= _DISCARDED_BYTES and "expect" not in request.headers:
            await _discard(stream)
        raise InputError(f"the body has {declared[:19]} bytes: the limit is {limit:,}", status=413)
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            await _discard(stream)
            raise InputError(f"the body is too large: the limit is {limit:,} bytes", status=413)
    return bytes(body)


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Read a little on: a client that is still sending when the connection closes may never see the answer."""
    size = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DISCARD_S):
            async for chunk in stream:
                size += len(chunk)
                if size > _DISCARDED_BYTES:
                    return


def number_in(name: str, text: str | None, largest: int) -> int | None:
    """The number of a parameter, None where it is not given. Raises InputError unless it is from 1 to `largest`."""
    if text is None:
        return None
    number = read_digits(text)
    if not 1 <= number <= largest:
        raise InputError(f"{name}={text[:50]!r}: use a number from 1 to {largest}", field=name)
    return number


def read_digits(text: str) -> int:
    """The number that the digits spell; -1 for anything else, and for more digits than an id can have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else -1


def json_answer(value: Any, status: int = 200) -> Response:
    """`value` (of a type that msgspec encodes) as JSON."""
    return Response(_encode(value), status, media_type="application/json")
