"""One configuration once: set up, warm up, offer the load, wait until all of it is done, record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fuze_bench.errors import FuzeError, LabError, one_line
from fuze_bench.lab.experiments.rest import Rest
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.experiments.workloads import Bookmarks
from fuze_bench.lab.parts.series import Sampler
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.records import FAILED, JOB_FAILED, OK, PROCESSED, EventRow, SeriesRow, TrialRow
from fuze_bench.pipeline.settings import Settings

#: How often is asked whether all is done: the longer it takes, the less often; and whether anything is wrong.
_POLL_S, _POLL_SHARE, _LONGEST_POLL_S = 0.05, 0.05, 0.5
_LOOK_S = 0.5
_LOG_LINES = 20
_LOGS = (
    "workers.log",
    "api.log",
    "origin.log",
    "load/sender.log",
    "load/locust.log",
    "proxy.log",
    "redis/redis.log",
)
_DONE = (PROCESSED, JOB_FAILED)

#: Told how many jobs of how many are done.
Progress = Callable[[int, int], None]


def settings_of_trials(settings: Settings) -> Settings:
    """What every trial runs with, where the caller's settings are these: Redis and database are the trial's own, and
    so is the one site, which may be asked as often as there are workers.
    """
    return replace(settings, redis_url=None, database_url=None, host_fetches=0, host_interval_s=0.0)


class Load(Protocol):
    """The parts of a trial of some workload, and the jobs that they do. Methods raise FuzeError."""

    start_ns: int
    """The first intended send time, monotonic nanoseconds, once jobs are offered."""

    def start(self, parts: ExitStack) -> None:
        """Start the parts; `parts` stops them."""

    def wait_ready(self) -> None: ...

    def warm_up(self) -> None:
        """Have some jobs done that are not recorded."""

    def offer(self, on_progress: Callable[[], None]) -> None:
        """Send every job when it is intended, `on_progress` being called now and then; when it returns, all are sent."""

    def remaining(self) -> int:
        """Sent jobs that are not done yet."""

    def is_at_rest(self) -> bool:
        """Whether nothing waits or is worked on any more: what was sent and has not ended by then never will."""

    def problem(self) -> str | None:
        """What became of a part that should run; None while all is well."""

    def sampler(self) -> Sampler:
        """What takes samples of the parts while the load is on."""

    def record(self, row: TrialRow) -> tuple[TrialRow, list[EventRow]]:
        """The row with what the load knows, and a row a job."""

    def exit_codes(self) -> dict[str, int | None]:
        """By column of the trial, once the parts are stopped; 0 is well."""


class Trial:
    """One planned trial in a fresh `folder`, on an empty Redis and an empty database of its own.

    A context manager: entering it starts the parts, leaving it stops and reaps them. In between come `wait_ready`,
    `measure` and `close`; then `row`, `events` and `series` are what to record. Whatever goes wrong, a worker's death or
    jobs that are not done in time included, makes the trial `failed` with the end of the logs, and what follows
    is skipped; only Ctrl-C and programming errors are raised. `ceilings_per_s`: what the senders of saves can do here,
    as far as it is known.
    """

    def __init__(
        self,
        planned: PlannedTrial,
        experiment: Experiment,
        settings: Settings,
        folder: Path,
        host: WorkerHost | None,
        *,
        ceilings_per_s: Mapping[str, float] | None = None,
    ) -> None:
        self.planned = planned
        self.events: list[EventRow] = []
        self.series: list[SeriesRow] = []
        self._experiment = experiment
        self._folder = folder
        own = replace(planned.configuration.applied_to(settings_of_trials(settings)), data_dir=folder)
        self._load = _load(planned, experiment, own, folder, host, ceilings_per_s or {})
        self._parts = ExitStack()
        self._jobs = len(
            experiment.arrivals_of(planned.configuration).times(experiment.seed_of(planned.block))
        )
        self._is_drained = False
        self._problem: str | None = None
        self._begin_s = time.monotonic()
        self._row = TrialRow(
            trial=planned.number,
            block=planned.block,
            label=planned.label,
            copy=planned.copy,
            status=OK,
            started_at_s=time.time(),
        )

    def __enter__(self) -> Trial:
        try:
            with self._problems_noted():
                self._load.start(self._parts)
        except BaseException:
            self._parts.close()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until every part is ready; workers, which a first trial's are when their host has loaded the model."""
        if self._problem is None:
            with self._problems_noted():
                self._load.wait_ready()
                self._row = replace(self._row, ready_s=time.monotonic() - self._begin_s)

    def measure(self, on_progress: Progress | None = None) -> None:
        """Warm up, offer the load, wait until it is done."""
        if self._problem is not None:
            return
        with self._problems_noted():
            self._load.warm_up()
            with self._load.sampler() as sampler:
                try:
                    self._offer_and_drain(on_progress or (lambda done, total: None))
                finally:
                    sampler.close()
                    self._record(sampler)

    def _offer_and_drain(self, on_progress: Progress) -> None:
        looked_s = 0.0

        def progressed(remaining: int | None = None) -> None:
            nonlocal looked_s
            remaining = self._load.remaining() if remaining is None else remaining
            on_progress(max(0, self._jobs - remaining), self._jobs)
            if time.monotonic() - looked_s >= _LOOK_S:
                self._look_for_problems()
                looked_s = time.monotonic()

        self._load.offer(progressed)
        began_s = time.monotonic()
        limit_s = self._experiment.drain_limit_s
        deadline_s = began_s + (_long_s(self._experiment, self.planned) if limit_s is None else limit_s)
        rest = Rest(self._load.is_at_rest)
        while (remaining := self._load.remaining()) and not rest.is_reached(remaining):
            progressed(remaining)
            if time.monotonic() > deadline_s:
                if limit_s is None:
                    raise LabError(f"{remaining} of {self._jobs} jobs were not done in any reasonable time")
                return  # that a configuration does not get there may be the answer
            # Asking takes processor from what is measured, whose own stamps say when it was done.
            time.sleep(min(_LONGEST_POLL_S, max(_POLL_S, (time.monotonic() - began_s) * _POLL_SHARE)))
        self._is_drained = True
        progressed(remaining)
        self._look_for_problems()

    def _look_for_problems(self) -> None:
        if problem := self._load.problem():
            raise LabError(problem)

    def _record(self, sampler: Sampler) -> None:
        row, self.events = self._load.record(self._row)
        self.series = [SeriesRow(trial=row.trial, **sample) for sample in sampler.rows(self._load.start_ns)]
        done = [event for event in self.events if event.status in _DONE]
        drain_s = _drain_s(done)
        open_jobs = sum(e.status not in _DONE and e.acknowledged_ns is not None for e in self.events)
        self._row = replace(
            row,
            processed=sum(event.status == PROCESSED for event in done),
            failed=sum(event.status == JOB_FAILED for event in done),
            # What still waits when the time is up is not lost: nobody knows what would have become of it.
            lost=open_jobs if self._is_drained else None,
            drained=self._is_drained,
            drain_s=drain_s,
            throughput_per_s=len(done) / drain_s if drain_s else None,
            missed_samples=sampler.missed,
            cpu_s=sampler.cpu_s("workers"),
            peak_pss_bytes=sampler.peak_pss_bytes("workers"),
            redis_commands=sampler.redis_commands(),
        )

    def close(self) -> None:
        """Stop and reap every part; one that does not end well makes the trial fail. Safe to call twice."""
        with self._problems_noted():
            self._parts.close()
        codes = self._load.exit_codes()
        for name, code in codes.items():
            if code not in (0, None) and self._problem is None:
                self._problem = f"{name.removesuffix('_exit_code')} ended with code {code} when told to stop"
        self._row = replace(self._row, **codes)  # type: ignore[arg-type]

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def row(self) -> TrialRow:
        """What to record of the trial as a whole; the exit codes are known once it is closed."""
        if self._problem is None:
            return self._row
        return replace(
            self._row,
            status=FAILED,
            problem=self._problem,
            log_end=_log_end(self._folder),
            drain_s=None,
            throughput_per_s=None,
        )

    @contextmanager
    def _problems_noted(self) -> Iterator[None]:
        try:
            yield
        except (FuzeError, OSError) as error:  # a full disk, or no more files to open
            if (stop := _stop_before(error)) is not None:
                raise stop from None
            # The first problem is the cause, later ones follow from it.
            self._problem = self._problem or one_line(error)


def _stop_before(error: BaseException) -> BaseException | None:
    """The Ctrl-C that was on its way out when the error came in between; None if there was none."""
    while (error := error.__context__) is not None:  # type: ignore[assignment]
        if not isinstance(error, Exception):
            return error
    return None


def _load(
    planned: PlannedTrial,
    experiment: Experiment,
    settings: Settings,
    folder: Path,
    host: WorkerHost | None,
    ceilings_per_s: Mapping[str, float],
) -> Load:
    if isinstance(experiment.workload, Bookmarks):
        from fuze_bench.lab.load.bookmark_load import BookmarkLoad

        return BookmarkLoad(planned, experiment, settings, folder, host, ceilings_per_s)
    from fuze_bench.lab.load.job_load import JobLoad

    return JobLoad(planned, experiment, folder)


def _drain_s(done: list[EventRow]) -> float | None:
    ends_ns = [event.done_ns for event in done if event.done_ns is not None]
    starts_ns = [event.queued_ns for event in done if event.queued_ns is not None]
    return (max(ends_ns) - min(starts_ns)) / 1e9 if ends_ns and starts_ns else None


def _log_end(folder: Path) -> str:
    parts = []
    for name in _LOGS:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            parts.append("\n".join([f"{os.path.basename(name)}:", *lines[-_LOG_LINES:]]))
    return "\n".join(parts)


def _long_s(experiment: Experiment, planned: PlannedTrial) -> float:
    """Far longer than the slowest machine should need: what exceeds it hangs."""
    configuration = planned.configuration
    per_job_s = configuration.origin_latency_ms / 1e3 + (60 if configuration.kind in ("spawn", "pool") else 5)
    jobs = len(experiment.arrivals_of(configuration).times(experiment.seed_of(planned.block)))
    return 60 + per_job_s * jobs
