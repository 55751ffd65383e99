"""An experiment from its first trial to its last: block by block, with progress and time left, losing nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fuze_bench.lab.machine import describe_machine
from fuze_bench.lab.results import OK, Run, RunWriter, TrialRow, load_run
from fuze_bench.lab.spec import Experiment, PlannedTrial
from fuze_bench.lab.trial import Trial, settings_of_trials
from fuze_bench.lab.worker_host import WorkerHost
from fuze_bench.pipeline.settings import Settings

RUN_NAME = "worker-counts"
#: Settings that say nothing about the run, and much about whose machine it was.
_WHOSE_MACHINE_IT_WAS = frozenset(
    "FUZE_DATA_DIR FUZE_FETCH_ALLOW FUZE_API_TOKENS FUZE_API_HOSTS FUZE_HOST_UNLIMITED".split()
)


def run_experiment(experiment: Experiment, settings: Settings | None = None) -> Run:
    """Measure everything that `experiment` plans, in a new folder below `<data_dir>/runs`.

    `settings` are the environment's by default; Redis and database are always empty ones of the trial's own. A
    trial that fails is recorded as such and the rest goes on. Ctrl-C is passed on after a word about where
    the finished trials are.
    """
    settings = Settings.from_mapping(os.environ) if settings is None else settings
    writer = RunWriter(
        settings.data_dir / "runs",
        RUN_NAME,
        experiment,
        settings=recorded_settings(settings),
        machine=describe_machine(),
    )
    plan = experiment.plan()
    with _reporter(len(plan)) as reporter, WorkerHost(settings, writer.folder / "worker-host.log") as host:
        try:
            with _interrupts() as interrupts:
                for planned in plan:
                    _one(planned, experiment, settings, writer, reporter, host)
                    if interrupts:
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            reporter.say(f"stopped; what was measured so far is in {writer.folder}")
            raise
    return load_run(writer.folder)


def recorded_settings(settings: Settings) -> dict[str, str]:
    """What the trials run with, as others may know it: of a model's folder the name alone."""
    model = settings.embedding_model
    if Path(model).is_absolute() or Path(model).is_dir():
        model = Path(model).name
    mapping = replace(settings_of_trials(settings), embedding_model=model).to_mapping()
    return {name: value for name, value in mapping.items() if name not in _WHOSE_MACHINE_IT_WAS}


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that Ctrl-C adds to, beside raising KeyboardInterrupt as ever: Python drops an exception from a signal
    handler that happens to run in a finaliser, and the run would go on.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


def _one(
    planned: PlannedTrial,
    experiment: Experiment,
    settings: Settings,
    writer: RunWriter,
    reporter: _Reporter,
    host: WorkerHost,
) -> None:
    folder = writer.folder / "trials" / f"{planned.number:03}"
    reporter.begins(planned)
    with Trial(planned, experiment, settings, folder, host) as trial:
        trial.wait_ready()
        trial.measure(reporter.progressed)
    writer.add(trial.row(), trial.events)
    reporter.ended(planned, trial.row())
    if trial.row().status == OK:
        # Redis and SQLite files; a failed trial keeps its own for whoever looks into it.
        shutil.rmtree(folder)


class _Reporter(Protocol):
    """Shows how far a run is; a context manager."""

    def begins(self, planned: PlannedTrial) -> None: ...

    def progressed(self, done: int, total: int) -> None:
        """`done` of `total` bookmarks of the present trial are done."""

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None: ...

    def say(self, line: str) -> None: ...

    def __enter__(self) -> _Reporter: ...

    def __exit__(self, *exc_info: object) -> None: ...


class _TimeLeft:
    """Time left, from how long trials have taken so far."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._start_s = time.monotonic()

    def after(self, finished: int) -> str:
        if finished == self._total:
            return f"done in {_duration(time.monotonic() - self._start_s)}"
        return f"about {_duration((time.monotonic() - self._start_s) / finished * (self._total - finished))} left"


class _PlainReporter:
    """One line a trial, for logs and notebooks."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = _TimeLeft(total)

    def begins(self, planned: PlannedTrial) -> None:
        if planned.number == 1:
            self.say(f"{self._total} trials; the time left is known after the first")

    def progressed(self, done: int, total: int) -> None:
        pass

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None:
        self.say(f"{_line(planned, row, self._total)} · {self._left.after(planned.number)}")

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def __enter__(self) -> _PlainReporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class _TerminalReporter:
    """A bar over the whole run, moved by every bookmark, and a line for every trial above it."""

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._left = _TimeLeft(total)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=total, left="")
        self._finished = 0

    def begins(self, planned: PlannedTrial) -> None:
        self._bar.update(self._task, description=f"{planned.configuration.label}: starting")

    def progressed(self, done: int, total: int) -> None:
        description = f"{done} of {total} bookmarks"
        self._bar.update(self._task, completed=self._finished + done / total, description=description)

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None:
        self._finished = planned.number
        self._bar.update(self._task, completed=planned.number, left=self._left.after(planned.number))
        self.say(_line(planned, row, self._total))

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)

    def __enter__(self) -> _TerminalReporter:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()


def _reporter(total: int) -> _Reporter:
    console = Console()
    # rich takes a notebook for a terminal; there its bar would be one output a frame.
    if console.is_terminal and not console.is_jupyter:
        return _TerminalReporter(total, console)
    return _PlainReporter(total)


def _line(planned: PlannedTrial, row: TrialRow, total: int) -> str:
    outcome = f"{row.throughput_per_s:.2f} bookmarks/s" if row.throughput_per_s else f"failed: {row.problem}"
    return (
        f"trial {planned.number}/{total} · block {planned.block} · {planned.configuration.label} · {outcome}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
