"""How many jobs wait: read-only, and asked of Redis by this process at most once a second, whoever wants to know."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fuze_bench.errors import QueueUnavailableError
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.requests import json_answer, service_of
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import QUEUES

_FRESH_S = 1.0
#: A Redis that needs longer counts as away; its answer, should it come, is for the next who asks.
_PATIENCE_S = 0.3

_AWAY = messages.Queues("away", [messages.QueueDepth(name) for name in QUEUES])


def routes() -> list[Route]:
    """`/api/queues`."""
    depths = _Depths()

    async def queues(request: Request) -> Response:
        return json_answer(await depths.present(service_of(request)))

    return [Route("/api/queues", queues, methods=["GET"])]


class _Depths:
    """The last answer, and the one lookup that may be under way."""

    def __init__(self) -> None:
        self._looked_s = -_FRESH_S
        self._lookup: asyncio.Task[messages.Queues] | None = None

    async def present(self, service: BookmarkService) -> messages.Queues:
        now_s = time.monotonic()
        if self._lookup is None or (self._lookup.done() and now_s - self._looked_s >= _FRESH_S):
            self._looked_s = now_s
            self._lookup = asyncio.create_task(asyncio.to_thread(_look, service))
        done, _ = await asyncio.wait({self._lookup}, timeout=_PATIENCE_S)
        return self._lookup.result() if done else _AWAY


def _look(service: BookmarkService) -> messages.Queues:
    try:
        depths = service.queue.depths()
    except QueueUnavailableError:
        return _AWAY
    return messages.Queues("ok", [messages.QueueDepth(name, *depths[name]) for name in QUEUES])
