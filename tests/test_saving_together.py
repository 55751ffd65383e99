"""Pages saved in one transaction: each has its own outcome, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading

import msgspec
import pytest
import sqlalchemy as sa
from test_store import LEASE_S, new

from fuze_bench.errors import RefusedValueError, StoreError
from fuze_bench.pipeline.bookmarks import NewBookmark, ProcessingError, Reason
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store


def test_a_group_with_new_old_failed_and_repeated_pages(store: Store) -> None:
    """Each save's own outcome, in the order given."""
    a, b, c = (f"https://example.org/{name}" for name in "abc")
    old, failed = (s.bookmark.id for s in store.save([new(a), new(b, title="Mine")]))
    [claim] = store.claim([failed], LEASE_S)
    store.finish([(claim, ProcessingError(Reason.NOT_FOUND, "HTTP 404"), {})])
    results = store.save([new(c, title="New"), new(a), new(b), new(c), new(c, user_id=2), new(b)])
    assert [r.was_duplicate for r in results] == [False, True, True, True, False, True]
    assert [r.needs_job for r in results] == [True, False, True, False, True, False]
    assert [r.bookmark.times_saved for r in results] == [1, 2, 2, 2, 1, 3]
    assert [r.bookmark.generation for r in results] == [1, 1, 2, 1, 1, 2]
    ids = [r.bookmark.id for r in results]
    assert ids[1:4] == [old, failed, ids[0]]
    assert results[2].bookmark.title == "Mine"
    for result in (results[0], results[4], results[5]):
        assert result.bookmark == msgspec.structs.replace(
            store.get(result.bookmark.id), times_saved=result.bookmark.times_saved
        )


def test_nothing_to_save(store: Store) -> None:
    """As of an import whose pages are all refused."""
    assert store.save([]) == []


def test_a_value_that_no_database_holds_is_refused_as_such(store: Store) -> None:
    with pytest.raises(RefusedValueError):
        store.save([new(), new(user_id=2**70)])
    assert store.counts()["pending"] == 0


def test_a_table_that_has_gone_is_told_as_any_trouble_with_the_database(
    any_database: Settings, store: Store
) -> None:
    engine = sa.create_engine(any_database.sqlalchemy_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE fuze_bookmarks"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"the database refused: .*fuze_bookmarks"):
        store.save([new()])


def test_groups_that_save_the_same_pages_the_other_way_round_do_not_deadlock(store: Store) -> None:
    pages = [new(f"https://example.org/{n}") for n in range(40)]
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def save(order: list[NewBookmark]) -> None:
        try:
            for _ in range(5):
                barrier.wait(60)
                store.save(order)
        except StoreError as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=save, args=(order,)) for order in (pages, pages[::-1]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.counts()["pending"] == 40
