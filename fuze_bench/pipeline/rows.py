"""Rows of the bookmarks table and the types they stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from fuze_bench.pipeline.bookmarks import (
    AttemptNote,
    Bookmark,
    EmbeddingState,
    NewBookmark,
    Outcome,
    Processed,
    ProcessingError,
    Reason,
    Status,
    TryAgain,
)
from fuze_bench.pipeline.schema import bookmarks

_t = bookmarks.c


def new_row(new: NewBookmark, token: str, now_s: float, now_ns: int) -> dict[str, Any]:
    """The row of a bookmark that is saved for the first time, now."""
    return {
        "user_id": new.user_id,
        "url": new.url,
        "canonical_url": new.canonical_url,
        # PostgreSQL cannot index values of several kilobytes.
        "url_hash": hashlib.sha256(new.canonical_url.encode()).digest(),
        "user_title": new.title or None,
        "user_description": new.description or None,
        "status": Status.PENDING.value,
        "queue": new.queue,
        "generation": 1,
        "attempts": 0,
        "tries": 0,
        "deaths": 0,
        "times_saved": 1,
        "save_token": token,
        "created_at": now_s,
        "queued_at": now_s,
        "queued_ns": now_ns,
    }


def new_bookmark(bookmark_id: int, row: Mapping[str, Any]) -> Bookmark:
    """The bookmark that a row of `new_row` has become."""
    return Bookmark(
        id=bookmark_id,
        user_id=row["user_id"],
        url=row["url"],
        canonical_url=row["canonical_url"],
        status=Status.PENDING,
        title=row["user_title"],
        description=row["user_description"],
        queue=row["queue"],
        generation=1,
        attempts=0,
        times_saved=1,
        created_at=row["created_at"],
    )


def outcome_values(outcome: Outcome, now: dict[str, Any], *, has_text: bool) -> dict[str, Any]:
    """The columns that an outcome changes; `now` has `done_at` and `done_ns`.

    `has_text`: an earlier generation found text, which a failure leaves as it is.
    """
    if isinstance(outcome, TryAgain):
        return {
            "status": Status.PENDING,
            "retry_at": now["done_at"] + outcome.delay_s,
            "tries": _t.tries + int(outcome.counts),
            **_failure_values(outcome.error, now["done_at"], has_text=has_text),
        }
    if isinstance(outcome, ProcessingError):
        return {**ended_values(outcome, now["done_at"], has_text=has_text), **now}
    cleared = {"reason": None, "error": None, "retry_at": None, "note": None}
    return {"status": Status.PROCESSED, **cleared, **_processed_values(outcome), **now}


def ended_values(error: ProcessingError, at_s: float, *, has_text: bool) -> dict[str, Any]:
    """The columns of a bookmark whose processing has ended with an error: failed, or still what it was before."""
    status = Status.PROCESSED if has_text else Status.FAILED
    return {"status": status, "retry_at": None, **_failure_values(error, at_s, has_text=has_text)}


def _failure_values(error: ProcessingError, at_s: float, *, has_text: bool) -> dict[str, Any]:
    values = _error_values(error)
    if not has_text:
        return values
    return {"note": {**values, "at": at_s}}


def _error_values(error: ProcessingError) -> dict[str, Any]:
    return {
        "reason": error.reason,
        "error": str(error).replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "http_status": error.http_status,
    }


def _processed_values(found: Processed) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in found.__struct_fields__ if name != "title"}
    # PostgreSQL has no place for NUL in a text.
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = value.replace("\0", "")
    return {**values, "page_title": found.title.replace("\0", "") if found.title else None}


def to_bookmark(row: Mapping[Any, Any]) -> Bookmark:
    """The bookmark of a row (of its short columns); a title of the user's wins over the page's."""
    return Bookmark(
        id=row["id"],
        user_id=row["user_id"],
        url=row["url"],
        canonical_url=row["canonical_url"],
        final_url=row["final_url"],
        status=Status(row["status"]),
        title=row["user_title"] or row["page_title"],
        description=row["user_description"],
        queue=row["queue"],
        generation=row["generation"],
        attempts=row["attempts"],
        times_saved=row["times_saved"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        done_at=row["done_at"],
        reason=Reason(row["reason"]) if row["reason"] else None,
        error=row["error"],
        http_status=row["http_status"],
        note=_note(row["note"]),
        retry_at=row["retry_at"],
        language=row["language"],
        published=row["published"],
        summary=row["summary"],
        keywords=row["keywords"] or [],
        word_count=row["word_count"],
        reading_time_s=row["reading_time_s"],
        content_hash=row["content_hash"],
        embedding=EmbeddingState(row["embedding"]) if row["embedding"] else None,
        embedding_model=row["embedding_model"],
        durations_ms=row["durations_ms"] or {},
    )


def _note(value: dict[str, Any] | None) -> AttemptNote | None:
    return AttemptNote(**{**value, "reason": Reason(value["reason"])}) if value else None
