"""Connections to SQLite or PostgreSQL: transactions, schema, errors translated, safe after a fork."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fuze_bench.errors import RefusedValueError, SettingsError, StoreError, one_line
from fuze_bench.pipeline.schema import metadata

#: SQLite waits this long for another writer; no transaction here takes a hundredth of it.
_SQLITE_BUSY_TIMEOUT_S = 60
#: Of 4 KiB each. Whoever commits past this copies the log into the database, and those behind wait: at SQLite's own 1,000
#: one save in fifty meets it, and pages that change often are copied four times as often.
_PAGES_BETWEEN_CHECKPOINTS = 4_000
#: In the middle of a transaction, between two statements; all of ours follow one upon the other.
_LONGEST_PAUSE_S = 30
#: What says that a value cannot be stored; SQLite's driver is also asked directly.
_OF_A_VALUE = (sa.exc.DataError, sa.exc.IntegrityError, sqlite3.DataError, sqlite3.IntegrityError)
_SCHEMA_LOCK = 0x66757A65
#: How PostgreSQL's client notices that a server, or the way to it, is gone (libpq's parameters; seconds, but for the
#: last: milliseconds). What the URL says of them wins.
_POSTGRESQL_TIMEOUTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


class Database:
    """A database whose schema is there. Everything raises StoreError where it cannot be reached or refuses."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine, self._pid = _make_engine(url), os.getpid()
        self._is_closed = False
        with self.write() as connection:
            _create_schema(connection)

    @property
    def is_postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back after an exception."""
        with _translated(), self._connection() as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection whose statements see what is committed, each by itself."""
        with _translated(), self._connection() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Close every connection of this process; one that another thread still uses is closed when it is done."""
        self._is_closed = True
        if self._pid == os.getpid():
            self._engine.dispose()

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with self._here().connect() as connection:
            try:
                yield connection
            finally:
                if self._is_closed and not connection.invalidated:
                    connection.detach()  # the pool that it would go back to is closed already

    def _here(self) -> sa.Engine:
        if self._pid != os.getpid():
            # Connections opened before a fork belong to the parent: neither use nor close them here.
            self._engine.dispose(close=False)
            self._engine, self._pid = _make_engine(self._url), os.getpid()
        return self._engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        raise (RefusedValueError if isinstance(error, _OF_A_VALUE) else StoreError)(
            f"the database refused: {one_line(cause)}"
        ) from error
    except OverflowError as error:  # SQLite's driver, of a number that the database has no place for
        raise RefusedValueError(f"the database has no place for a value: {one_line(error)}") from error


def _let_go_of_the_lost(connection: Any, _record: Any) -> None:
    """Have the server end the transaction of a host that was cut off, whose row locks everybody else waits for.

    Its own patience is two hours. Not by the connection's `options`, which a pooler in between may refuse.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_LONGEST_PAUSE_S}s'")
    connection.commit()


def _make_engine(url: str) -> sa.Engine:
    try:
        with _translated():
            parsed = sa.make_url(url)
    except ValueError:  # its words quote what it took for the port: perhaps half the password
        raise SettingsError(
            "DATABASE_URL cannot be read: its port must be a number, and special characters of the password "
            "percent-encoded"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        parsed = parsed.set(query={**_POSTGRESQL_TIMEOUTS, **parsed.query})
        engine = sa.create_engine(parsed, pool_pre_ping=True)
        sa.event.listen(engine, "connect", _let_go_of_the_lost)
        return engine
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
        connection.execute(f"PRAGMA wal_autocheckpoint={_PAGES_BETWEEN_CHECKPOINTS}")

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
    # A database of an earlier version lacks what was added since. What must not be NULL begins with 0, or empty.
    for table in metadata.sorted_tables:
        there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                if not column.nullable:
                    is_number = column.type.python_type in (int, float)
                    kind += f" NOT NULL DEFAULT {'0' if is_number else repr('')}"
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
