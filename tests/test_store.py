"""The store's conformance suite, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from fuze_bench.errors import StoreError
from fuze_bench.pipeline.bookmarks import (
    EmbeddingState,
    NewBookmark,
    Processed,
    ProcessingError,
    Reason,
    Status,
    TryAgain,
)
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.timing import FakeClock

LEASE_S = 10.0


def new(url: str = "https://example.org/a", **more: object) -> NewBookmark:
    return NewBookmark(**{"user_id": 1, "url": url, "canonical_url": url, **more})


def processed(text: str = "Some text.", **more: object) -> Processed:
    values = {
        "final_url": "https://example.org/final",
        "http_status": 200,
        "title": "Page title",
        "text": text,
        "language": "en",
        "published": "2024-05-06",
        "summary": "Some text.",
        "keywords": ["text"],
        "word_count": 2,
        "reading_time_s": 1,
        "content_hash": "00ff",
        "embedding": EmbeddingState.OK,
        "embedding_model": "a model",
        "vector": b"\0\1\2\3",
    }
    return Processed(**{**values, **more})


def test_saving_a_page_again_finds_the_same_row(store: Store) -> None:
    first, again = store.save([new(), new()])
    assert (first.was_duplicate, first.needs_job) == (False, True)
    assert (again.was_duplicate, again.needs_job) == (True, False)
    assert again.bookmark.id == first.bookmark.id
    assert store.counts() == {"pending": 1, "processing": 0, "processed": 0, "failed": 0}


def test_two_users_have_bookmarks_of_their_own(store: Store) -> None:
    mine, theirs = store.save([new(), new(user_id=2)])
    assert mine.bookmark.id != theirs.bookmark.id
    assert not theirs.was_duplicate
    assert store.get(theirs.bookmark.id, user_id=1) is None


def test_very_long_urls_can_be_told_apart(store: Store) -> None:
    long = "https://example.org/" + "x" * 7_000
    one, two = store.save([new(long + "1"), new(long + "2")])
    assert one.bookmark.id != two.bookmark.id


def test_a_claim_is_taken_once_and_finishes_once(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    [claim] = store.claim([bookmark_id], LEASE_S)
    assert store.claim([bookmark_id], LEASE_S) == []
    assert store.finish([(claim, processed(), {"fetch": 1.5})]) == [True]
    assert store.finish([(claim, processed("other"), {})]) == [False]
    assert store.claim([bookmark_id], LEASE_S) == []
    found = store.get(bookmark_id)
    assert found is not None
    assert found.status is Status.PROCESSED
    assert found.final_url == "https://example.org/final"
    assert found.keywords == ["text"]
    assert found.durations_ms == {"fetch": 1.5}
    assert store.content(bookmark_id) == ("Some text.", b"\0\1\2\3")


def test_a_lease_that_ran_out_is_free_and_its_owners_result_void(store: Store, clock: FakeClock) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    [lost] = store.claim([bookmark_id], LEASE_S)
    assert store.take_back_expired() == ([], 0)
    clock.advance(LEASE_S + 1)
    again, given_up = store.take_back_expired()
    assert ([b.id for b in again], given_up) == ([bookmark_id], 0)
    [taken] = store.claim([bookmark_id], LEASE_S)
    assert taken.attempts == 2
    assert store.finish([(lost, processed("late"), {})]) == [False]
    assert store.finish([(taken, processed("in time"), {})]) == [True]
    assert store.content(bookmark_id)[0] == "in time"


def test_a_renewed_lease_holds(store: Store, clock: FakeClock) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    claims = store.claim([bookmark_id], LEASE_S)
    clock.advance(LEASE_S - 1)
    store.renew(claims, LEASE_S)
    clock.advance(LEASE_S - 1)
    assert store.take_back_expired() == ([], 0)


def test_who_kills_two_workers_is_left_alone(store: Store, clock: FakeClock) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    store.claim([bookmark_id], LEASE_S)
    assert store.note_death(process_name(), "signal 9") == 1
    again, given_up = store.take_back_expired()
    assert ([b.id for b in again], given_up) == ([bookmark_id], 0)
    store.claim([bookmark_id], LEASE_S)
    clock.advance(LEASE_S + 1)
    assert store.take_back_expired() == ([], 1)
    found = store.get(bookmark_id)
    assert found is not None
    assert (found.status, found.reason) == (Status.FAILED, Reason.KILLED_WORKER)
    assert "signal 9" in (found.error or "")
    assert store.claim([bookmark_id], LEASE_S) == []


def test_another_process_s_death_changes_nothing(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    store.claim([bookmark_id], LEASE_S)
    assert store.note_death(process_name(1), "signal 9") == 0
    assert store.take_back_expired() == ([], 0)


def test_overdue_is_what_waits_beyond_its_time(store: Store, clock: FakeClock) -> None:
    first = store.save([new()])[0].bookmark.id
    clock.advance(50)
    second = store.save([new("https://example.org/b")])[0].bookmark.id
    clock.advance(20)
    assert [b.id for b in store.overdue(60, 0, 10)] == [first]
    [claim] = store.claim([first], LEASE_S)
    timed_out = ProcessingError(Reason.TIMED_OUT, "x")
    store.finish([(claim, TryAgain(error=timed_out, delay_s=300, counts=True), {})])
    clock.advance(50)
    assert [b.id for b in store.overdue(60, 0, 10)] == [second]
    clock.advance(400)
    assert [b.id for b in store.overdue(60, 0, 10)] == [first, second]
    assert [b.id for b in store.overdue(60, first, 10)] == [second]


@pytest.mark.parametrize("passed_s", [0.0, LEASE_S / 2, LEASE_S + 1])
@pytest.mark.parametrize("step_s", [-120.0, -3_600.0, -7_200.0])
def test_a_clock_that_is_set_back_hides_nothing(
    step_s: float, passed_s: float, store: Store, clock: FakeClock
) -> None:
    waiting, at_work = (s.bookmark.id for s in store.save([new(), new("https://example.org/b")]))
    store.claim([at_work], LEASE_S)
    clock.advance(passed_s)
    clock.step_wall(step_s)
    assert [b.id for b in store.overdue(60, 0, 10)] == [waiting]
    assert store.expired_leases() == 1
    assert [b.id for b in store.take_back_expired()[0]] == [at_work]


def test_a_clock_that_is_set_back_a_little_takes_nothing_away(store: Store, clock: FakeClock) -> None:
    store.claim([store.save([new()])[0].bookmark.id], LEASE_S)
    clock.step_wall(-LEASE_S)
    assert store.take_back_expired() == ([], 0)


def test_a_released_claim_counts_as_no_attempt(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    store.release(store.claim([bookmark_id], LEASE_S))
    [claim] = store.claim([bookmark_id], LEASE_S)
    assert claim.attempts == 1


def test_a_failed_page_saved_again_is_a_new_generation(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    [claim] = store.claim([bookmark_id], LEASE_S)
    store.finish([(claim, ProcessingError(Reason.NOT_FOUND, "HTTP 404", http_status=404), {})])
    failed = store.get(bookmark_id)
    assert failed is not None
    assert (failed.status, failed.reason, failed.http_status) == (Status.FAILED, Reason.NOT_FOUND, 404)
    assert failed.error is not None
    assert failed.error.startswith("The page does not exist")
    [again] = store.save([new(queue="low")])
    assert (again.was_duplicate, again.needs_job) == (True, True)
    assert (again.bookmark.generation, again.bookmark.queue) == (2, "low")
    assert again.bookmark.job_id == f"bookmark-{bookmark_id}-2"
    assert store.save([new()])[0].needs_job is False


def test_the_users_title_wins_and_an_empty_one_is_none(store: Store) -> None:
    named, unnamed = store.save([new(title="My name for it"), new("https://example.org/b", title="")])
    claims = store.claim([named.bookmark.id, unnamed.bookmark.id], LEASE_S)
    store.finish([(claim, processed(), {}) for claim in claims])
    assert [store.get(i).title for i in (named.bookmark.id, unnamed.bookmark.id)] == [
        "My name for it",
        "Page title",
    ]  # type: ignore[union-attr]


def test_every_character_of_a_title_comes_back(store: Store) -> None:
    title = json.loads((Path(__file__).parent / "cases" / "A07.json").read_text(encoding="utf-8"))["title"]
    bookmark_id = store.save([new(title=title)])[0].bookmark.id
    assert store.get(bookmark_id).title == title  # type: ignore[union-attr]


def test_nul_in_what_a_page_says_is_not_the_stores_trouble(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    [claim] = store.claim([bookmark_id], LEASE_S)
    assert store.finish([(claim, processed("a\0b", title="t\0"), {})]) == [True]
    assert store.content(bookmark_id)[0] == "ab"


def test_pages_come_newest_first(store: Store) -> None:
    store.save([new(f"https://example.org/{n}") for n in range(5)])
    first = store.page(1, limit=3)
    rest = store.page(1, limit=3, after=first[-1].id)
    assert [b.url[-1] for b in first + rest] == ["4", "3", "2", "1", "0"]
    assert store.page(1, status=Status.FAILED) == []
    assert store.page(2) == []


def test_pages_can_be_of_one_reason(store: Store) -> None:
    """Of those that failed for it, and of those that are tried again after it."""
    ids = [each.bookmark.id for each in store.save([new(f"https://example.org/{n}") for n in range(4)])]
    error = ProcessingError(Reason.TIMED_OUT, "30 s")
    outcomes = [
        error,
        TryAgain(error=error, delay_s=60, counts=True),
        ProcessingError(Reason.NOT_FOUND, "404"),
    ]
    claims = store.claim(ids[:3], LEASE_S)
    store.finish([(claim, outcome, {}) for claim, outcome in zip(claims, outcomes, strict=True)])
    assert [each.id for each in store.page(1, reason=Reason.TIMED_OUT)] == [ids[1], ids[0]]
    assert [each.id for each in store.page(1, reason=Reason.TIMED_OUT, status=Status.FAILED)] == [ids[0]]
    assert store.page(1, reason=Reason.EMPTY_PAGE) == []


def test_vectors_are_filled_in_for_texts_that_are_still_the_same(store: Store) -> None:
    ids = [s.bookmark.id for s in store.save([new(), new("https://example.org/b")])]
    unavailable = processed(embedding=EmbeddingState.UNAVAILABLE, embedding_model=None, vector=None)
    store.finish([(claim, unavailable, {}) for claim in store.claim(ids, LEASE_S)])
    waiting = store.texts_without_vector(0, 10)
    assert [row[0] for row in waiting] == ids
    assert store.fill_in_vectors([(ids[0], "00ff", b"v"), (ids[1], "stale", b"v")], "a model") == 1
    assert [row[0] for row in store.texts_without_vector(0, 10)] == [ids[1]]
    assert store.get(ids[0]).embedding is EmbeddingState.OK  # type: ignore[union-attr]


def test_of_twenty_threads_that_save_one_page_one_needs_a_job(store: Store) -> None:
    results = []
    barrier = threading.Barrier(20)

    def save() -> None:
        barrier.wait()
        results.extend(store.save([new()]))

    threads = [threading.Thread(target=save) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(r.needs_job for r in results) == 1
    assert sum(not r.was_duplicate for r in results) == 1
    assert len({r.bookmark.id for r in results}) == 1


def test_of_twenty_threads_that_claim_one_gets_it(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    got = []
    barrier = threading.Barrier(20)

    def claim() -> None:
        barrier.wait()
        got.extend(store.claim([bookmark_id], LEASE_S))

    threads = [threading.Thread(target=claim) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def _save_in_child(store: Store, start: int, count: int) -> None:
    for n in range(start, start + count):
        store.save([new(f"https://example.org/{n}")])


def test_a_fork_uses_connections_of_its_own(store: Store) -> None:
    store.save([new()])
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_save_in_child, args=(store, start, 20)) for start in (100, 200)]
    for child in children:
        child.start()
    _save_in_child(store, 300, 20)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert store.counts()["pending"] == 61


def test_a_new_generation_begins_without_the_old_ones_end(store: Store) -> None:
    bookmark_id = store.save([new()])[0].bookmark.id
    [claim] = store.claim([bookmark_id], LEASE_S)
    store.finish([(claim, ProcessingError(Reason.NOT_FOUND, "HTTP 404", http_status=404), {"fetch": 1.0})])
    again = store.save([new()])[0].bookmark
    assert (again.reason, again.error, again.http_status, again.started_at, again.done_at) == (None,) * 5


def test_opening_at_the_same_time_makes_one_schema(any_database: Settings) -> None:
    errors: list[Exception] = []
    barrier = threading.Barrier(8)

    def open_and_close() -> None:
        barrier.wait()
        try:
            Store(any_database).close()
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_database_that_is_not_there_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="the database refused"):
        Store(Settings(database_url="postgresql://127.0.0.1:1/none?connect_timeout=1"))


def test_a_connection_that_is_in_use_at_the_close_is_closed_after_it(any_database: Settings) -> None:
    """A thread that renews a lease must not leave one behind."""
    store = Store(any_database)
    with store._db.write() as connection:
        in_use = connection.connection.dbapi_connection
        store.close()
    assert in_use is not None
    if store._db.is_postgresql:
        assert in_use.closed  # type: ignore[attr-defined]
    else:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            in_use.cursor()


def test_sqlite_commits_reach_the_disk(data_dir: object, tmp_path: object) -> None:
    with Store(Settings(data_dir=data_dir)) as store, store._db.read() as connection:  # type: ignore[arg-type]
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_database_of_an_earlier_version_gets_the_columns_that_it_lacks(any_database: Settings) -> None:
    with Store(any_database) as store:
        store.save([new("https://example.org/old")])
    engine = sa.create_engine(any_database.sqlalchemy_url)
    with engine.begin() as connection:
        for name in ("note", "deaths", "tries", "save_token"):
            connection.execute(sa.text(f"ALTER TABLE fuze_bookmarks DROP COLUMN {name}"))
    engine.dispose()
    with Store(any_database) as store:
        assert store.rows("url", "note", "deaths", "tries", "save_token") == [
            {"url": "https://example.org/old", "note": None, "deaths": 0, "tries": 0, "save_token": ""}
        ]
        assert store.get(1) is not None
