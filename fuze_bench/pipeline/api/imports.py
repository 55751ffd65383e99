"""Importing many pages at once, so that nobody who saves a single one has to wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fuze_bench.errors import InputError, StoreError
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.problems import database_fails
from fuze_bench.pipeline.api.requests import counting_refusals, json_answer, read_body, service_of, user_id
from fuze_bench.pipeline.bulk import ItemResult, Result, in_groups, save_group
from fuze_bench.pipeline.imports import Format, ImportItem, read_items
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings

_FILES = {"text/plain": Format.LINES, "text/csv": Format.CSV, "text/html": Format.HTML}
_SHOWN_CHARS = 8_000


class Importer:
    """Reads lists and saves their groups on the one thread that imports have: however many there are, one group is
    written at a time, and they take turns.
    """

    def __init__(self, service: BookmarkService) -> None:
        self._service = service
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="import")

    async def read(self, body: bytes, media_type: str) -> list[ImportItem]:
        """The entries of a list. Raises InputError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _read, body, media_type, self._service.settings)

    async def save(self, group: Sequence[ImportItem], user: int) -> list[ItemResult]:
        """Save a group in a transaction of its own, behind everything that is saved singly. Raises StoreError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: save_group(self._service, group, user_id=user, queue="low")
        )

    def close(self) -> None:
        """Wait for the group in hand; what nobody waits for any more is not begun."""
        self._thread.shutdown(cancel_futures=True)


async def import_bookmarks(request: Request) -> Response:
    """Save every page of a list, with an answer for each; a client that goes away ends it behind the group in hand."""
    with counting_refusals(request):
        items = await _received(request)
    importer: Importer = request.app.state.importer
    results: list[ItemResult] = []
    for group in in_groups(items):
        if await request.is_disconnected():
            break
        try:
            results += await importer.save(group, user_id(request))
        except StoreError as error:
            if not any(result.saved for result in results):
                raise
            why = f"not saved, send it again: {database_fails(error)}"
            results += [ItemResult(item, error=why) for item in items[len(results) :]]
            break
    return json_answer(_imported(results))


async def _received(request: Request) -> list[ImportItem]:
    """The entries that a request brings. Raises InputError."""
    settings = service_of(request).settings
    body = await read_body(request, settings.import_max_bytes)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and media_type not in _FILES:
        known = ", ".join(("application/json", *_FILES))
        raise InputError(f"Content-Type is {media_type[:50]!r}: send one of {known}", status=415)
    importer: Importer = request.app.state.importer
    return await importer.read(body, media_type)


def _read(body: bytes, media_type: str, settings: Settings) -> list[ImportItem]:
    if media_type == "application/json":
        items = [_item(page) for page in messages.read_import(body)]
    else:
        items = []
        for item in read_items(body, _FILES[media_type]):
            items.append(item)
            if len(items) > settings.import_max_items:
                break
    if len(items) > settings.import_max_items:
        limit = settings.import_max_items
        raise InputError(
            f"the list is too long: the limit is {limit:,} entries, send it in parts", status=413
        )
    return items


def _item(page: messages.ImportedPage | str) -> ImportItem:
    if isinstance(page, str):
        return ImportItem("", problem=page)
    return ImportItem(page.url, page.title, page.description)


def _imported(results: Sequence[ItemResult]) -> messages.Imported:
    counts = Counter(result.result for result in results)
    return messages.Imported(
        saved=counts[Result.SAVED],
        duplicates=counts[Result.DUPLICATE],
        refused=counts[Result.REFUSED],
        items=[_imported_item(result) for result in results],
        warning=next((result.warning for result in reversed(results) if result.warning), msgspec.UNSET),
    )


def _imported_item(result: ItemResult) -> messages.ImportedItem:
    item, saved = result.item, result.saved
    return messages.ImportedItem(
        url=_shown(item.url),
        result=result.result.value,
        line=item.line,
        bookmark_id=saved.bookmark.id if saved else None,
        job=saved.job if saved else None,
        error=result.error,
    )


def _shown(url: str) -> str:
    """The address as it was sent, unless it is absurdly long or no Unicode."""
    short = url if len(url) <= _SHOWN_CHARS else url[:_SHOWN_CHARS] + "…"
    return short.encode("utf-8", "replace").decode()
