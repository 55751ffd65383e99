"""A host that is cut off in the middle of a transaction holds up nobody for long, on PostgreSQL."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
from test_store import new

from fuze_bench.errors import StoreError
from fuze_bench.pipeline import database
from fuze_bench.pipeline.schema import bookmarks
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


def test_its_locks_are_let_go(postgresql_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LONGEST_PAUSE_S", 1)
    settings = Settings(database_url=postgresql_database)
    touch = sa.update(bookmarks).values(queue="low")
    holds, ended = threading.Event(), threading.Event()
    errors: list[StoreError] = []

    def hold(store: Store) -> None:
        try:
            with store._db.write() as connection:
                connection.execute(touch)
                holds.set()
                ended.wait(30)
        except StoreError as error:
            errors.append(error)

    with Store(settings) as lost, Store(settings) as other:
        other.save([new()])
        holder = threading.Thread(target=hold, args=(lost,))
        holder.start()
        assert holds.wait(30)
        began_s = time.monotonic()
        with other._db.write() as connection:
            connection.execute(touch)
        assert time.monotonic() - began_s < 20
        ended.set()
        holder.join()
    assert [type(error) for error in errors] == [StoreError]
