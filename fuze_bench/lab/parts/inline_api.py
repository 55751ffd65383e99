"""An API that processes inside the request: what quick-save is compared with. `python -m fuze_bench.lab.parts.inline_api`

It reads, checks and answers as the pipeline's own API does, through the same guard. But nothing waits in a queue: the
answer goes out when the page has been fetched, read and stored, by one of as many threads as Starlette gives to
handlers that block. It has no queue and no recovery: a page that is to be tried again later is left to others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench import logs
from fuze_bench.errors import FuzeError, StoreError
from fuze_bench.pipeline.api import bookmarks, health, problems
from fuze_bench.pipeline.api.app import run
from fuze_bench.pipeline.api.guard import Guard
from fuze_bench.pipeline.api.hosts import Hosts
from fuze_bench.pipeline.api.rate_limit import RateLimit
from fuze_bench.pipeline.api.requests import counting_refusals, json_answer, service_of
from fuze_bench.pipeline.bookmarks import Bookmark, Mode, NewBookmark
from fuze_bench.pipeline.politeness import LocalHosts
from fuze_bench.pipeline.process import Pipeline
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import free_port
from fuze_bench.timing import SystemClock

HOST = "127.0.0.1"


class InlineJob(msgspec.Struct, frozen=True):
    """As JobHandle: the job that was done by the request itself."""

    id: str
    queue: str
    mode: Literal["inline"] = "inline"


class InlineSaved(msgspec.Struct, frozen=True, rename="camel"):
    """As QuickSaved, but the bookmark is what became of the page."""

    message: str
    bookmark: Bookmark
    processing: Literal["inline"]
    was_duplicate: bool
    job: InlineJob


def create_app(settings: Settings) -> Starlette:
    """The ASGI application for this machine; it loads the model at start."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service = await asyncio.to_thread(BookmarkService, settings)
        pipeline = Pipeline(settings, store=service.store, local_hosts=LocalHosts(settings), mode=Mode.THREAD)
        app.state.service, app.state.pipeline = service, pipeline
        try:
            await asyncio.to_thread(pipeline.preload)
            yield
        finally:
            await asyncio.to_thread(pipeline.close)
            await asyncio.to_thread(service.close)

    guard = Middleware(
        Guard,
        hosts=Hosts(HOST, settings.api_hosts),
        tokens=None,
        sessions=None,
        rate_limit=RateLimit(0, SystemClock()),
    )
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/api/bookmarks/quick-save", quick_save, methods=["POST"]),
            Route("/healthz", health.healthz, methods=["GET"]),
        ],
        middleware=[guard],
        exception_handlers=problems.HANDLERS,
    )


async def quick_save(request: Request) -> Response:
    """Save a page: fetched, read and stored when the answer goes out, or failed with its reason."""
    with counting_refusals(request):
        new = await bookmarks.page_to_save(request)
    saved = await run_in_threadpool(_processed, service_of(request), request.app.state.pipeline, new)
    return json_answer(saved, 200 if saved.was_duplicate else 201)


def _processed(service: BookmarkService, pipeline: Pipeline, new: NewBookmark) -> InlineSaved:
    [saved] = service.store.save([new])
    bookmark = saved.bookmark
    if saved.needs_job:
        pipeline.process([bookmark.id])
        found = service.store.get(bookmark.id)
        if found is None:
            raise StoreError(f"bookmark {bookmark.id} was deleted while it was processed")
        bookmark = found
    return InlineSaved(
        message="Bookmark already saved" if saved.was_duplicate else "Bookmark saved",
        bookmark=bookmark,
        processing="inline",
        was_duplicate=saved.was_duplicate,
        job=InlineJob(bookmark.job_id, bookmark.queue),
    )


def main() -> int:
    """The API itself, until SIGTERM; settings come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m fuze_bench.lab.parts.inline_api", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    logs.configure()
    try:
        settings = Settings.from_mapping(os.environ)
        logs.configure(settings.log_format)
        run(create_app(settings), HOST, free_port(HOST, chosen.port))
    except FuzeError as error:
        sys.stderr.write(f"inline_api: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
