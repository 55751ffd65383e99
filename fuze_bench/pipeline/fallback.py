"""A bounded thread pool that processes bookmarks in this process while Redis is away."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)


class ThreadFallback:
    """Runs `process` over what has piled up, a batch at a time. Context manager: leaving it closes it.

    `process` gets bookmark ids and must be safe to call twice for the same one (a claim sees to that). What is still
    waiting when it closes stays `pending` in the database.
    """

    def __init__(
        self, process: Callable[[Sequence[int]], object], *, threads: int, backlog: int, batch: int
    ) -> None:
        self._process = process
        self._thread_count = threads
        self._backlog = backlog
        self._batch = batch
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._at_work: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, bookmark_id: int) -> bool:
        """Take the bookmark; False if the backlog is full or the pool is closed.

        One that is at work waits once more: it may be a new generation, of which who is at work knows nothing.
        """
        with self._changed:
            if bookmark_id in self._waiting:
                return True
            if self._closed or len(self._waiting) >= self._backlog:
                return False
            self._waiting[bookmark_id] = None
            if len(self._threads) < self._thread_count:
                # Not daemons: an interpreter that ends waits until what runs is stored.
                thread = threading.Thread(target=self._run, name=f"fallback-{len(self._threads) + 1}")
                self._threads.append(thread)
                thread.start()
        return True

    def holds(self, bookmark_id: int) -> bool:
        """Whether the bookmark waits here or is at work here."""
        with self._changed:
            return bookmark_id in self._waiting or bookmark_id in self._at_work

    def size(self) -> int:
        """How many bookmarks wait or are at work here."""
        with self._changed:
            return len(self._waiting) + self._at_work.total()

    def join(self, timeout_s: float) -> bool:
        """Wait until nothing waits and nothing runs; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._at_work, timeout_s)

    def close(self) -> None:
        """Take no more, drop what has not begun (the database has it), wait for what runs. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            running = list(self._threads)
        for thread in running:
            thread.join()

    def __enter__(self) -> ThreadFallback:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    # Threads that idled for ever would keep an interpreter that wants to end from ending.
                    self._threads.remove(threading.current_thread())
                    return
                count = min(self._batch, len(self._waiting))
                batch = [self._waiting.popitem(last=False)[0] for _ in range(count)]
                self._at_work.update(batch)
            try:
                self._process(batch)
            except Exception:
                # The thread lives on; the bookmarks' rows say that they wait, or their leases run out.
                logger.exception("fallback: bookmarks %s not processed", batch)
            finally:
                with self._changed:
                    self._at_work -= Counter(batch)
                    self._changed.notify_all()
