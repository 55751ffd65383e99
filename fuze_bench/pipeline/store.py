"""The store: SQLAlchemy Core on SQLite or PostgreSQL. The database is the truth about every bookmark."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuze_bench.errors import StoreError, one_line
from fuze_bench.pipeline.bookmarks import (
    Bookmark,
    Claim,
    EmbeddingState,
    NewBookmark,
    Outcome,
    Processed,
    ProcessingError,
    Reason,
    Saved,
    Status,
    TryAgain,
)
from fuze_bench.pipeline.schema import SHORT_COLUMNS, bookmarks, metadata
from fuze_bench.pipeline.settings import Settings
from fuze_bench.timing import Clock, SystemClock

#: SQLite waits this long for another writer; no transaction here takes a hundredth of it.
_SQLITE_BUSY_TIMEOUT_S = 60
_SCHEMA_LOCK = 0x66757A65

_t = bookmarks.c


class Store:
    """All statements about bookmarks. Safe to use from threads, and after a fork.

    Every method raises StoreError where the database cannot be reached or refuses. Context manager: closes it.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._url = settings.sqlalchemy_url
        self._clock = clock or SystemClock()
        self._engine, self._pid = _make_engine(self._url), os.getpid()
        self._upsert = _upsert(postgresql if self.is_postgresql else sqlite)
        with self._write() as connection:
            _create_schema(connection)

    @property
    def is_postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    def save(self, new: Sequence[NewBookmark]) -> list[Saved]:
        """Find or insert one row per user and page, all in one transaction, in the order given.

        A page that had failed is taken up again as a new generation; while one is pending, at work or processed,
        saving it again changes nothing but the title and description that were still missing.
        """
        now_s, now_ns = self._clock.wall_s(), self._clock.monotonic_ns()
        result = []
        with self._write() as connection:
            for item in new:
                token = uuid.uuid4().hex
                row = connection.execute(self._upsert, _new_row(item, token, now_s, now_ns)).mappings().one()
                result.append(
                    Saved(
                        bookmark=_to_bookmark(row),
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
        with self._read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _to_bookmark(row)

    def page(
        self, user_id: int, *, status: Status | None = None, limit: int = 50, after: int | None = None
    ) -> list[Bookmark]:
        """Up to `limit` bookmarks, newest first, from the one behind the id `after` on."""
        query = sa.select(*SHORT_COLUMNS).where(_t.user_id == user_id).order_by(_t.id.desc()).limit(limit)
        if status is not None:
            query = query.where(_t.status == status)
        if after is not None:
            query = query.where(_t.id < after)
        with self._read() as connection:
            return [_to_bookmark(row) for row in connection.execute(query).mappings()]

    def content(self, bookmark_id: int) -> tuple[str | None, bytes | None]:
        """The stored text and the vector (float32, unit length, as bytes); None where there is none."""
        with self._read() as connection:
            row = connection.execute(sa.select(_t.text, _t.vector).where(_t.id == bookmark_id)).one_or_none()
        return (None, None) if row is None else (row.text, row.vector)

    def counts(self) -> dict[str, int]:
        """Number of bookmarks in each status."""
        with self._read() as connection:
            found = connection.execute(
                sa.select(_t.status, sa.func.count().label("number")).group_by(_t.status)
            ).all()
        return dict.fromkeys(Status, 0) | {row.status: row.number for row in found}

    def rows(self, *columns: str) -> list[dict[str, Any]]:
        """The named columns of every bookmark, in order of their ids; for recording an experiment."""
        with self._read() as connection:
            query = sa.select(*(_t[name] for name in columns)).order_by(_t.id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def claim(self, bookmark_ids: Sequence[int], lease_s: float) -> list[Claim]:
        """Take the bookmarks that wait (or whose lease has run out) for `lease_s` seconds; the others are not ours.

        One conditional update: of any number of callers at once exactly one gets a row.
        """
        now_s, now_ns, token = self._clock.wall_s(), self._clock.monotonic_ns(), uuid.uuid4().hex
        free = (_t.status == Status.PENDING) | ((_t.status == Status.PROCESSING) & (_t.lease_until < now_s))
        statement = (
            sa.update(bookmarks)
            .where(_t.id.in_(bookmark_ids), free)
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
        with self._write() as connection:
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
        with self._write() as connection:
            connection.execute(
                sa.update(bookmarks)
                .where(
                    _t.id.in_([c.bookmark_id for c in claims]), _t.claimed_by.in_({c.token for c in claims})
                )
                .values(lease_until=self._clock.wall_s() + lease_s)
            )

    def release(self, claims: Sequence[Claim]) -> None:
        """Give the claims back unused: the bookmarks wait again, and the attempt does not count."""
        with self._write() as connection:
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
        with self._write() as connection:
            for claim, outcome, durations_ms in results:
                values = {**_outcome_values(outcome, now), "durations_ms": durations_ms}
                statement = (
                    sa.update(bookmarks)
                    .where(*_holds(claim))
                    .values(claimed_by=None, lease_until=None, **values)
                )
                stored.append(connection.execute(statement).rowcount == 1)
        return stored

    def texts_without_vector(self, limit: int) -> list[tuple[int, str, str]]:
        """(id, content hash, text) of processed bookmarks whose embedding could not be had at the time."""
        query = (
            sa.select(_t.id, _t.content_hash, _t.text)
            .where(_t.status == Status.PROCESSED, _t.embedding == EmbeddingState.UNAVAILABLE)
            .order_by(_t.id)
            .limit(limit)
        )
        with self._read() as connection:
            return [(row.id, row.content_hash, row.text) for row in connection.execute(query)]

    def fill_in_vectors(self, vectors: Sequence[tuple[int, str, bytes]], model: str) -> int:
        """Store (id, content hash, vector) for texts that are still the same; how many were."""
        with self._write() as connection:
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
        with self._read() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        """Close every connection of this process."""
        if self._pid == os.getpid():
            self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _here(self) -> sa.Engine:
        if self._pid != os.getpid():
            # Connections opened before a fork belong to the parent: neither use nor close them here.
            self._engine.dispose(close=False)
            self._engine, self._pid = _make_engine(self._url), os.getpid()
        return self._engine

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with _translated(), self._here().begin() as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with _translated(), self._here().connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(f"the database refused: {one_line(cause)}") from error


def _make_engine(url: str) -> sa.Engine:
    with _translated():
        parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    if parsed.database:
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder of {parsed.database} cannot be made: {one_line(error)}") from None
    engine = sa.create_engine(url, connect_args={"timeout": _SQLITE_BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        connection.execute("PRAGMA journal_mode=WAL")
        # FULL: a commit is on the disk before it is acknowledged, so that it survives a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later may find the database changed in between and fail as
        # "locked" whatever the timeout; one that starts as a writer waits its turn.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _create_schema(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    metadata.create_all(connection)


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
    }
    for name in ("status", "queue", "save_token", "queued_at", "queued_ns"):
        again[name] = sa.case((failed, new[name]), else_=_t[name])
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


def _new_row(new: NewBookmark, token: str, now_s: float, now_ns: int) -> dict[str, Any]:
    return {
        "user_id": new.user_id,
        "url": new.url,
        "canonical_url": new.canonical_url,
        # PostgreSQL cannot index values of several kilobytes.
        "url_hash": hashlib.sha256(new.canonical_url.encode()).digest(),
        "user_title": new.title or None,
        "user_description": new.description or None,
        "status": Status.PENDING,
        "queue": new.queue,
        "generation": 1,
        "attempts": 0,
        "tries": 0,
        "times_saved": 1,
        "save_token": token,
        "created_at": now_s,
        "queued_at": now_s,
        "queued_ns": now_ns,
    }


def _outcome_values(outcome: Outcome, now: dict[str, Any]) -> dict[str, Any]:
    if isinstance(outcome, TryAgain):
        return {
            "status": Status.PENDING,
            "retry_at": now["done_at"] + outcome.delay_s,
            "tries": _t.tries + int(outcome.counts),
            **_error_values(outcome.error),
        }
    if isinstance(outcome, ProcessingError):
        # Text that an earlier generation found stays.
        return {"status": Status.FAILED, "retry_at": None, **_error_values(outcome), **now}
    cleared = {"reason": None, "error": None, "retry_at": None}
    return {"status": Status.PROCESSED, **cleared, **_processed_values(outcome), **now}


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


def _to_bookmark(row: sa.RowMapping) -> Bookmark:
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
