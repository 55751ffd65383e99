"""Saved-but-unprocessed bookmarks go back on the queue: nothing acknowledged is ever stuck."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

import msgspec
from rq.exceptions import StopRequested

from fuze_bench.errors import FuzeError, QueueUnavailableError
from fuze_bench.pipeline import events
from fuze_bench.pipeline.bookmarks import Mode, Reason, Status, parse_job_id
from fuze_bench.pipeline.claims import process_name
from fuze_bench.pipeline.measurements import Measurements
from fuze_bench.pipeline.settings import NO_MODEL, Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.task_queue import TaskQueue

logger = logging.getLogger(__name__)

#: Rows are looked through and sent on in groups of this size.
_GROUP = 1_000
#: Missing vectors are looked for this many times less often than lost jobs.
_VECTORS_INTERVALS = 10


class Recovered(msgspec.Struct, frozen=True):
    """How many bookmarks were given back by dead workers, were found without a job, and were given up as poison."""

    abandoned: int = 0
    without_job: int = 0
    poisonous: int = 0

    def __bool__(self) -> bool:
        return bool(self.abandoned or self.without_job or self.poisonous)

    def __str__(self) -> str:
        return (
            f"{self.abandoned} bookmarks of dead workers and {self.without_job} without a job are on their way again, "
            f"{self.poisonous} given up because they killed their worker twice"
        )


class Recovery:
    """Finds what fell out of the queue. Doubles are harmless (see claims), so it errs on the side of sending again."""

    def __init__(self, settings: Settings, store: Store, queue: TaskQueue) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._measurements = Measurements(settings)
        self._next_look_s = 0.0

    def leases(self) -> Recovered:
        """Take back what dead workers held: their leases have run out."""
        abandoned, poisonous = self._store.take_back_expired()
        self._measurements.failed(Reason.KILLED_WORKER, poisonous)
        self._queue.dispatch(abandoned, again=True)
        return Recovered(abandoned=len(abandoned), poisonous=poisonous)

    def everything(self) -> Recovered:
        """Also send on what has waited for longer than `recover_after_s` with no job that will see to it."""
        found = self.leases()
        without_job, after_id = 0, 0
        live: frozenset[str] | None = None
        while group := self._store.overdue(self._settings.recover_after_s, after_id, _GROUP):
            after_id = group[-1].id
            live = self._live_jobs() if live is None else live
            lost = [bookmark for bookmark in group if bookmark.job_id not in live]
            modes = [handle.mode for handle in self._queue.dispatch(lost, again=True)]
            without_job += sum(mode is not Mode.DEFERRED for mode in modes)
            if Mode.DEFERRED in modes:
                break  # neither Redis nor a free thread: the rest waits for the next look
        return Recovered(found.abandoned, without_job, found.poisonous)

    def note_death(self, pid: int, note: str, of: Collection[int] | None = None) -> None:
        """A process of this host that worked on bookmarks is dead: take back what it held. Errors are logged.

        `of`: the bookmarks that it was at, if it held others as well: these have not killed it.
        """
        try:
            noted = self._store.note_death(process_name(pid), note, of)
            if of is not None:
                self._store.give_back(process_name(pid), all_but=of)
            if noted:
                self._logged(self.leases)
        except FuzeError as error:
            logger.warning("recovery: %s", error)

    def give_back(self, pid: int) -> None:
        """A process of this host was killed on purpose: what it held is free, and killed nobody. Errors are logged."""
        try:
            self._store.give_back(process_name(pid))
        except FuzeError as error:
            logger.warning("recovery: %s", error)

    def excuse(self, pid: int) -> bool:
        """A process of this host that works on bookmarks is told to stop: should it be killed, that is no death of
        theirs. False if it holds none yet, or if that cannot be stored now, which is logged.
        """
        try:
            return self._store.excuse(process_name(pid)) > 0
        except FuzeError as error:
            logger.warning("recovery: %s", error)
            return False

    def send_again(self, job_id: str, pid: int = 0) -> None:
        """The job was broken off through no fault of its bookmark, which goes back on its queue if it still waits.

        `pid`: the process of this host that had it in hand and is gone, if there was one. Errors are logged.
        """
        key = parse_job_id(job_id)
        if key is None:
            return
        try:
            if pid:
                self._store.give_back(process_name(pid))
            bookmark = self._store.get(key[0])
            if (
                bookmark is not None
                and (bookmark.generation, bookmark.status) == (key[1], Status.PENDING)
                and (bookmark.retry_at or 0) <= time.time()
            ):
                self._queue.dispatch([bookmark], again=True)
        except FuzeError as error:
            logger.warning("recovery: %s", error)

    def cancel(self, job_id: str) -> None:
        """The job was stopped on purpose: its bookmark, if this is its job still, has failed as `cancelled`. Errors are
        logged.
        """
        key = parse_job_id(job_id)
        if key is None:
            return
        try:
            bookmark = self._store.get(key[0])
            if bookmark is not None and bookmark.generation == key[1]:
                cancelled = self._store.cancel([bookmark.id])
                self._measurements.failed(Reason.CANCELLED, len(cancelled))
                events.told(cancelled, "cancelled")
        except FuzeError as error:
            logger.warning("recovery: %s", error)

    def close(self) -> None:
        """Wait no longer for a Redis that is away."""
        self._measurements.close()

    def when_due(self) -> None:
        """For a loop: one of all processes looks at the leases every few seconds, at everything less often, and at
        missing vectors now and then.

        While Redis is away nobody can tell who is first: then each does it, with threads of its own, if it has any.
        Errors of any kind are logged: whoever looks has other work, and the next look tries again.
        """
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + self._settings.lease_check_s
        if self._is_first("leases", self._settings.lease_check_s):
            self._logged(self.leases)
        if self._is_first("everything", self._settings.recovery_interval_s):
            self._logged(self.everything)
        self._logged(self._ask_for_vectors)

    def _ask_for_vectors(self) -> None:
        """Now and then, for what was stored while nobody had the model; done by a worker that has it."""
        if self._settings.embedding_model == NO_MODEL:
            return
        try:
            period_s = _VECTORS_INTERVALS * self._settings.recovery_interval_s
            if self._queue.is_first("vectors", period_s) and self._store.texts_without_vector(0, 1):
                self._queue.ask_for_vectors()
        except QueueUnavailableError as error:
            logger.debug("missing vectors wait: %s", error)

    def _is_first(self, name: str, period_s: float) -> bool:
        try:
            return self._queue.is_first(name, period_s)
        except QueueUnavailableError:
            return self._queue.has_threads

    def _live_jobs(self) -> frozenset[str]:
        try:
            return self._queue.waiting_job_ids()
        except QueueUnavailableError:
            return frozenset()

    def _logged(self, look: Callable[[], Recovered | None]) -> None:
        try:
            if found := look():
                logger.warning("recovery: %s", found)
        except FuzeError as error:
            logger.warning("recovery: %s", error)
        except StopRequested:
            raise  # by RQ's signal handler, in an idle worker
        except Exception:
            logger.exception("recovery: a look failed")
