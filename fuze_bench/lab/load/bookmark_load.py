"""The bookmark pipeline under load: web site, Redis, API and workers of a trial, and the pages that are saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.factors import LEAN
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.load.request_log import Sample
from fuze_bench.lab.load.saves_sent import Saves, SavesSent, who_sends
from fuze_bench.lab.parts.delay_proxy import running_delay_proxy
from fuze_bench.lab.parts.series import Sampler
from fuze_bench.lab.parts.services import (
    RedisOutage,
    RunningOrigin,
    Workers,
    running_api,
    running_origin,
    workers_of,
)
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.records import GONE, REFUSED, EventRow, TrialRow
from fuze_bench.pipeline.bookmarks import Mode, Status
from fuze_bench.pipeline.redis_server import PrivateRedis
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import Settings
from fuze_bench.processes import Child

_USER_ID = 1
_POLL_S = 0.05
_WARM_UP_LIMIT_S = 600.0
_WAITING = (Status.PENDING, Status.PROCESSING)
_COLUMNS = ("id", "url", "queue", "status", "reason", "attempts", "claimed_by")
_STAMPS = ("queued_ns", "started_ns", "done_ns", "durations_ms")


class BookmarkLoad:
    """See `trial.Load`. A backlog for RQ is saved in one go, as an import is; everything else goes through the API.

    `ceilings_per_s`: what the senders can do on this machine, see `saves_sent.who_sends`.
    """

    def __init__(
        self,
        planned: PlannedTrial,
        experiment: Experiment,
        settings: Settings,
        folder: Path,
        host: WorkerHost | None,
        ceilings_per_s: Mapping[str, float],
    ) -> None:
        self._planned, self._experiment, self._folder, self._host = planned, experiment, folder, host
        self._configuration = planned.configuration
        self._arrivals = experiment.arrivals_of(self._configuration)
        self._times_s = self._arrivals.times(experiment.seed_of(planned.block))
        # The same for every configuration: what differs is what is varied.
        self._queues = self._arrivals.queues(
            self._configuration.shares, len(self._times_s), experiment.seed_of(planned.block)
        )
        self._settings = settings
        if self._configuration.origin_failure_rate:
            # Else what fails waits for minutes before it is tried again.
            self._settings = replace(settings, retry_intervals_s=(1.0, 2.0), retry_after_default_s=1.0)
        self._is_rq = self._configuration.mode == "rq"
        self._is_direct = not self._configuration.goes_through_the_api
        self._sent_by: str | None = None
        if not self._is_direct:
            self._sent_by = who_sends(
                self._configuration, self._times_s, self._arrivals.window_s, ceilings_per_s
            )
        self._ceiling_per_s = None if self._sent_by is None else ceilings_per_s.get(self._sent_by)
        self._origin: RunningOrigin | None = None
        self._workers: Workers | StockWorkers | None = None
        self._redis: PrivateRedis | None = None
        self._api: tuple[str, Child] | None = None
        self._sending: SavesSent | None = None
        self._samples: list[Sample] = []
        self._outage: RedisOutage | None = None
        self.start_ns = 0
        self._warmed_up = 0

    def start(self, parts: ExitStack) -> None:
        c = self._configuration
        url = None
        if self._is_rq:
            self._redis = parts.enter_context(PrivateRedis(self._folder / "redis"))
            url = self._redis.url
            if c.redis_rtt_ms:
                url = parts.enter_context(running_delay_proxy(self._folder, url, c.redis_rtt_ms))
        self._origin = parts.enter_context(
            running_origin(
                self._folder,
                latency_ms=c.origin_latency_ms,
                failure_rate=c.origin_failure_rate,
                pages=c.pages,
            )
        )
        # A trial fetches from its own origin and nothing else that is not public.
        settings = replace(self._settings, redis_url=url, fetch_allow=(urlsplit(self._origin.url).netloc,))
        self._service = parts.enter_context(BookmarkService(settings))
        if not self._is_direct:
            self._api = parts.enter_context(running_api(settings, self._folder, inline=c.mode == "inline"))
        if self._is_rq:
            workers = workers_of(c, self._planned.label, settings, self._folder, self._host)
            self._workers = workers
            parts.enter_context(workers)

    def wait_ready(self) -> None:
        if self._workers is not None:
            self._workers.wait_ready()

    def warm_up(self) -> None:
        """Other pages than those that count, so many that every worker has some; by the way that the load will take."""
        count = self._experiment.warm_up * (self._configuration.workers if self._is_rq else 1)
        if not count:
            return
        pages = range(len(self._times_s), len(self._times_s) + count)
        if self._is_direct:
            self._save(pages)
        else:
            self._send(LEAN, [0.0] * count, pages, ["default"] * count, "warm-up")
            self._wait_for_answers(lambda: None)
        deadline_s = time.monotonic() + _WARM_UP_LIMIT_S
        while self._waiting():
            if problem := self.problem():
                raise LabError(problem)
            if time.monotonic() > deadline_s:
                raise LabError(f"the {count} jobs to warm up were not done after {_WARM_UP_LIMIT_S:g} s")
            time.sleep(_POLL_S)
        self._warmed_up = len(self._service.store.rows("id"))

    def offer(self, on_progress: Callable[[], None]) -> None:
        pages = range(len(self._times_s))
        if self._is_direct:
            self.start_ns = time.monotonic_ns()
            self._save(pages)
            self._acknowledged_ns = time.monotonic_ns()
            return
        assert self._sent_by is not None
        self._send(self._sent_by, self._times_s, pages, self._queues, "load")
        self._wait_for_answers(on_progress, self._configuration.redis_outage_s)

    def remaining(self) -> int:
        if self._sending is not None:
            return len(self._times_s)
        return self._waiting()

    def is_at_rest(self) -> bool:
        return self.remaining() == 0

    def problem(self) -> str | None:
        if self._api is not None and not self._api[1].is_alive():
            return f"the API ended with code {self._api[1].returncode()}"
        if self._outage is not None or self._workers is None:
            return None
        return self._workers.problem()

    def sampler(self) -> Sampler:
        groups: dict[str, Callable[[], Sequence[int]]] = {}
        works = "workers" if self._workers is not None else "api"
        if self._workers is not None:
            running = self._workers
            groups["workers"] = lambda: running.pids
        if self._api is not None:
            api_pid = self._api[1].pid
            groups["workers" if works == "api" else "api"] = lambda: [api_pid]
        assert self._origin is not None
        origin_pid = self._origin.child.pid
        groups["origin"] = lambda: [origin_pid]
        if self._redis is not None:
            groups["redis"] = self._redis.pids
        url = None if self._redis is None else self._redis.url
        return Sampler(groups, url, queues=list(dict.fromkeys([*self._configuration.shares, *self._queues])))

    def record(self, row: TrialRow) -> tuple[TrialRow, list[EventRow]]:
        assert self._origin is not None
        # Before the rows: what is still worked on may be fetched in between, and is then counted as an attempt.
        hits = self._origin.hits()
        rows = self._service.store.rows(*_COLUMNS, *_STAMPS)[self._warmed_up :]
        by_url = {stored["url"]: stored for stored in rows}
        samples = {sample.job: sample for sample in self._samples}
        events = []
        for number, time_s in enumerate(self._times_s, start=1):
            stored = by_url.get(f"{self._origin.url}/page/{number - 1}")
            sample = samples.get(number)
            events.append(self._event(number, time_s, stored, sample))
        counted = replace(
            row,
            window_s=self._arrivals.window_s,
            offered=len(events),
            sent=sum(event.sent_ns is not None for event in events),
            acknowledged=sum(e.acknowledged_ns is not None and e.status != REFUSED for e in events),
            # Of the answers alone: what was unsent or is unfinished got none, and what failed may be stored all the same.
            refused=sum(sample.outcome == "failed" for sample in self._samples),
            unfinished=sum(sample.outcome == "unfinished" for sample in self._samples),
            duplicated=sum(
                max(0, hits.get(urlsplit(stored["url"]).path, 0) - stored["attempts"]) for stored in rows
            ),
            sent_by=self._sent_by,
            sender_ceiling_per_s=self._ceiling_per_s,
            faults=None if self._outage is None else self._outage.text(self.start_ns),
        )
        return counted, events

    def exit_codes(self) -> dict[str, int | None]:
        codes = [] if self._workers is None else self._workers.exit_codes()
        return {
            "workers_exit_code": next((code for code in codes if code), codes[0] if codes else None),
            "origin_exit_code": None if self._origin is None else self._origin.child.returncode(),
        }

    def _event(
        self, number: int, time_s: float, stored: dict[str, Any] | None, sample: Sample | None
    ) -> EventRow:
        p = self._planned
        intended_ns = self.start_ns + round(time_s * 1e9)
        values: dict[str, Any] = {"status": REFUSED, "queue": self._queues[number - 1]}
        if self._is_direct:
            values |= {"sent_ns": intended_ns, "acknowledged_ns": self._acknowledged_ns, "mode": Mode.RQ}
            values["status"] = GONE
        elif sample is not None:
            intended_ns = sample.intended_ns
            values |= {"sent_ns": sample.sent_ns, "reason": sample.error, "mode": sample.mode}
            if sample.outcome == "ok":
                values |= {"acknowledged_ns": sample.acknowledged_ns, "status": GONE}
        if stored is not None:
            durations_ms = stored["durations_ms"] or {}
            values |= {name: stored[name] for name in ("status", "attempts", *_STAMPS[:3])}
            values["reason"] = stored["reason"] or values.get("reason")
            values |= {
                f"{stage}_ms": durations_ms.get(stage) for stage in ("fetch", "extract", "embed", "analyse")
            }
        return EventRow(
            trial=p.number,
            block=p.block,
            label=p.label,
            copy=p.copy,
            job=number,
            intended_ns=intended_ns,
            **values,
        )

    def _save(self, pages: range) -> None:
        """Save one bookmark a page, all at once. Raises LabError unless every one went to RQ."""
        assert self._origin is not None
        url = self._origin.url
        queues = [*self._queues, *["default"] * len(pages)]
        new = [self._service.check(user_id=_USER_ID, url=f"{url}/page/{n}", queue=queues[n]) for n in pages]
        astray = {result.job.mode for result in self._service.save(new)} - {Mode.RQ}
        if astray:
            raise LabError(f"bookmarks went to {', '.join(astray)} and not to RQ: see the log of Redis")

    def _send(
        self, sender: str, times_s: Sequence[float], pages: range, queues: Sequence[str], name: str
    ) -> None:
        assert self._api is not None
        assert self._origin is not None
        urls = [f"{self._origin.url}/page/{n}" for n in pages]
        saves = Saves(times_s=times_s, urls=urls, queues=queues)
        self._samples = []
        self._sending = SavesSent.by(sender, self._api[0], saves, self._folder, name)
        # About now, until the sender says when exactly.
        self.start_ns = time.monotonic_ns()

    def _wait_for_answers(self, on_progress: Callable[[], None], outage_s: float = 0.0) -> None:
        """Until the sender has ended, and Redis is back if it is to be away for `outage_s` in between."""
        assert self._sending is not None
        try:
            while self._sending.is_going_on() or not (self._outage is None or self._outage.is_over):
                if (start_ns := self._sending.start_ns()) is not None:
                    self.start_ns = start_ns
                    self._go_on_with_outage(outage_s)
                on_progress()
                time.sleep(_POLL_S)
        finally:
            sending, self._sending = self._sending, None
            self.start_ns = sending.start_ns() or self.start_ns
            self._samples = sending.settle()

    def _go_on_with_outage(self, outage_s: float) -> None:
        if not outage_s:
            return
        if self._outage is None:
            assert self._redis is not None
            begin_ns = self.start_ns + round(self._arrivals.window_s / 3 * 1e9)
            self._outage = RedisOutage(self._redis, begin_ns, outage_s)
        self._outage.tick()

    def _waiting(self) -> int:
        counts = self._service.store.counts()
        return sum(counts[status] for status in _WAITING)
