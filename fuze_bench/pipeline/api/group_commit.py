"""Saves that arrive together share one transaction and one trip to Redis; none waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fuze_bench.errors import FuzeError
from fuze_bench.pipeline.bookmarks import NewBookmark
from fuze_bench.pipeline.service import BookmarkService, SaveResult

_Waiting = list[tuple[NewBookmark, asyncio.Future[SaveResult]]]

#: One group holds the database's write lock for a few milliseconds, so that other processes get their turn.
_LARGEST_GROUP = 256


class GroupCommit:
    """Collects the saves of an event loop while the previous group is being committed on a thread."""

    def __init__(self, service: BookmarkService) -> None:
        self._service = service
        self._waiting: _Waiting = []
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group-commit")

    async def save(self, new: NewBookmark) -> SaveResult:
        """The result of this save, after its group is committed and enqueued. Raises StoreError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[SaveResult] = loop.create_future()
        self._waiting.append((new, future))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait until what has been accepted is committed."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()

    async def _run(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
                await self._commit(group)
        finally:
            self._running = None

    async def _commit(self, group: _Waiting) -> None:
        results: Sequence[SaveResult | FuzeError]
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._service.save_each, [new for new, _ in group]
            )
        except Exception as error:  # noqa: BLE001 - each waiting request raises it
            results = [FuzeError(f"not saved: {error!r}")] * len(group)
        for (_, future), result in zip(group, results, strict=True):
            if future.done():
                continue  # whoever asked has gone
            if isinstance(result, SaveResult):
                future.set_result(result)
            else:
                future.set_exception(result)
