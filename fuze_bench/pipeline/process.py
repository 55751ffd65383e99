"""claim → fetch → extract → embed → analyse → store, over a batch; a single bookmark is a batch of one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from rq.job import Retry
from rq.timeouts import JobTimeoutException

from fuze_bench import logs
from fuze_bench.errors import one_line
from fuze_bench.pipeline import embed, events, extract
from fuze_bench.pipeline.analyse import analyse
from fuze_bench.pipeline.batch_form import with_batch_form
from fuze_bench.pipeline.bookmark_batch import ANY_NUMBER, BookmarkBatch, come_back_after, ending
from fuze_bench.pipeline.bookmarks import (
    EmbeddingState,
    Mode,
    Outcome,
    ProcessingError,
    Reason,
    Status,
)
from fuze_bench.pipeline.fetch import Fetcher
from fuze_bench.pipeline.leases import Leases
from fuze_bench.pipeline.measurements import Ended, Measurements
from fuze_bench.pipeline.outcomes import Outcomes, internal_error
from fuze_bench.pipeline.page_reader import PageReader
from fuze_bench.pipeline.politeness import Hosts, LocalHosts
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.store import Store
from fuze_bench.pipeline.work import Item, Work
from fuze_bench.timing import Clock, StageTimer, SystemClock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_FILL_IN_BATCH = 32
#: No longer, because other jobs wait meanwhile: what is left is another job.
_FILL_IN_MAX_S = 30.0


@with_batch_form(BookmarkBatch())
def process_bookmark_content_task(bookmark_id: int, url: str, user_id: int) -> dict[str, Any] | Retry:
    """The job: process one bookmark and say what became of it, as JSON.

    The bookmark's row is the truth; `url` tells whose turn it is, `user_id` is for people who look at the queue.
    Raises ProcessingError if the page cannot be had, so that the job fails with the reason; returns a Retry, which
    a worker with a scheduler obeys, if it is to be tried again or its host has been asked enough for now.
    """
    pipeline = current_pipeline()
    turn = pipeline.hosts.enter(url, bookmark_id)
    if turn.wait_s:
        return come_back_after(turn.wait_s)
    try:
        outcome = pipeline.process([bookmark_id])[bookmark_id]
    finally:
        pipeline.hosts.leave(turn)
    end = ending(pipeline, bookmark_id, outcome)
    if isinstance(end, ProcessingError):
        raise end
    return end


def fill_in_embeddings_task() -> int | Retry:
    """The job that embeds texts stored while the model could not be had; returns how many it did.

    It goes back on its queue, by a Retry, as long as it gets on and something is left.
    """
    pipeline = current_pipeline()
    done = pipeline.fill_in_embeddings()
    return Retry(max=ANY_NUMBER) if done and pipeline.store.texts_without_vector(0, 1) else done


class Pipeline:
    """The stages with what they need: store, fetcher and model. One a process; its threads and forks share it.

    `mode` is what its measurements are counted under.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        clock: Clock | None = None,
        embedder: embed.Embedder | None = None,
        local_hosts: LocalHosts | None = None,
        mode: Mode = Mode.RQ,
    ) -> None:
        self.settings = settings
        self.hosts = Hosts(settings)
        self._local_hosts = local_hosts
        self.store = store or Store(settings, clock)
        self._clock = clock or SystemClock()
        self._fetcher = Fetcher(settings)
        self._reader = PageReader(settings.extract_timeout_s)
        self._leases = Leases(self.store, settings.lease_s)
        self._measurements = Measurements(settings)
        self._mode = mode
        # Who ends a process would have to wait for its threads.
        patience_s = settings.job_timeout_s if mode is Mode.RQ else settings.lease_s
        self._outcomes = Outcomes(self.store, settings, self._clock, patience_s)
        self._embedder = embedder
        self._load_lock = threading.Lock()
        self._fetch_pool: ThreadPoolExecutor
        self._fetching_pid = 0

    @property
    def embedder(self) -> embed.Embedder:
        """The model, loaded at first use (or by `preload`)."""
        with self._load_lock:
            if self._embedder is None:
                self._embedder = embed.load_embedder(self.settings)
                if self._embedder.problem:
                    logger.warning("embedding unavailable: %s", self._embedder.problem)
            return self._embedder

    def preload(self) -> None:
        """Load everything that the first bookmark would wait for. Runs no inference: a fork may follow."""
        extract.preload()
        _ = self.embedder

    def process(self, bookmark_ids: Sequence[int]) -> dict[int, Outcome | None]:
        """Process those of the bookmarks that wait. What became of each; None: somebody else has or had it.

        A bookmark's failure is its own. If the process is told to stop in the middle, the bookmarks wait again.
        """
        return self.finish(self._take(bookmark_ids))

    def begin(self, bookmark_ids: Sequence[int], when_fetched: Callable[[int], None]) -> Work:
        """Claim those of the bookmarks that wait and start to fetch them beside other work; `finish` must follow.

        `when_fetched` is called with each bookmark's id as soon as its host is not asked any more.
        """
        work = self._take(bookmark_ids)
        claimed = {item.claim.bookmark_id for item in work.items}
        for bookmark_id in bookmark_ids:
            if bookmark_id not in claimed:
                when_fetched(bookmark_id)

        def fetch(item: Item) -> None:
            try:
                self._fetch_one(item)
            finally:
                when_fetched(item.claim.bookmark_id)

        work.fetches = [self._fetching().submit(fetch, item) for item in work.items]
        return work

    def finish(self, work: Work) -> dict[int, Outcome | None]:
        """The rest of what `begin` began; as `process`."""
        if not work.items:
            return work.outcomes
        claims = [item.claim for item in work.items]
        try:
            with work.leases:
                self._run_all_stages(work)
                ended = self._outcomes.store(
                    [Ended(item.claim, item.outcome(), item.timer.durations_ms) for item in work.items]
                )
        except BaseException:
            self._leases.give_back(claims)
            raise
        events.ended(ended)
        self._measurements.ended(ended, self._clock.wall_s(), self._mode)
        return work.outcomes | {each.claim.bookmark_id: each.outcome for each in ended}

    def _take(self, bookmark_ids: Sequence[int]) -> Work:
        work = Work(dict.fromkeys(bookmark_ids))
        claims = self.store.claim(bookmark_ids, self.settings.lease_s)
        if claims:
            events.claimed(claims)
            work.items = [Item(claim, StageTimer(self._clock)) for claim in claims]
            work.leases.enter_context(self._leases.holding(claims))
        return work

    def _run_all_stages(self, work: Work) -> None:
        items = work.items
        try:
            self._run_stages(work)
        except JobTimeoutException as error:
            if len(items) > 1 and self._mode is Mode.RQ:
                raise  # which of them it was shows when each has the time for itself
            for item in items:
                item.error = item.error or ProcessingError(Reason.TIMED_OUT, one_line(error))
        except Exception as error:
            # It must count as a try: what is given back is due at once, and would be fetched again and again.
            logger.exception("bookmarks %s failed", [item.claim.bookmark_id for item in items])
            for item in items:
                item.error = item.error or internal_error("stages", error)

    def due_in_s(self, bookmark_id: int) -> float | None:
        """How long the bookmark is to wait before it is tried again; None unless it waits for that."""
        bookmark = self.store.get(bookmark_id)
        if bookmark is None or bookmark.status is not Status.PENDING or bookmark.retry_at is None:
            return None
        return max(0.0, bookmark.retry_at - self._clock.wall_s())

    def fill_in_embeddings(self) -> int:
        """Embed texts that were stored without a vector, for half a minute at most. How many were done."""
        if self.embedder.state is not EmbeddingState.OK:
            return 0
        done, after_id = 0, 0
        until_s = time.monotonic() + min(_FILL_IN_MAX_S, self.settings.job_timeout_s / 2)
        while waiting := self.store.texts_without_vector(after_id, _FILL_IN_BATCH):
            after_id = waiting[-1][0]
            vectors = self._vectors([text for _, _, text in waiting])
            rows = [
                (i, digest, vector.tobytes())
                for (i, digest, _), vector in zip(waiting, vectors, strict=True)
                if vector is not None
            ]
            done += self.store.fill_in_vectors(rows, self.embedder.model_name or "")
            if time.monotonic() >= until_s:
                break
        return done

    def close(self) -> None:
        if self._fetching_pid == os.getpid():
            self._fetch_pool.shutdown(cancel_futures=True)
        self._reader.close()
        self._fetcher.close()
        self._measurements.close()
        self.store.close()

    def _run_stages(self, work: Work) -> None:
        items = work.items
        if work.fetches:
            for fetch in work.fetches:
                fetch.result()
        else:
            self._fetch(items)
        for item in items:
            self._stage(item, "extract", self._extract)
        self._embed([item for item in items if item.error is None])
        for item in items:
            self._stage(item, "analyse", self._analyse)

    def _stage(self, item: Item, name: str, work: Callable[[Item], None]) -> None:
        if item.error is not None:
            return
        with logs.during(events.ids(item.claim)), item.timer.stage(name):
            try:
                work(item)
            except JobTimeoutException:
                raise
            except ProcessingError as error:
                if error.http_status is None and item.page is not None:
                    error.http_status = item.page.http_status
                item.error = error
            except Exception as error:
                logger.exception("bookmark %d: stage %s failed", item.claim.bookmark_id, name)
                item.error = internal_error(name, error)

    def _fetch(self, items: list[Item]) -> None:
        if len(items) == 1:
            self._fetch_one(items[0])
        else:
            list(self._fetching().map(self._fetch_one, items))

    def _fetch_one(self, item: Item) -> None:
        def fetch(item: Item) -> None:
            item.page = self._fetcher.fetch(item.claim.url)

        # Around the stage: a wait for the host's turn is not time that the fetch took.
        with self._local_hosts.turn(item.claim.url) if self._local_hosts else nullcontext():
            self._stage(item, "fetch", fetch)

    def _fetching(self) -> ThreadPoolExecutor:
        """The threads that fetch; a fork starts its own."""
        with self._load_lock:
            if self._fetching_pid != os.getpid():
                self._fetch_pool = ThreadPoolExecutor(self.settings.fetch_threads, thread_name_prefix="fetch")
                self._fetching_pid = os.getpid()
            return self._fetch_pool

    def _extract(self, item: Item) -> None:
        assert item.page is not None
        page = item.page
        try:
            item.extracted = self._reader.read(page.body, page.content_type, page.final_url)
        except ProcessingError as error:
            error.http_status = page.http_status
            raise

    def _analyse(self, item: Item) -> None:
        assert item.extracted is not None
        item.analysis = analyse(item.extracted.text, item.extracted.language, item.extracted.title)

    def _embed(self, items: list[Item]) -> None:
        embedder = self.embedder
        for item in items:
            item.embedding, item.model_name = embedder.state, embedder.model_name
        if embedder.state is not EmbeddingState.OK or not items:
            return
        timer = StageTimer(self._clock)
        with timer.stage("embed", share=len(items)):
            vectors = self._vectors([item.extracted.text for item in items if item.extracted])
        for item, vector in zip(items, vectors, strict=True):
            item.timer.durations_ms.update(timer.durations_ms)
            if vector is None:
                item.embedding, item.model_name = EmbeddingState.UNAVAILABLE, None
            else:
                item.vector = vector.tobytes()

    def _vectors(self, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Each text's vector; None for one that the model fails at, which takes no other along."""
        try:
            return list(self.embedder.embed(texts))
        except JobTimeoutException:
            raise
        except Exception as error:
            if len(texts) > 1:
                return [vector for text in texts for vector in self._vectors([text])]
            logger.exception("embedding unavailable: %s: %s", type(error).__name__, one_line(error))
            return [None]


_pipeline: Pipeline | None = None
_pipeline_lock = threading.Lock()


def current_pipeline() -> Pipeline:
    """This process's pipeline: the one a worker installed, else (in a stock `rq worker`) one of the environment's."""
    global _pipeline
    with _pipeline_lock:
        if _pipeline is None:
            _pipeline = Pipeline(Settings.from_mapping(os.environ))
        return _pipeline


def install_pipeline(pipeline: Pipeline | None) -> None:
    """Make this the process's pipeline; None forgets it."""
    global _pipeline
    with _pipeline_lock:
        _pipeline = pipeline
