"""Keeps the leases of claims alive while this process works on them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fuze_bench.errors import StoreError
from fuze_bench.pipeline.bookmarks import Claim
from fuze_bench.pipeline.store import Store

logger = logging.getLogger(__name__)

#: A lease is renewed this many times before it would run out, so that one slow renewal loses nothing.
_RENEWALS_PER_LEASE = 3


class Leases:
    """The claims in hand. A thread renews them; it starts with the first claim and again in every forked child.

    If the process is killed, nobody renews, and the bookmarks are free when the lease ends.
    """

    def __init__(self, store: Store, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._held: dict[tuple[int, str], Claim] = {}
        self._owed: list[Claim] = []
        self._changed = threading.Condition()
        self._pid = 0
        self._start_lock = threading.Lock()

    @contextmanager
    def holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Renew the leases of `claims` during the block."""
        self._ensure_running()
        keys = [(claim.bookmark_id, claim.token) for claim in claims]
        with self._changed:
            self._held.update(zip(keys, claims, strict=True))
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                for key in keys:
                    self._held.pop(key, None)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Release the claims: now, or as soon as the database can be reached again."""
        try:
            self._store.release(claims)
        except StoreError as error:
            logger.warning("%d bookmarks not given back yet: %s", len(claims), error)
            self._ensure_running()
            with self._changed:
                self._owed += claims
                self._changed.notify()

    def _ensure_running(self) -> None:
        with self._start_lock:
            if self._pid != os.getpid():
                self._held, self._owed, self._changed = {}, [], threading.Condition()
                threading.Thread(target=self._run, name="leases", daemon=True).start()
                self._pid = os.getpid()

    def _run(self) -> None:
        changed, held, owed = self._changed, self._held, self._owed
        while True:
            with changed:
                while not held and not owed:
                    changed.wait()
                changed.wait(self._lease_s / _RENEWALS_PER_LEASE)
                claims, unused = list(held.values()), list(owed)
            try:
                if claims:
                    self._store.renew(claims, self._lease_s)
                if unused:
                    self._store.release(unused)
            except StoreError as error:
                # The next round tries again; should the lease run out meanwhile, another worker takes over.
                logger.warning("leases of %d bookmarks not renewed: %s", len(claims) + len(unused), error)
                continue
            with changed:
                del owed[: len(unused)]
