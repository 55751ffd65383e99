"""The store: SQLAlchemy Core on SQLite or PostgreSQL. The database is the truth about every bookmark."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuze_bench.pipeline.bookmarks import (
    Bookmark,
    Claim,
    EmbeddingState,
    NewBookmark,
    Outcome,
    Reason,
    Saved,
    Status,
)
from fuze_bench.pipeline.database import Database
from fuze_bench.pipeline.rows import new_row, outcome_values, to_bookmark
from fuze_bench.pipeline.schema import SHORT_COLUMNS, bookmarks
from fuze_bench.pipeline.settings import Settings
from fuze_bench.timing import Clock, SystemClock

#: PostgreSQL's advisory lock of a transaction that saves several pages.
_GROUP_LOCK = 0x66757A66
#: No lease is set for longer.
_LONGEST_LEASE_S = 3_600.0
#: A bookmark that this many workers died over is left alone.
_MOST_DEATHS = 2

_t = bookmarks.c


class Store:
    """All statements about bookmarks. Safe to use from threads, and after a fork.

    Every method raises StoreError where the database cannot be reached or refuses. Context manager: closes it.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._db = Database(settings.sqlalchemy_url)
        self._upsert = _upsert(postgresql if self._db.is_postgresql else sqlite)

    def save(self, new: Sequence[NewBookmark]) -> list[Saved]:
        """Find or insert one row per user and page, all in one transaction, in the order given.

        A page that had failed is taken up again as a new generation; while one is pending, at work or processed,
        saving it again changes nothing but the title and description that were still missing.
        """
        now_s, now_ns = self._clock.wall_s(), self._clock.monotonic_ns()
        result = []
        with self._db.write() as connection:
            if self._db.is_postgresql and len(new) > 1:
                # Two groups with the same pages in another order would wait for each other's rows.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_GROUP_LOCK)))
            for item in new:
                token = uuid.uuid4().hex
                row = connection.execute(self._upsert, new_row(item, token, now_s, now_ns)).mappings().one()
                result.append(
                    Saved(
                        bookmark=to_bookmark(row),
                        was_duplicate=row["times_saved"] > 1,
                        needs_job=row["save_token"] == token,
                    )
                )
        return result

    def get(self, bookmark_id: int, user_id: int | None = None) -> Bookmark | None:
        """The bookmark, None if there is none (or it is not this user's, where one is given)."""
        query = sa.select(*SHORT_COLUMNS).where(_t.id == bookmark_id)
        if user_id is not None:
            query = query.where(_t.user_id == user_id)
        with self._db.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else to_bookmark(row)

    def page(
        self, user_id: int, *, status: Status | None = None, limit: int = 50, after: int | None = None
    ) -> list[Bookmark]:
        """Up to `limit` bookmarks, newest first, from the one behind the id `after` on."""
        query = sa.select(*SHORT_COLUMNS).where(_t.user_id == user_id).order_by(_t.id.desc()).limit(limit)
        if status is not None:
            query = query.where(_t.status == status)
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

    def rows(self, *columns: str) -> list[dict[str, Any]]:
        """The named columns of every bookmark, in order of their ids; for recording an experiment."""
        with self._db.read() as connection:
            query = sa.select(*(_t[name] for name in columns)).order_by(_t.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def claim(self, bookmark_ids: Sequence[int], lease_s: float) -> list[Claim]:
        """Take the bookmarks that wait for `lease_s` seconds; the others are somebody else's, or done.

        One conditional update: of any number of callers at once exactly one gets a row.
        """
        now_s, now_ns, token = (
            self._clock.wall_s(),
            self._clock.monotonic_ns(),
            f"{process_name()}-{uuid.uuid4().hex}",
        )
        statement = (
            sa.update(bookmarks)
            .where(_t.id.in_(bookmark_ids), _t.status == Status.PENDING)
            .values(
                status=Status.PROCESSING,
                claimed_by=token,
                lease_until=now_s + lease_s,
                started_at=now_s,
                started_ns=now_ns,
                attempts=_t.attempts + 1,
            )
            .returning(_t.id, _t.url, _t.user_id, _t.generation, _t.attempts, _t.tries, _t.queued_at)
        )
        with self._db.write() as connection:
            rows = connection.execute(statement).all()
        return [
            Claim(
                bookmark_id=row.id,
                url=row.url,
                user_id=row.user_id,
                token=token,
                generation=row.generation,
                attempts=row.attempts,
                tries=row.tries,
                queued_at=row.queued_at,
            )
            for row in rows
        ]

    def renew(self, claims: Sequence[Claim], lease_s: float) -> None:
        """Move the end of the leases that still hold to `lease_s` from now."""
        with self._db.write() as connection:
            connection.execute(
                sa.update(bookmarks)
                .where(
                    _t.id.in_([c.bookmark_id for c in claims]), _t.claimed_by.in_({c.token for c in claims})
                )
                .values(lease_until=self._clock.wall_s() + lease_s)
            )

    def release(self, claims: Sequence[Claim]) -> None:
        """Give the claims back unused: the bookmarks wait again, and the attempt does not count."""
        with self._db.write() as connection:
            for claim in claims:
                connection.execute(
                    sa.update(bookmarks)
                    .where(*_holds(claim))
                    .values(
                        status=Status.PENDING, claimed_by=None, lease_until=None, attempts=_t.attempts - 1
                    )
                )

    def finish(self, results: Sequence[tuple[Claim, Outcome, dict[str, float]]]) -> list[bool]:
        """Store each claim's outcome and stage durations (ms), all in one transaction.

        False for a claim that no longer held: its result is void, somebody else's counts.
        """
        now = {"done_at": self._clock.wall_s(), "done_ns": self._clock.monotonic_ns()}
        stored = []
        with self._db.write() as connection:
            for claim, outcome, durations_ms in results:
                values = {**outcome_values(outcome, now), "durations_ms": durations_ms}
                statement = (
                    sa.update(bookmarks)
                    .where(*_holds(claim))
                    .values(claimed_by=None, lease_until=None, **values)
                )
                stored.append(connection.execute(statement).rowcount == 1)
        return stored

    def take_back_expired(self) -> tuple[list[Bookmark], int]:
        """The bookmarks whose lease has run out wait again; those that killed their worker twice have failed.

        A lease that ends implausibly late (the clock was set back) counts as run out, too. Returns the ones that wait
        again, and how many have failed.
        """
        now_s = self._clock.wall_s()
        run_out = (_t.status == Status.PROCESSING) & (
            (_t.lease_until < now_s) | (_t.lease_until > now_s + _LONGEST_LEASE_S)
        )
        given_up = {
            "status": Status.FAILED,
            "reason": Reason.KILLED_WORKER,
            "error": sa.literal(Reason.KILLED_WORKER.sentence)
            + sa.func.coalesce(" (" + _t.death_note + ")", ""),
            "done_at": now_s,
            "done_ns": self._clock.monotonic_ns(),
        }
        died = {"claimed_by": None, "lease_until": None, "deaths": _t.deaths + 1}
        with self._db.write() as connection:
            poison = (
                sa.update(bookmarks).where(run_out, _t.deaths + 1 >= _MOST_DEATHS).values(**died, **given_up)
            )
            failed = connection.execute(poison).rowcount
            again = sa.update(bookmarks).where(run_out).values(**died, status=Status.PENDING)
            rows = connection.execute(again.returning(*SHORT_COLUMNS)).mappings().all()
        return [to_bookmark(row) for row in rows], failed

    def note_death(self, process: str, note: str) -> int:
        """The process of that `process_name` is dead: what it held is free at once. `note` says what it died of."""
        with self._db.write() as connection:
            statement = (
                sa.update(bookmarks)
                .where(_t.claimed_by.like(f"{process}-%"), _t.status == Status.PROCESSING)
                .values(lease_until=0.0, death_note=note)
            )
            return connection.execute(statement).rowcount

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

    def texts_without_vector(self, limit: int) -> list[tuple[int, str, str]]:
        """(id, content hash, text) of processed bookmarks whose embedding could not be had at the time."""
        query = (
            sa.select(_t.id, _t.content_hash, _t.text)
            .where(_t.status == Status.PROCESSED, _t.embedding == EmbeddingState.UNAVAILABLE)
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


def process_name(pid: int | None = None) -> str:
    """A name for a process of this host, this one by default, under which it holds claims."""
    return f"{pid or os.getpid()}@{socket.gethostname()[:100]}"


def _upsert(dialect: Any) -> Any:
    """Find or insert in one statement; a page that had failed becomes a new generation of this save."""
    insert = dialect.insert(bookmarks)
    new, failed = insert.excluded, _t.status == Status.FAILED
    again = {
        "times_saved": _t.times_saved + 1,
        "user_title": sa.func.coalesce(_t.user_title, new.user_title),
        "user_description": sa.func.coalesce(_t.user_description, new.user_description),
        "generation": sa.case((failed, _t.generation + 1), else_=_t.generation),
        "attempts": sa.case((failed, 0), else_=_t.attempts),
        "tries": sa.case((failed, 0), else_=_t.tries),
        "deaths": sa.case((failed, 0), else_=_t.deaths),
    }
    for name in ("status", "queue", "save_token", "queued_at", "queued_ns"):
        again[name] = sa.case((failed, new[name]), else_=_t[name])
    for name in (
        "reason",
        "error",
        "http_status",
        "started_at",
        "started_ns",
        "done_at",
        "done_ns",
        "durations_ms",
    ):
        again[name] = sa.case((failed, sa.null()), else_=_t[name])
    return insert.on_conflict_do_update(index_elements=[_t.user_id, _t.url_hash], set_=again).returning(
        *SHORT_COLUMNS
    )


def _holds(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _t.id == claim.bookmark_id,
        _t.claimed_by == claim.token,
        _t.generation == claim.generation,
        _t.status == Status.PROCESSING,
    )
