"""Saving bookmarks: check what the user sent, commit it, see to its processing. The API and the CLI both call this."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from fuze_bench.errors import InputError, RefusedValueError, StoreError
from fuze_bench.pipeline import events
from fuze_bench.pipeline.bookmarks import Bookmark, Mode, NewBookmark, Reason, Saved, Status
from fuze_bench.pipeline.fallback import ThreadFallback
from fuze_bench.pipeline.job_states import JobHandle
from fuze_bench.pipeline.measurements import Measurements
from fuze_bench.pipeline.recovery import Recovery
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.task_queue import TaskQueue, check_queue
from fuze_bench.pipeline.urls import SURROGATE, parse_page_url

if TYPE_CHECKING:
    from fuze_bench.pipeline.process import Pipeline


class SaveResult(msgspec.Struct, frozen=True, kw_only=True):
    """A saved bookmark, whether it was there before, and the job that processes it."""

    bookmark: Bookmark
    was_duplicate: bool
    job: JobHandle
    warning: str | None = None
    """Why nobody will process it as things are, and what to do."""


class BookmarkService:
    """Store, queue and fallback of one process. Context manager: leaving it lets running threads finish."""

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        self.store = store or Store(settings)
        self._pipeline: Pipeline | None = None
        self._pipeline_lock = threading.Lock()
        self.fallback = ThreadFallback(
            self._process_here,
            threads=settings.fallback_threads,
            backlog=settings.fallback_backlog,
            batch=settings.fallback_batch,
        )
        self.queue = TaskQueue(settings, self.fallback)
        self.recovery = Recovery(settings, self.store, self.queue)
        self._measurements = Measurements(settings)
        #: How many pages were `saved`, `duplicate`, `refused`, or `failed` because the database could not be used.
        self.save_results: Counter[str] = Counter()
        self._counting = threading.Lock()

    def check(
        self,
        *,
        user_id: int,
        url: str,
        title: str | None = None,
        description: str | None = None,
        queue: str = "default",
    ) -> NewBookmark:
        """What can be saved of what the user sent. Raises InputError (InvalidUrlError for the URL)."""
        page = parse_page_url(
            url, tracking_parameters=self.settings.tracking_parameters, max_chars=self.settings.url_max_chars
        )
        return NewBookmark(
            user_id=user_id,
            url=page.given,
            canonical_url=page.canonical,
            title=_checked_text("title", title, self.settings.title_max_chars),
            description=_checked_text("description", description, self.settings.description_max_chars),
            queue=check_queue(queue),
        )

    def save(self, new: Sequence[NewBookmark]) -> list[SaveResult]:
        """Commit all in one transaction, then see to their processing: first the truth, then the wake-up call.

        Raises StoreError; then nothing was saved.
        """
        try:
            saved = self.store.save(new)
        except StoreError:
            self.count_saves("failed", len(new))
            raise
        return self._see_to(saved)

    def save_each(self, new: Sequence[NewBookmark]) -> list[SaveResult | StoreError]:
        """As `save`, as long as no save is the reason to refuse all; then each by itself. What became of each, in order."""
        committed = self._commit_each(new)
        results = iter(self._see_to([each for each in committed if isinstance(each, Saved)]))
        return [next(results) if isinstance(each, Saved) else each for each in committed]

    def _commit_each(self, new: Sequence[NewBookmark]) -> Sequence[Saved | StoreError]:
        try:
            return self.store.save(new)
        except StoreError as error:
            if len(new) == 1 or not isinstance(error, RefusedValueError):
                self.count_saves("failed", len(new))
                return [error] * len(new)
        return [result for each in new for result in self._commit_each([each])]

    def _see_to(self, saved: Sequence[Saved]) -> list[SaveResult]:
        """Have processed what is committed and needs it."""
        handles = self.queue.dispatch([each.bookmark for each in saved if each.needs_job])
        by_job = {handle.id: handle for handle in handles}
        results = [
            self._result(each.bookmark, by_job.get(each.bookmark.job_id), was_duplicate=each.was_duplicate)
            for each in saved
        ]
        duplicates = sum(result.was_duplicate for result in results)
        self.count_saves("duplicate", duplicates)
        self.count_saves("saved", len(results) - duplicates)
        for result in results:
            events.saved(result.bookmark, result.job.mode, was_duplicate=result.was_duplicate)
        return results

    def count_saves(self, result: str, number: int = 1) -> None:
        """Count what came of saves; what is refused never gets as far as `save`, and whoever refuses it counts it."""
        with self._counting:
            self.save_results[result] += number

    def present(self, bookmark: Bookmark) -> SaveResult:
        """What saving the bookmark again would answer: the job of its present generation, whoever has it in hand."""
        return self._result(bookmark, None, was_duplicate=True)

    def _result(self, bookmark: Bookmark, job: JobHandle | None, *, was_duplicate: bool) -> SaveResult:
        job = job or JobHandle(bookmark.job_id, bookmark.queue, self.queue.mode_of(bookmark))
        waits = job.mode is Mode.RQ and bookmark.status is Status.PENDING
        return SaveResult(
            bookmark=bookmark,
            was_duplicate=was_duplicate,
            job=job,
            warning=self.queue.warning(job.queue) if waits else None,
        )

    def reprocess(self, bookmark_ids: Sequence[int], *, only_failed: bool = False) -> list[SaveResult]:
        """Have those of the bookmarks that had failed (or were done) processed again, on the `low` queue."""
        again = self.store.reprocess(bookmark_ids, "low", only_failed=only_failed)
        handles = self.queue.dispatch(again)
        events.told(again, "to be processed again")
        return [
            self._result(bookmark, handle, was_duplicate=True)
            for bookmark, handle in zip(again, handles, strict=True)
        ]

    def cancel(self, bookmark_ids: Sequence[int]) -> list[Bookmark]:
        """Give up those of the bookmarks that wait or are at work; they have failed as `cancelled`."""
        cancelled = self.store.cancel(bookmark_ids)
        self.queue.forget(cancelled)
        self._measurements.failed(Reason.CANCELLED, len(cancelled))
        events.told(cancelled, "cancelled")
        return cancelled

    def delete(self, bookmark_id: int, user_id: int) -> bool:
        """Forget the user's bookmark, also in the middle of its job; False if there is none."""
        deleted = self.store.delete(bookmark_id, user_id)
        if deleted is not None:
            self.queue.forget([deleted])
            events.told([deleted], "deleted")
        return deleted is not None

    def close(self) -> None:
        self.queue.close()
        if self.fallback.size():
            self.recovery.excuse(os.getpid())  # whoever stops us may lose patience
        self.fallback.close()
        if self._pipeline is not None:
            self._pipeline.close()
        self.recovery.close()
        self._measurements.close()
        self.store.close()

    def __enter__(self) -> BookmarkService:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _process_here(self, bookmark_ids: Sequence[int]) -> None:
        # Imported at the first need: it brings the libraries that read pages, and the model.
        from fuze_bench.pipeline.embed import sharing_cores
        from fuze_bench.pipeline.politeness import LocalHosts
        from fuze_bench.pipeline.process import Pipeline

        with self._pipeline_lock:
            if self._pipeline is None:
                self._pipeline = Pipeline(
                    sharing_cores(self.settings, self.settings.fallback_threads),
                    store=self.store,
                    local_hosts=LocalHosts(self.settings),
                    mode=Mode.THREAD,
                )
        self._pipeline.process(bookmark_ids)


def _checked_text(name: str, text: str | None, max_chars: int) -> str | None:
    if text is None:
        return None
    if len(text) > max_chars:
        raise InputError(f"{name} has {len(text):,} characters: the limit is {max_chars:,}", field=name)
    if "\0" in text:
        raise InputError(f"{name} contains a NUL character: remove it", field=name)
    if SURROGATE.search(text):
        raise InputError(f"{name} contains half a surrogate pair: remove it", field=name)
    return text.strip() or None
