"""Find or insert the rows of saved pages; a page that had failed becomes a new generation of this save."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import sqlalchemy as sa

from fuze_bench.pipeline.bookmarks import Status
from fuze_bench.pipeline.schema import bookmarks

#: PostgreSQL's advisory lock of a transaction that saves several pages.
_GROUP_LOCK = 0x66757A66

_t = bookmarks.c
# Part of the statement: as parameters they would be given again for each row, two dozen times.
_FAILED: Any = sa.literal_column(f"'{Status.FAILED}'")
_ZERO: Any = sa.literal_column("0")
_ONE: Any = sa.literal_column("1")

#: What a new generation knows nothing of.
FORGOTTEN = ("reason", "error", "retry_at", "death_note", "started_at", "started_ns", "done_at", "done_ns")


class Stored(NamedTuple):
    """What the table holds of a saved page now; `save_token` is that of the save whose job it waits for."""

    id: int
    times_saved: int
    save_token: str


def upsert_on_sqlite(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> list[Stored]:
    """What became of each of the rows (of `rows.new_row`), in order; `connection` is in a transaction.

    One statement for each row, given to the driver itself: where no server is asked, what SQLAlchemy does for a
    statement is what it costs. One for all of them would take more: SQLite writes down, in a file, how to undo it.
    """
    text, values = _sqlite_statement(tuple(rows[0]))
    with contextlib.closing(connection.connection.cursor()) as cursor:
        return [Stored(*cursor.execute(text, values(row)).fetchall()[0]) for row in rows]


@functools.cache
def _sqlite_statement(columns: tuple[str, ...]) -> tuple[str, Callable[[Mapping[str, Any]], Any]]:
    """The statement, and what makes its parameters of a row."""
    # Imported here: the dialect that is not needed takes a tenth of the time in which a short command starts.
    from sqlalchemy.dialects import sqlite

    insert = sqlite.insert(bookmarks)
    compiled: Any = _statement(insert).compile(dialect=sqlite.dialect(), column_keys=columns)
    return compiled.string, itemgetter(*compiled.positiontup)


def upsert_on_postgresql(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> list[Stored]:
    """As `upsert_on_sqlite`, in one statement."""
    if len(rows) > 1:
        # Two groups with the same pages in another order would wait for each other's rows.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_GROUP_LOCK)))
    found: dict[int, Stored] = {}
    for numbers in _without_repeats(rows):
        stored = connection.execute(_postgresql_statement(), [rows[n] for n in numbers])
        by_page = {(user, url_hash): Stored(*known) for *known, user, url_hash in stored}
        found |= {n: by_page[_page(rows[n])] for n in numbers}
    return [found[n] for n in range(len(rows))]


@functools.cache
def _postgresql_statement() -> Any:
    from sqlalchemy.dialects import postgresql

    return _statement(postgresql.insert(bookmarks), _t.user_id, _t.url_hash)


def _statement(insert: Any, *also_returned: Any) -> Any:
    new, failed = insert.excluded, _t.status == _FAILED
    again = {
        "times_saved": _t.times_saved + _ONE,
        "user_title": sa.func.coalesce(_t.user_title, new.user_title),
        "user_description": sa.func.coalesce(_t.user_description, new.user_description),
        "generation": sa.case((failed, _t.generation + _ONE), else_=_t.generation),
        "attempts": sa.case((failed, _ZERO), else_=_t.attempts),
        "tries": sa.case((failed, _ZERO), else_=_t.tries),
        "deaths": sa.case((failed, _ZERO), else_=_t.deaths),
    }
    for name in ("status", "queue", "save_token", "queued_at", "queued_ns"):
        again[name] = sa.case((failed, new[name]), else_=_t[name])
    for name in (*FORGOTTEN, "http_status", "durations_ms"):
        again[name] = sa.case((failed, sa.null()), else_=_t[name])
    return insert.on_conflict_do_update(index_elements=[_t.user_id, _t.url_hash], set_=again).returning(
        _t.id, _t.times_saved, _t.save_token, *also_returned
    )


def _page(row: Mapping[str, Any]) -> tuple[int, bytes]:
    return row["user_id"], row["url_hash"]


def _without_repeats(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The rows' numbers in as many parts as a page is there: one statement must not touch a row twice."""
    parts: list[list[int]] = []
    seen: Counter[tuple[int, bytes]] = Counter()
    for number, row in enumerate(rows):
        before = seen[_page(row)]
        seen[_page(row)] += 1
        if before == len(parts):
            parts.append([])
        parts[before].append(number)
    return parts
