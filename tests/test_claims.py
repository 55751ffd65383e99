"""Whose claim it is, and what counts as a death: on SQLite and on PostgreSQL."""

from __future__ import annotations

import socket

import pytest

from fuze_bench.pipeline.bookmarks import NewBookmark, Status
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.store import Store

LEASE_S = 10.0
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
