"""The store: SQLAlchemy Core on SQLite or PostgreSQL. The database is the truth about every bookmark."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from fuze_bench.pipeline.bookmarks import (
    Bookmark,
    EmbeddingState,
    NewBookmark,
    ProcessingError,
    Reason,
    Saved,
    Status,
)
from fuze_bench.pipeline.claims import Claims
from fuze_bench.pipeline.database import Database
from fuze_bench.pipeline.rows import ended_values, new_bookmark, new_row, to_bookmark
from fuze_bench.pipeline.schema import SHORT_COLUMNS, bookmarks
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.upsert import FORGOTTEN, upsert_on_postgresql, upsert_on_sqlite
from fuze_bench.timing import Clock, SystemClock

_t = bookmarks.c


class Unfinished(NamedTuple):
    """A bookmark that waits or is at work; `queued_at` is seconds since 1970 UTC."""

    id: int
    generation: int
    queued_at: float
    is_pending: bool


class Store(Claims):
    """All statements about bookmarks. Safe to use from threads, and after a fork.

    Every method raises StoreError where the database cannot be reached or refuses. Context manager: closes it.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        super().__init__(Database(settings.sqlalchemy_url), clock or SystemClock(), settings.lease_s)
        self._upsert = upsert_on_postgresql if self._db.is_postgresql else upsert_on_sqlite

    def save(self, new: Sequence[NewBookmark]) -> list[Saved]:
        """Find or insert one row per user and page, all in one transaction, in the order given.

        A page that had failed is taken up again as a new generation; while one is pending, at work or processed,
        saving it again changes nothing but the title and description that were still missing.
        """
        if not new:
            return []
        now_s, now_ns = self._clock.wall_s(), self._clock.monotonic_ns()
        token = uuid.uuid4().hex[:24]
        rows = [new_row(item, f"{token}{n:08x}", now_s, now_ns) for n, item in enumerate(new)]
        with self._db.write() as connection:
            stored = self._upsert(connection, rows)
            known = _bookmarks(connection, [row.id for row in stored if row.times_saved > 1])
        return [
            Saved(
                bookmark=new_bookmark(found.id, row)
                if found.times_saved == 1
                # A page that is there twice was read once, as it was in the end.
                else msgspec.structs.replace(known[found.id], times_saved=found.times_saved),
                was_duplicate=found.times_saved > 1,
                needs_job=found.save_token == row["save_token"],
            )
            for found, row in zip(stored, rows, strict=True)
        ]

    def get(self, bookmark_id: int, user_id: int | None = None) -> Bookmark | None:
        """The bookmark, None if there is none (or it is not this user's, where one is given)."""
        query = sa.select(*SHORT_COLUMNS).where(_t.id == bookmark_id)
        if user_id is not None:
            query = query.where(_t.user_id == user_id)
        with self._db.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else to_bookmark(row)

    def page(
        self,
        user_id: int,
        *,
        status: Status | None = None,
        reason: Reason | None = None,
        limit: int = 50,
        after: int | None = None,
    ) -> list[Bookmark]:
        """Up to `limit` bookmarks, newest first, from the one behind the id `after` on.

        `reason`: those that failed for it, and those that are to be tried again after it.
        """
        query = sa.select(*SHORT_COLUMNS).where(_t.user_id == user_id).order_by(_t.id.desc()).limit(limit)
        if status is not None:
            query = query.where(_t.status == status)
        if reason is not None:
            query = query.where(_t.reason == reason)
        if after is not None:
            query = query.where(_t.id < after)
        with self._db.read() as connection:
            return [to_bookmark(row) for row in connection.execute(query).mappings()]

    def content(self, bookmark_id: int) -> tuple[str | None, bytes | None]:
        """The stored text and the vector (float32, unit length, as bytes); None where there is none."""
        with self._db.read() as connection:
            row = connection.execute(sa.select(_t.text, _t.vector).where(_t.id == bookmark_id)).one_or_none()
        return (None, None) if row is None else (row.text, row.vector)

    def counts(self) -> dict[str, int]:
        """Number of bookmarks in each status."""
        with self._db.read() as connection:
            found = connection.execute(
                sa.select(_t.status, sa.func.count().label("number")).group_by(_t.status)
            ).all()
        return dict.fromkeys(Status, 0) | {row.status: row.number for row in found}

    def oldest_due(self) -> dict[str, float]:
        """Seconds that the oldest waiting bookmark of each queue has been due for; queues where none waits are left out."""
        now_s = self._clock.wall_s()
        due_s = sa.func.coalesce(_t.retry_at, _t.queued_at)
        query = (
            sa.select(_t.queue, sa.func.min(due_s).label("since_s"))
            .where(_t.status == Status.PENDING, due_s <= now_s)
            .group_by(_t.queue)
        )
        with self._db.read() as connection:
            return {row.queue: now_s - row.since_s for row in connection.execute(query)}

    def rows(self, *columns: str) -> list[dict[str, Any]]:
        """The named columns of every bookmark, in order of their ids; for recording an experiment."""
        with self._db.read() as connection:
            query = sa.select(*(_t[name] for name in columns)).order_by(_t.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def reprocess(
        self, bookmark_ids: Sequence[int], queue: str, *, only_failed: bool = False
    ) -> list[Bookmark]:
        """Those of the bookmarks that had failed (or were done) wait again, as a new generation, for `queue`.

        What is stored of them stays until something better is found. Those that wait or are at work are left alone.
        """
        now_s, now_ns = self._clock.wall_s(), self._clock.monotonic_ns()
        ended = (Status.FAILED,) if only_failed else (Status.PROCESSED, Status.FAILED)
        again = {
            "status": Status.PENDING,
            "queue": queue,
            "generation": _t.generation + 1,
            "queued_at": now_s,
            "queued_ns": now_ns,
            **dict.fromkeys(("attempts", "tries", "deaths"), 0),
            **dict.fromkeys(FORGOTTEN, sa.null()),
            # They belong to the stored text, if there is any.
            **{
                name: sa.case((_t.content_hash.is_(None), sa.null()), else_=_t[name])
                for name in ("http_status", "durations_ms")
            },
        }
        statement = (
            sa.update(bookmarks)
            .where(_t.id.in_(bookmark_ids), _t.status.in_(ended))
            .values(again)
            .returning(*SHORT_COLUMNS)
        )
        with self._db.write() as connection:
            return [to_bookmark(row) for row in connection.execute(statement).mappings()]

    def cancel(self, bookmark_ids: Sequence[int]) -> list[Bookmark]:
        """Those of the bookmarks that wait or are at work have failed as `cancelled`; a result that still comes is void."""
        error = ProcessingError(Reason.CANCELLED, "by an operator")
        stamps = {"done_at": self._clock.wall_s(), "done_ns": self._clock.monotonic_ns()}
        found = []
        with self._db.write() as connection:
            for has_text, kept in ((False, _t.content_hash.is_(None)), (True, _t.content_hash.is_not(None))):
                ended = ended_values(error, stamps["done_at"], has_text=has_text)
                statement = (
                    sa.update(bookmarks)
                    .where(kept, _t.id.in_(bookmark_ids), _t.status.in_((Status.PENDING, Status.PROCESSING)))
                    .values({**ended, **stamps, "claimed_by": None, "lease_until": None})
                    .returning(*SHORT_COLUMNS)
                )
                found += [to_bookmark(row) for row in connection.execute(statement).mappings()]
        return found

    def delete(self, bookmark_id: int, user_id: int) -> Bookmark | None:
        """Forget the user's bookmark; None if there is none. Whoever works on it finds its claim void."""
        with self._db.write() as connection:
            statement = (
                sa.delete(bookmarks)
                .where(_t.id == bookmark_id, _t.user_id == user_id)
                .returning(*SHORT_COLUMNS)
            )
            row = connection.execute(statement).mappings().one_or_none()
        return None if row is None else to_bookmark(row)

    def failed(self, *, reason: Reason | None = None, since_s: float = 0.0) -> list[int]:
        """Ids of the bookmarks that have failed, for this reason if one is given, at `since_s` (1970 UTC) or later."""
        query = sa.select(_t.id).where(_t.status == Status.FAILED, _t.done_at >= since_s).order_by(_t.id)
        if reason is not None:
            query = query.where(_t.reason == reason)
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def failed_by_reason(self) -> dict[str, int]:
        """Number of failed bookmarks for each reason, most frequent first."""
        number = sa.func.count().label("number")
        query = (
            sa.select(_t.reason, number)
            .where(_t.status == Status.FAILED)
            .group_by(_t.reason)
            .order_by(number.desc())
        )
        with self._db.read() as connection:
            return {row.reason: row.number for row in connection.execute(query)}

    def unfinished(self) -> list[Unfinished]:
        """Every bookmark that waits or is at work."""
        query = sa.select(_t.id, _t.generation, _t.queued_at, _t.status).where(
            _t.status.in_((Status.PENDING, Status.PROCESSING))
        )
        with self._db.read() as connection:
            return [
                Unfinished(row.id, row.generation, row.queued_at, row.status == Status.PENDING)
                for row in connection.execute(query)
            ]

    @property
    def kind(self) -> str:
        """The database's product name."""
        return "PostgreSQL" if self._db.is_postgresql else "SQLite"

    def overdue(self, age_s: float, after_id: int, limit: int) -> list[Bookmark]:
        """Bookmarks that wait for longer than `age_s` beyond the time they were due, in order of their ids.

        One that is due implausibly late (the clock was set back) is overdue, too.
        """
        now_s = self._clock.wall_s()
        due_s = sa.func.coalesce(_t.retry_at, _t.queued_at)
        query = (
            sa.select(*SHORT_COLUMNS)
            .where(_t.status == Status.PENDING, _t.id > after_id)
            .where((due_s < now_s - age_s) | (_t.queued_at > now_s + age_s))
            .order_by(_t.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [to_bookmark(row) for row in connection.execute(query).mappings()]

    def texts_without_vector(self, after_id: int, limit: int) -> list[tuple[int, str, str]]:
        """(id, content hash, text) of processed bookmarks whose embedding could not be had at the time, by id."""
        query = (
            sa.select(_t.id, _t.content_hash, _t.text)
            .where(
                _t.status == Status.PROCESSED,
                _t.embedding == EmbeddingState.UNAVAILABLE,
                _t.id > after_id,
            )
            .order_by(_t.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [(row.id, row.content_hash, row.text) for row in connection.execute(query)]

    def fill_in_vectors(self, vectors: Sequence[tuple[int, str, bytes]], model: str) -> int:
        """Store (id, content hash, vector) for texts that are still the same; how many were."""
        with self._db.write() as connection:
            return sum(
                connection.execute(
                    sa.update(bookmarks)
                    .where(_t.id == bookmark_id, _t.content_hash == content_hash)
                    .values(vector=vector, embedding=EmbeddingState.OK, embedding_model=model)
                ).rowcount
                for bookmark_id, content_hash, vector in vectors
            )

    def ping(self) -> None:
        """Raises StoreError unless the database answers."""
        with self._db.read() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close every connection of this process."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _bookmarks(connection: sa.Connection, ids: Sequence[int]) -> dict[int, Bookmark]:
    if not ids:
        return {}
    found = connection.execute(sa.select(*SHORT_COLUMNS).where(_t.id.in_(ids))).mappings()
    return {row["id"]: to_bookmark(row) for row in found}
