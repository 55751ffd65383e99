"""The ASGI application: routes, life span, and the process that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.pipeline.api import (
    bookmarks,
    health,
    imports,
    metrics,
    openapi,
    pages,
    problems,
    queues,
    quick_saves,
    sessions,
    share,
)
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.api.guard import Guard
from fuze_bench.pipeline.api.hosts import Hosts, check_listening
from fuze_bench.pipeline.api.quick_saves import QuickSaves
from fuze_bench.pipeline.api.rate_limit import RateLimit
from fuze_bench.pipeline.api.sessions import Sessions
from fuze_bench.pipeline.api.tokens import Tokens
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.timing import Clock, SystemClock

logger = logging.getLogger(__name__)


def create_app(settings: Settings, host: str = "127.0.0.1", clock: Clock | None = None) -> Starlette:
    """The ASGI application; it opens the store at start and closes it, with what its threads run, at the end.

    `host`: where it is going to listen. Raises SettingsError if strangers could use it there, or if the file of tokens
    cannot be read.
    """
    check_listening(settings, host)
    clock = clock or SystemClock()
    tokens = None if settings.api_tokens is None else Tokens(settings.api_tokens)
    signed_in = None if tokens is None else Sessions(tokens, clock)
    guard = Middleware(
        Guard,
        hosts=Hosts(host, settings.api_hosts),
        tokens=tokens,
        sessions=signed_in,
        rate_limit=RateLimit(settings.rate_limit_per_min, clock),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = await asyncio.to_thread(BookmarkService, settings)
        saver = GroupCommit(service)
        app.state.service, app.state.saver = service, saver
        app.state.importer = imports.Importer(service)
        app.state.metrics = metrics.Metrics(service)
        recovering = asyncio.create_task(_recover(service))
        try:
            yield
        finally:
            recovering.cancel()
            await saver.close()
            await asyncio.to_thread(app.state.importer.close)
            await asyncio.to_thread(service.close)

    app = Starlette(
        lifespan=lifespan,
        routes=[
            *pages.routes(),
            *share.routes(),
            *queues.routes(),
            Route(quick_saves.PATH, bookmarks.quick_save, methods=["POST"]),
            Route("/api/bookmarks/import", imports.import_bookmarks, methods=["POST"]),
            Route("/api/bookmarks", bookmarks.list_bookmarks, methods=["GET"]),
            Route("/api/bookmarks/{id}", bookmarks.bookmark, methods=["GET", "DELETE"]),
            Route("/api/bookmarks/{id}/reprocess", bookmarks.reprocess, methods=["POST"]),
            Route("/api/jobs/{id:path}", bookmarks.job, methods=["GET"]),
            Route("/healthz", health.healthz, methods=["GET"]),
            Route("/readyz", health.readyz, methods=["GET"]),
            Route("/metrics", metrics.metrics, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
            *([] if tokens is None else [*pages.sign_in_routes(), *sessions.routes()]),
        ],
        middleware=[guard, Middleware(QuickSaves)],
        exception_handlers=problems.HANDLERS,
    )
    app.router.redirect_slashes = False
    app.state.settings, app.state.sessions = settings, signed_in
    app.state.openapi = msgspec.json.encode(openapi.describe(settings))
    return app


async def _recover(service: BookmarkService) -> None:
    """Look for what fell out of the queue, at once and then now and again; beside workers, seldom the first to look."""
    while True:
        await asyncio.to_thread(service.recovery.when_due)
        await asyncio.sleep(service.settings.lease_check_s)


def serve(settings: Settings, host: str, port: int, *, log_level: str = "warning") -> None:
    """Run the API in this process until it is told to stop. Raises SettingsError as `create_app` does."""
    run(create_app(settings, host), host, port, log_level=log_level)


def run(app: Starlette, host: str, port: int, *, log_level: str = "warning") -> None:
    """Run the application in this process until it is told to stop."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send them
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=64 * 1024,
    )
    # uvicorn stops gracefully at these and then raises them again, for whoever handled them before: nobody, so that
    # a clean stop is an exit code of 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)
    _Server(config).run()


class _Server(uvicorn.Server):
    """uvicorn's, which says where it serves once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            logger.info("the API is ready: http://%s:%d", self.config.host, self.config.port)


async def _openapi(request: Request) -> Response:
    return Response(request.app.state.openapi, media_type="application/json")
