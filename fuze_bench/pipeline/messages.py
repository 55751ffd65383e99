"""What goes over the API: these types validate, encode, and make the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from fuze_bench.pipeline.bookmarks import Bookmark, Mode

QueueName = Literal["high", "default", "low"]


class QuickSave(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page to be saved; `title` and `description` win over the page's own."""

    url: Annotated[str, msgspec.Meta(min_length=1, examples=["https://example.org/an-article"])]
    title: str | None = None
    description: str | None = None
    queue: QueueName = "default"


class JobRef(msgspec.Struct, frozen=True):
    """The job that processes a bookmark, and who runs it."""

    id: str
    queue: str
    mode: Mode


class QuickSaved(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to a save; the page itself is fetched later."""

    message: str
    bookmark: Bookmark
    processing: Literal["background"]
    was_duplicate: bool
    job: JobRef


class BookmarkPage(msgspec.Struct, frozen=True):
    """Bookmarks, newest first; `next` is the `after` of the following page, null at the end."""

    bookmarks: list[Bookmark]
    next: int | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's state. Times are seconds since 1970 UTC, null where not yet or not known."""

    id: str
    status: str
    queue: str
    created_at: float | None
    enqueued_at: float | None
    started_at: float | None
    ended_at: float | None
    attempts: int
    error: str | None
    result: Any


class Health(msgspec.Struct, frozen=True):
    """`database` and `queue` say "ok", or what is wrong; without Redis, saves go to threads."""

    status: Literal["ok", "degraded", "unavailable"]
    database: str
    queue: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 describes it (application/problem+json); `field` names the offending field."""

    title: str
    status: int
    detail: str
    field: str | None = None
