"""Whose claim it is, and what counts as a death: on SQLite and on PostgreSQL."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from fuze_bench.pipeline.bookmarks import Claim, NewBookmark, ProcessingError, Reason, Status, TryAgain
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.timing import FakeClock

LEASE_S = 10.0
TIMED_OUT = ProcessingError(Reason.TIMED_OUT, "30 s")
URL = "https://example.org/a"


@pytest.fixture
def bookmark_id(store: Store) -> int:
    return store.save([NewBookmark(user_id=1, url=URL, canonical_url=URL)])[0].bookmark.id


@pytest.mark.parametrize("other", ["worker", "WORKER-2", "worker_2", "worker%", "w"])
def test_a_process_of_another_host_holds_claims_of_its_own(
    other: str, store: Store, bookmark_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number, and a name that is the beginning of the holder's or differs in one character."""
    monkeypatch.setattr(socket, "gethostname", lambda: "worker-2")
    store.claim([bookmark_id], LEASE_S)
    monkeypatch.setattr(socket, "gethostname", lambda: other)
    assert store.note_death(process_name(), "signal 9") == 0
    assert store.give_back(process_name()) == 0
    monkeypatch.setattr(socket, "gethostname", lambda: "worker-2")
    assert store.give_back(process_name()) == 1
    assert store.counts()[Status.PENDING] == 1


def seen_to_die(store: Store, bookmark_id: int) -> tuple[int, int]:
    """How many wait again and how many are given up, once a worker was seen to die over the bookmark."""
    assert len(store.claim([bookmark_id], LEASE_S)) == 1
    store.note_death(process_name(), "signal 9")
    again, given_up = store.take_back_expired()
    return len(again), given_up


def runs_out(store: Store, clock: FakeClock) -> tuple[int, int]:
    clock.advance(LEASE_S + 1)
    again, given_up = store.take_back_expired()
    return len(again), given_up


def test_two_deaths_with_nothing_stored_in_between_are_enough(store: Store, bookmark_id: int) -> None:
    assert seen_to_die(store, bookmark_id) == (1, 0)
    assert seen_to_die(store, bookmark_id) == (0, 1)


def test_a_death_is_that_of_what_the_process_was_at(store: Store, bookmark_id: int) -> None:
    """What else it held is free, twice as well as once, and is not given up."""
    urls = [f"{URL}/{n}" for n in range(2)]
    saved = store.save([NewBookmark(user_id=1, url=url, canonical_url=url) for url in urls])
    others = [each.bookmark.id for each in saved]
    for given_up in (0, 1):
        assert len(store.claim([bookmark_id, *others], LEASE_S)) == 3
        assert store.note_death(process_name(), "signal 9", [bookmark_id]) == 1
        assert store.give_back(process_name(), all_but=[bookmark_id]) == 2
        _, poisonous = store.take_back_expired()
        assert poisonous == given_up
    assert [row["attempts"] for row in store.rows("id", "attempts") if row["id"] in others] == [0, 0]
    assert len(store.claim(others, LEASE_S)) == 2


def test_an_outcome_makes_deaths_forgotten(store: Store, clock: FakeClock, bookmark_id: int) -> None:
    assert seen_to_die(store, bookmark_id) == (1, 0)
    [claim] = store.claim([bookmark_id], LEASE_S)
    store.finish([(claim, TryAgain(error=TIMED_OUT, delay_s=60, counts=True), {})])
    clock.advance(61)
    assert seen_to_die(store, bookmark_id) == (1, 0)


def test_who_was_told_to_stop_and_is_killed_has_not_died_of_the_page(
    store: Store, clock: FakeClock, bookmark_id: int
) -> None:
    for _ in range(3):
        store.claim([bookmark_id], LEASE_S)
        store.excuse(process_name())
        assert runs_out(store, clock) == (1, 0)
    assert seen_to_die(store, bookmark_id) == (1, 0)
    store.claim([bookmark_id], LEASE_S)  # the next holder was not told to stop
    assert runs_out(store, clock) == (0, 1)


RETURNS: dict[str, Callable[[Store, Claim], object]] = {
    "renew": lambda store, claim: store.renew([claim], LEASE_S),
    "release": lambda store, claim: store.release([claim]),
    "finish": lambda store, claim: store.finish([(claim, TIMED_OUT, {})]),
}


@pytest.mark.parametrize("way", RETURNS)
def test_a_holder_that_comes_back_had_not_died(
    way: str, store: Store, clock: FakeClock, bookmark_id: int
) -> None:
    """Its host was cut off, or the database was away: whoever works on the bookmark now is left alone."""
    for _ in range(3):
        [lost] = store.claim([bookmark_id], LEASE_S)
        assert runs_out(store, clock) == (1, 0)
        [held] = store.claim([bookmark_id], LEASE_S)
        for _ in range(2):
            RETURNS[way](store, lost)
        store.release([held])
    assert seen_to_die(store, bookmark_id) == (1, 0)
    assert seen_to_die(store, bookmark_id) == (0, 1)


def test_whose_lease_ran_out_is_not_told(store: Store, clock: FakeClock, bookmark_id: int) -> None:
    for wait_again, given_up in ((1, 0), (0, 1)):
        store.claim([bookmark_id], LEASE_S)
        assert runs_out(store, clock) == (wait_again, given_up)
    found = store.get(bookmark_id)
    assert found is not None
    assert found.error == "Processing the page killed the worker, twice. (its lease ran out)"


def test_who_dies_while_the_leases_are_looked_at_is_seen_at_the_next_look(
    postgresql_database: str, clock: FakeClock
) -> None:
    """Between the two statements of a look: only PostgreSQL lets anybody write there."""
    settings = Settings(database_url=postgresql_database)
    with Store(settings, clock) as store, Store(settings, clock) as other:
        bookmark_id = store.save([NewBookmark(user_id=1, url=URL, canonical_url=URL)])[0].bookmark.id
        assert seen_to_die(store, bookmark_id) == (1, 0)
        store.claim([bookmark_id], LEASE_S)

        @sa.event.listens_for(store._db._engine, "after_cursor_execute")
        def die(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
            if "FOR UPDATE" in statement:
                assert other.note_death(process_name(), "signal 9") == 1

        assert store.take_back_expired() == ([], 0)
        sa.event.remove(store._db._engine, "after_cursor_execute", die)
        assert store.take_back_expired() == ([], 1)


def test_what_is_not_due_yet_is_left_to_wait(store: Store, clock: FakeClock, bookmark_id: int) -> None:
    [claim] = store.claim([bookmark_id], LEASE_S)
    store.finish([(claim, TryAgain(error=TIMED_OUT, delay_s=600, counts=False), {})])
    clock.advance(599)
    assert store.claim([bookmark_id], LEASE_S) == []
    clock.step_wall(-7_200)  # when it is due is not known any more
    assert len(store.claim([bookmark_id], LEASE_S)) == 1
    clock.step_wall(7_200)
    assert runs_out(store, clock) == (1, 0)
    assert len(store.claim([bookmark_id], LEASE_S)) == 1
