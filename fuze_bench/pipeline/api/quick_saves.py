"""quick-save without a framework around it: what is in order is answered here, everything else by its route.

Routing, a Request and a Response take a third of a save's time. The route (`bookmarks.quick_save`) stays the one that
says what is wrong with a request: it gets the body again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuze_bench.errors import FuzeError, InputError
from fuze_bench.pipeline.api import problems
from fuze_bench.pipeline.api.bookmarks import page_in, quick_saved
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.api.requests import USER_KEY
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.service import BookmarkService

PATH = "/api/bookmarks/quick-save"
_JSON = [(b"content-type", b"application/json")]
_encode = msgspec.json.Encoder().encode


class QuickSaves:
    """ASGI middleware, behind the guard."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or not _is_plain(scope):
            await self._app(scope, receive, send)
            return
        first = await receive()
        service: BookmarkService = scope["app"].state.service
        new = _page_to_save(service, scope, first)
        if new is None:
            await self._app(scope, _again(first, receive), send)
            return
        saver: GroupCommit = scope["app"].state.saver
        try:
            result = await saver.save(new)
        except FuzeError as error:
            await problems.answer(Request(scope), error)(scope, receive, send)
            return
        body = _encode(quick_saved(result))
        headers = [*_JSON, (b"content-length", b"%d" % len(body))]
        status = 200 if result.was_duplicate else 201
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _is_plain(scope: Scope) -> bool:
    """Whether it is a POST of JSON by a known user, with nothing asked for beyond it."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    types = [value for name, value in headers if name == b"content-type"]
    return scope["method"] == "POST" and types == [b"application/json"] and scope.get(USER_KEY) is not None


def _page_to_save(service: BookmarkService, scope: Scope, first: Message) -> NewBookmark | None:
    """What is to be saved, if the first message holds all of it and it is in order."""
    body: bytes = first.get("body", b"")
    if (
        first["type"] != "http.request"
        or first.get("more_body")
        or len(body) > service.settings.body_max_bytes
    ):
        return None
    try:
        return page_in(body, service, scope[USER_KEY])
    except InputError:
        return None


def _again(first: Message, receive: Receive) -> Receive:
    """A `receive` that begins with a message which has been received already."""
    waiting = [first]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
