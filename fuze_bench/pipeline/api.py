"""quick-save and the reading side over HTTP: Starlette, msgspec, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
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

_encode = msgspec.json.Encoder().encode
_decode_quick_save = msgspec.json.Decoder(messages.QuickSave).decode

Handler = Callable[[Request], Awaitable[Response]]


def create_app(settings: Settings) -> Starlette:
    """The ASGI application; it opens the store at start and closes it, with what its threads run, at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = await asyncio.to_thread(BookmarkService, settings)
        saver = GroupCommit(service)
        app.state.service, app.state.saver = service, saver
        try:
            yield
        finally:
            await saver.close()
            await asyncio.to_thread(service.close)

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", _page, methods=["GET"]),
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
            Exception: _on_bug,
        },
    )
    app.state.settings = settings
    app.state.openapi = _encode(openapi.describe(settings))
    return app


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
    uvicorn.Server(config).run()


async def _quick_save(request: Request) -> Response:
    settings = _service(request).settings
    _require_json(request)
    sent = _parsed(await _body(request, settings.body_max_bytes))
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
    query = request.query_params
    unknown = set(query) - {"status", "limit", "after"}
    if unknown:
        raise InputError(
            f"unknown parameter {min(unknown)!r}: use status, limit, after", field=min(unknown)[:100]
        )
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
    found = None
    if text.isascii() and text.isdigit() and 0 < int(text[:17]) <= _LARGEST_ID:
        found = await asyncio.to_thread(_service(request).store.get, int(text[:17]), ONLY_USER)
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


async def _page(request: Request) -> Response:
    html = (files("fuze_bench.pipeline") / "pages" / "index.html").read_text(encoding="utf-8")
    # The page carries its own style and script and talks to nobody but this server.
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})


def _service(request: Request) -> BookmarkService:
    return cast(BookmarkService, request.app.state.service)


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InputError(f"Content-Type is {media_type[:50]!r}: send application/json", status=415)


async def _body(request: Request, limit: int) -> bytes:
    """The request's body; reading stops at the limit, whatever Content-Length says or does not say."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:19]) > limit:
        raise InputError(f"the body has {declared[:19]} bytes: the limit is {limit:,}", status=413)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise InputError(f"the body is too large: the limit is {limit:,} bytes", status=413)
        chunks.append(chunk)
    return b"".join(chunks)


def _parsed(body: bytes) -> messages.QuickSave:
    try:
        return _decode_quick_save(body)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).partition(" - at `")
        raise InputError(detail, field=path.strip("`$.") or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the body is not JSON: {one_line(error)}", status=400) from None


def _number(name: str, text: str | None, largest: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:17]) <= largest):
        raise InputError(f"{name}={text[:50]!r}: use a number from 1 to {largest}", field=name)
    return int(text)


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
    # The rest of a body that was refused is not read: the connection cannot be used again.
    headers = {"Connection": "close"} if error.status in (413, 415) else None
    return _problem(error.status, str(error), error.field, headers)


def _on_store_error(_request: Request, error: Exception) -> Response:
    logger.error("%s", error)
    return _problem(503, "the database cannot be used at the moment; nothing was saved: try again later")


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _problem(404, f"there is nothing at {request.url.path[:200]!r}")
    return _problem(error.status_code, error.detail, headers=dict(error.headers or {}))


def _on_bug(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):
        logger.error("unexpected error in a request", exc_info=error)
    return _problem(500, "something went wrong here; it has been logged")
