"""quick-save and the reading side over HTTP: Starlette, msgspec, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any, cast

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.errors import InputError, StoreError, one_line
from fuze_bench.pipeline import messages, openapi
from fuze_bench.pipeline.bookmarks import Bookmark, Status
from fuze_bench.pipeline.group_commit import GroupCommit
from fuze_bench.pipeline.service import BookmarkService, SaveResult
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.task_queue import JobState

logger = logging.getLogger(__name__)

#: Until there are accounts, everything belongs to the one user.
ONLY_USER = 1
_LARGEST_ID = 2**53 - 1
#: How much of a body that is too large is read, and for how long, before it is refused.
_DISCARDED_BYTES = 2 * 1024 * 1024
_DISCARD_S = 1.0

#: The page has its style and script from this server, talks to nobody else, and never turns a text into markup.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_encode = msgspec.json.Encoder().encode

Handler = Callable[[Request], Awaitable[Response]]


def create_app(settings: Settings) -> Starlette:
    """The ASGI application; it opens the store at start and closes it, with what its threads run, at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = await asyncio.to_thread(BookmarkService, settings)
        saver = GroupCommit(service)
        app.state.service, app.state.saver = service, saver
        recovering = asyncio.create_task(_recover(service))
        try:
            yield
        finally:
            recovering.cancel()
            await saver.close()
            await asyncio.to_thread(service.close)

    app = Starlette(
        lifespan=lifespan,
        routes=[
            _file("/", "index.html", "text/html"),
            _file("/page.css", "page.css", "text/css"),
            _file("/page.js", "page.js", "text/javascript"),
            Route("/api/bookmarks/quick-save", _quick_save, methods=["POST"]),
            Route("/api/bookmarks", _list, methods=["GET"]),
            Route("/api/bookmarks/{id}", _bookmark, methods=["GET"]),
            Route("/api/jobs/{id:path}", _job, methods=["GET"]),
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/readyz", _readyz, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
        ],
        exception_handlers={
            InputError: _on_input_error,
            StoreError: _on_store_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_bug,
        },
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.openapi = _encode(openapi.describe(settings))
    return app


async def _recover(service: BookmarkService) -> None:
    """Look for what fell out of the queue, at once and then now and again; beside workers, seldom the first to look."""
    while True:
        await asyncio.to_thread(service.recovery.when_due)
        await asyncio.sleep(service.settings.lease_check_s)


def serve(settings: Settings, host: str, port: int, *, log_level: str = "warning") -> None:
    """Run the API in this process until it is told to stop."""
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_level=log_level,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=64 * 1024,
    )
    # uvicorn stops gracefully at these and then raises them again, for whoever handled them before: nobody, so that
    # a clean stop is an exit code of 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)
    uvicorn.Server(config).run()


async def _quick_save(request: Request) -> Response:
    settings = _service(request).settings
    body = await _body(request, settings.body_max_bytes)
    _require_json(request)
    sent = messages.read_quick_save(body)
    new = _service(request).check(
        user_id=ONLY_USER, url=sent.url, title=sent.title, description=sent.description, queue=sent.queue
    )
    saver: GroupCommit = request.app.state.saver
    result = await saver.save(new)
    return _json(_quick_saved(result), 200 if result.was_duplicate else 201)


def _quick_saved(result: SaveResult) -> messages.QuickSaved:
    return messages.QuickSaved(
        message="Bookmark already saved" if result.was_duplicate else "Bookmark saved",
        bookmark=result.bookmark,
        processing="background",
        was_duplicate=result.was_duplicate,
        job=messages.JobRef(result.job.id, result.job.queue, result.job.mode),
    )


async def _list(request: Request) -> Response:
    query = dict(request.query_params)
    for name in query:
        if name not in ("status", "limit", "after"):
            raise InputError(f"unknown parameter {name[:50]!r}: use status, limit, after", field=name[:50])
    if len(request.query_params.multi_items()) > len(query):
        raise InputError("a parameter is given twice: give status, limit and after at most once")
    status = query.get("status")
    if status is not None and status not in list(Status):
        raise InputError(f"status={status[:50]!r}: use one of {', '.join(Status)}", field="status")
    limit = _number("limit", query.get("limit"), 200) or 50
    found = await asyncio.to_thread(
        _service(request).store.page,
        ONLY_USER,
        status=Status(status) if status else None,
        limit=limit,
        after=_number("after", query.get("after"), _LARGEST_ID),
    )
    return _json(messages.BookmarkPage(found, found[-1].id if len(found) == limit else None))


async def _bookmark(request: Request) -> Response:
    return _json(await _found_bookmark(request))


async def _found_bookmark(request: Request) -> Bookmark:
    text = request.path_params["id"]
    if text == "quick-save":
        raise HTTPException(405, headers={"Allow": "POST"})
    found, number = None, _read_number(text)
    if 0 < number <= _LARGEST_ID:
        found = await asyncio.to_thread(_service(request).store.get, number, ONLY_USER)
    if found is None:
        raise InputError(f"there is no bookmark {text[:50]!r}", status=404)
    return found


async def _job(request: Request) -> Response:
    service, job_id = _service(request), request.path_params["id"]
    state: JobState | None = await asyncio.to_thread(service.queue.job_state, job_id, service.store)
    if state is None:
        raise InputError(f"there is no job {job_id[:50]!r}", status=404)
    return _json(state)


async def _healthz(request: Request) -> Response:
    return _json(messages.Health("ok", "not asked", "not asked"))


async def _readyz(request: Request) -> Response:
    service = _service(request)
    queue = (
        "ok" if await asyncio.to_thread(service.queue.is_available) else "Redis is away: saves go to threads"
    )
    try:
        await asyncio.to_thread(service.store.ping)
    except StoreError as error:
        return _json(messages.Health("unavailable", one_line(error), queue), 503)
    return _json(messages.Health("ok" if queue == "ok" else "degraded", "ok", queue))


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.openapi, media_type="application/json")


def _file(path: str, name: str, media_type: str) -> Route:
    """A route to one of the page's files, read once, here."""
    content = (files("fuze_bench.pipeline") / "pages" / name).read_bytes()

    async def answer(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

    return Route(path, answer, methods=["GET"])


def _service(request: Request) -> BookmarkService:
    return cast(BookmarkService, request.app.state.service)


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InputError(f"Content-Type is {media_type[:50]!r}: send application/json", status=415)


async def _body(request: Request, limit: int) -> bytes:
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


def _number(name: str, text: str | None, largest: int) -> int | None:
    if text is None:
        return None
    number = _read_number(text)
    if not 1 <= number <= largest:
        raise InputError(f"{name}={text[:50]!r}: use a number from 1 to {largest}", field=name)
    return number


def _read_number(text: str) -> int:
    """The number that the digits spell; -1 for anything else, and for more digits than an id can have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else -1


def _json(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


_TITLES = {400: "Bad request", 404: "Not found", 405: "Method not allowed", 413: "Too large",
           415: "Unsupported media type", 422: "Not acceptable", 503: "Unavailable"}  # fmt: skip


def _problem(
    status: int, detail: str, field: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    body = messages.Problem(title=_TITLES.get(status, "Error"), status=status, detail=detail, field=field)
    return Response(_encode(body), status, headers=headers, media_type="application/problem+json")


def _on_input_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    # The rest of a body that is too large is not read: the connection cannot be used again.
    headers = {"Connection": "close"} if error.status == 413 else None
    return _problem(error.status, str(error), error.field, headers)


def _on_store_error(_request: Request, error: Exception) -> Response:
    logger.error("%s", error)
    return _problem(503, "the database cannot be used at the moment; nothing was saved: try again later")


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _problem(404, f"there is nothing at {request.url.path[:200]!r}")
    allowed = (error.headers or {}).get("Allow")
    detail = f"{request.method[:20]} is not possible here: use {allowed}" if allowed else error.detail
    return _problem(error.status_code, detail, headers=dict(error.headers or {}))


def _on_disconnect(_request: Request, _error: Exception) -> Response:
    # Nobody is there to read it.
    return _problem(400, "the body ended before it was complete")


def _on_bug(_request: Request, error: Exception) -> Response:
    logger.error("unexpected error in a request", exc_info=error)
    return _problem(500, "something went wrong here; it has been logged")
