"""Saves that arrive together share one transaction and one trip to Redis; none waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fuze_bench.errors import FuzeError
from fuze_bench.pipeline.bookmarks import NewBookmark, Saved
from fuze_bench.pipeline.service import BookmarkService, SaveResult

_Future = asyncio.Future[SaveResult]
_New = TypeVar("_New")
_Result = TypeVar("_Result")

#: One group holds the database's write lock for a few milliseconds, so that other processes get their turn.
_LARGEST_GROUP = 256


class GroupCommit:
    """Collects the saves of an event loop while the group before is being committed on one thread, and the one before
    that is put on its queues on another: the disk and Redis are waited for at the same time.
    """

    def __init__(self, service: BookmarkService) -> None:
        self._service = service
        self._waiting: list[tuple[NewBookmark, _Future]] = []
        self._committing: asyncio.Task[None] | None = None
        self._seeing_to: set[asyncio.Task[None]] = set()
        self._store, self._queue = (
            ThreadPoolExecutor(1, thread_name_prefix=f"group-{name}") for name in ("commit", "dispatch")
        )

    async def save(self, new: NewBookmark) -> SaveResult:
        """The result of this save, after its group is committed and enqueued. Raises StoreError."""
        loop = asyncio.get_running_loop()
        future: _Future = loop.create_future()
        self._waiting.append((new, future))
        if self._committing is None:
            self._committing = loop.create_task(self._commit())
        return await future

    async def close(self) -> None:
        """Wait until what has been accepted is committed and enqueued."""
        if self._committing is not None:
            await self._committing
        await asyncio.gather(*self._seeing_to)
        self._store.shutdown()
        self._queue.shutdown()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_LARGEST_GROUP], self._waiting[_LARGEST_GROUP:]
                await self._commit_group(group)
        finally:
            self._committing = None

    async def _commit_group(self, group: Sequence[tuple[NewBookmark, _Future]]) -> None:
        committed = await _results(self._store, self._service.commit_each, [new for new, _ in group])
        saved = []
        for (_, future), each in zip(group, committed, strict=True):
            if isinstance(each, Saved):
                saved.append((each, future))
            else:
                _tell(future, each)
        if saved:
            task = asyncio.create_task(self._see_to(saved))
            self._seeing_to.add(task)
            task.add_done_callback(self._seeing_to.discard)

    async def _see_to(self, saved: Sequence[tuple[Saved, _Future]]) -> None:
        results = await _results(self._queue, self._service.see_to, [each for each, _ in saved])
        for (_, future), result in zip(saved, results, strict=True):
            _tell(future, result)


async def _results(
    thread: ThreadPoolExecutor, function: Callable[[Sequence[_New]], Sequence[_Result]], items: Sequence[_New]
) -> Sequence[_Result | FuzeError]:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, items)
    except Exception as error:  # noqa: BLE001 - each waiting request raises it
        return [FuzeError(f"not saved, or not enqueued: {error!r}")] * len(items)


def _tell(future: _Future, result: SaveResult | FuzeError) -> None:
    if future.done():
        return  # whoever asked has gone
    if isinstance(result, FuzeError):
        future.set_exception(result)
    else:
        future.set_result(result)
