"""Whether the process lives, and whether it can take saves."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from fuze_bench.errors import StoreError
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.problems import database_fails
from fuze_bench.pipeline.api.requests import json_answer, service_of


async def healthz(_request: Request) -> Response:
    """The process lives."""
    return json_answer(messages.Health("ok", "not asked", "not asked"))


async def readyz(request: Request) -> Response:
    """Saves can be taken."""
    service = service_of(request)
    problem = await asyncio.to_thread(service.queue.problem)
    queue = "ok" if problem is None else f"Redis is away: saves go to threads ({problem})"
    try:
        await asyncio.to_thread(service.store.ping)
    except StoreError as error:
        return json_answer(messages.Health("unavailable", database_fails(error), queue), 503)
    return json_answer(messages.Health("ok" if queue == "ok" else "degraded", "ok", queue))
