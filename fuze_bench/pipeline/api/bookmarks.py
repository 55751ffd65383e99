"""quick-save, and reading bookmarks and jobs."""

from __future__ import annotations

import asyncio
import enum
from typing import TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fuze_bench.errors import InputError
from fuze_bench.pipeline.api import messages
from fuze_bench.pipeline.api.group_commit import GroupCommit
from fuze_bench.pipeline.api.requests import (
    counting_refusals,
    json_answer,
    number_in,
    read_body,
    read_digits,
    require_json,
    service_of,
    user_id,
)
from fuze_bench.pipeline.bookmarks import LARGEST_ID, Bookmark, NewBookmark, Reason, Status
from fuze_bench.pipeline.job_states import JobState, no_such_job
from fuze_bench.pipeline.service import BookmarkService, SaveResult

_LIST_PARAMETERS = ("status", "reason", "limit", "after")
_Choice = TypeVar("_Choice", bound=enum.StrEnum)


async def quick_save(request: Request) -> Response:
    """Save a page: committed and on its way when the answer goes out."""
    with counting_refusals(request):
        result = await _saved(request)
    return json_answer(quick_saved(result), 200 if result.was_duplicate else 201)


async def _saved(request: Request) -> SaveResult:
    new = await page_to_save(request)
    saver: GroupCommit = request.app.state.saver
    return await saver.save(new)


async def page_to_save(request: Request) -> NewBookmark:
    """What the request asks to be saved. Raises InputError."""
    settings = service_of(request).settings
    body = await read_body(request, settings.body_max_bytes)
    require_json(request)
    return page_in(body, service_of(request), user_id(request))


def page_in(body: bytes, service: BookmarkService, user: int) -> NewBookmark:
    """What the body of a quick-save asks to be saved. Raises InputError."""
    sent = messages.read_quick_save(body)
    return service.check(
        user_id=user,
        url=sent.url,
        title=sent.title,
        description=sent.description,
        queue=sent.queue,
    )


def quick_saved(result: SaveResult, message: str | None = None) -> messages.QuickSaved:
    """The answer to a save; `message` says something else than that it is saved."""
    message = message or ("Bookmark already saved" if result.was_duplicate else "Bookmark saved")
    return messages.QuickSaved(
        message=message,
        bookmark=result.bookmark,
        processing="background",
        was_duplicate=result.was_duplicate,
        job=result.job,
        warning=result.warning or msgspec.UNSET,
    )


async def list_bookmarks(request: Request) -> Response:
    """Bookmarks of the user, newest first."""
    query = dict(request.query_params)
    for name in query:
        if name not in _LIST_PARAMETERS:
            raise InputError(
                f"unknown parameter {name[:50]!r}: use {', '.join(_LIST_PARAMETERS)}", field=name[:50]
            )
    if len(request.query_params.multi_items()) > len(query):
        raise InputError(f"a parameter is given twice: give {', '.join(_LIST_PARAMETERS)} at most once")
    limit = number_in("limit", query.get("limit"), 200) or 50
    found = await asyncio.to_thread(
        service_of(request).store.page,
        user_id(request),
        status=_one_of(Status, "status", query.get("status")),
        reason=_one_of(Reason, "reason", query.get("reason")),
        limit=limit,
        after=number_in("after", query.get("after"), LARGEST_ID),
    )
    return json_answer(messages.BookmarkPage(found, found[-1].id if len(found) == limit else None))


def _one_of(kind: type[_Choice], name: str, text: str | None) -> _Choice | None:
    if text is None or text in list(kind):
        return None if text is None else kind(text)
    raise InputError(f"{name}={text[:50]!r}: use one of {', '.join(kind)}", field=name)


async def bookmark(request: Request) -> Response:
    """Show or forget one bookmark."""
    found = await _found_bookmark(request)
    if request.method != "DELETE":
        return json_answer(found)
    await asyncio.to_thread(service_of(request).delete, found.id, found.user_id)
    return Response(status_code=204)


async def _found_bookmark(request: Request) -> Bookmark:
    text = request.path_params["id"]
    if text in ("quick-save", "import"):
        raise HTTPException(405, headers={"Allow": "POST"})
    found, number = None, read_digits(text)
    if 0 < number <= LARGEST_ID:
        found = await asyncio.to_thread(service_of(request).store.get, number, user_id(request))
    if found is None:
        raise InputError(f"there is no bookmark {text[:50]!r}", status=404)
    return found


async def reprocess(request: Request) -> Response:
    """Process a bookmark again; what is stored of it stays until something better is found."""
    service, found = service_of(request), await _found_bookmark(request)
    again = await asyncio.to_thread(service.reprocess, [found.id])
    if again:
        return json_answer(quick_saved(again[0], "Bookmark will be processed again"), 202)
    present = await asyncio.to_thread(service.present, await _found_bookmark(request))
    return json_answer(quick_saved(present, "Bookmark is being processed already"), 202)


async def job(request: Request) -> Response:
    """The state of a job."""
    service, job_id = service_of(request), request.path_params["id"]
    state: JobState | None = await asyncio.to_thread(
        service.queue.job_state, job_id, service.store, user_id(request)
    )
    if state is None:
        raise await asyncio.to_thread(no_such_job, job_id, service.store, user_id(request))
    return json_answer(state)
