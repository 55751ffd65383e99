"""An experiment from its first trial to its last: block by block, with progress and time left, losing nothing."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pandas as pd

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.factors import LEAN, LOCUST
from fuze_bench.lab.experiments.progress import Reporter, duration, reporter
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.experiments.trial import Trial, settings_of_trials
from fuze_bench.lab.experiments.workloads import Bookmarks
from fuze_bench.lab.judgement import checks
from fuze_bench.lab.judgement.trial_verdicts import generator_late
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.load.sender_ceiling import measure_ceiling, measure_locust_ceiling
from fuze_bench.lab.parts.machine import describe_machine
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.records import OK, EventRow
from fuze_bench.lab.runs.results import KNOWN, Run, RunWriter, is_run_folder, load_run, new_folder
from fuze_bench.pipeline.settings import Settings

#: Where a precision is asked for: the run ends after so many blocks, whatever it got to.
_MOST_BLOCKS = 60
#: So often at most a trial is measured again whose load generator was late, as on a machine that was busy for a moment.
_AGAIN = 2
#: What makes two machines different ones to a run that goes on.
_MACHINE = ("cpu_model", "usable_cores")
#: Settings that say nothing about the run, and much about whose machine it was.
_WHOSE_MACHINE_IT_WAS = frozenset(
    "FUZE_DATA_DIR FUZE_FETCH_ALLOW FUZE_API_TOKENS FUZE_API_HOSTS FUZE_HOST_UNLIMITED".split()
)


def run_experiment(
    experiment: Experiment,
    settings: Settings | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    budget_s: float | None = None,
    precision: float | None = None,
) -> Run:
    """Measure what `experiment` plans, in the folder `out`, by default a new one below `<data_dir>/runs`.

    `settings` are the environment's by default; Redis and database are always empty ones of the trial's own. `resume`:
    the folder holds a run of the same experiment that was stopped; go on with it, on the same machine and with the
    same settings. `budget_s`: begin no block that
    would end after so many seconds. `precision`: go on beyond the planned blocks until every ratio to the baseline is
    known that well (0.05: to 5 %), as `stats.enough` decides. A trial that fails is recorded as such and the rest goes
    on. One whose load generator was late is measured again at once, twice at most, so that its block stays whole, and the
    last time by the lean sender; what is looked at is when jobs were sent, never how they fared. Ctrl-C is passed on after a word about where the finished trials are. Raises LabError.
    """
    experiment.check_files()
    settings = Settings.from_mapping(os.environ) if settings is None else settings
    writer = _writer(experiment, settings, out, resume)
    blocks = _Blocks(experiment, writer, budget_s, precision)
    total = experiment.blocks * experiment.trials_per_block
    with (
        reporter(total, done=len(writer.done), budget_s=budget_s, may_go_on=precision is not None) as shown,
        ExitStack() as kept,
    ):
        try:
            with _interrupts() as interrupts:
                host: WorkerHost | None = None
                ceilings_per_s = _sender_ceilings_per_s(experiment, writer.folder)
                for planned in blocks:
                    keeps = planned.configuration.fresh == "data"
                    if keeps and (host is None or not host.is_running()):
                        # One that was killed fails the trial in hand, and must not fail the rest.
                        host = _host(experiment, settings, writer.folder, kept)
                    _one(
                        planned, experiment, settings, writer, shown, host if keeps else None, ceilings_per_s
                    )
                    if interrupts:
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            shown.say(f"stopped; what was measured so far is in {writer.folder}")
            raise
        if budget_s is not None or precision is not None:
            shown.say(blocks.why)
    writer.end(blocks.why, checks.verdict_of(load_run(writer.folder)))
    return load_run(writer.folder)


def _writer(experiment: Experiment, settings: Settings, out: Path | None, resume: bool) -> RunWriter:
    if resume:
        if out is None:
            raise LabError("there is no run to go on with: name its folder with --out")
        if not is_run_folder(out):
            raise LabError(f"there is no run to go on with in {out}: name its folder")
        run = load_run(out)
        if run.experiment.to_mapping() != Experiment.from_mapping(experiment.to_mapping()).to_mapping():
            raise LabError(f"{out} holds a run of another experiment: go on with the one it was begun with")
        _check_is_the_same(run, settings)
        return RunWriter.going_on(run)
    if out is None:
        folder = new_folder(settings.data_dir / "runs", experiment.name.replace("_", "-"))
    else:
        if is_run_folder(out):
            raise LabError(f"{out} holds a run already: choose another folder, or go on with --resume")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"{out} cannot be made ({error.strerror}): choose another folder") from None
        folder = out
    recorded = recorded_settings(settings)
    return RunWriter.new(folder, experiment, settings=recorded, machine=describe_machine())


def _check_is_the_same(run: Run, settings: Settings) -> None:
    """Raises LabError where the trials to come would be made under other conditions than those recorded."""
    machine = describe_machine()
    for name in _MACHINE:
        if run.machine.get(name, machine[name]) != machine[name]:
            raise LabError(
                f"{run.folder} was begun on another machine ({name} {run.machine[name]}, here {machine[name]}): begin anew"
            )
    if not isinstance(run.experiment.workload, Bookmarks):
        return  # stock workers know no settings
    for name, value in recorded_settings(settings).items():
        if run.settings.get(name, value) != value:
            raise LabError(
                f"{run.folder} was begun with {name}={run.settings[name]}, and now it is {value!r}: set it as it was"
            )


class _Blocks:
    """The trials to make, block by block, until there is reason to end, which `why` then says.

    The time counts from when this is made: what is measured before the first block, such as the sender's ceiling, is
    part of it.
    """

    def __init__(
        self, experiment: Experiment, writer: RunWriter, budget_s: float | None, precision: float | None
    ) -> None:
        self._experiment, self._writer = experiment, writer
        self._budget_s, self._precision = budget_s, precision
        self._begin_s = time.monotonic()
        self.why = ""

    def __iter__(self) -> Iterator[PlannedTrial]:
        longest_s = 0.0
        for block in itertools.count(1):
            if why := self._reason_to_end(block, time.monotonic() - self._begin_s, longest_s):
                self.why = why
                return
            block_begin_s = time.monotonic()
            to_do = [p for p in self._experiment.block(block) if p.number not in self._writer.done]
            yield from to_do
            if to_do:
                longest_s = max(longest_s, time.monotonic() - block_begin_s)

    def _reason_to_end(self, block: int, spent_s: float, longest_s: float) -> str | None:
        planned = self._experiment.blocks
        made = f"{block - 1} block{'' if block == 2 else 's'}"
        if self._precision is None and block > planned:
            return f"all {made} done"
        if self._precision is not None and block > 1:
            if checks.precise_enough(load_run(self._writer.folder), self._precision):
                return f"{KNOWN} {self._precision:.0%} after {made}"
            if block > max(planned, _MOST_BLOCKS):
                return f"not known to {self._precision:.0%} after {made}: the machine is too noisy"
        # However short the time, one block is made: a run of none says nothing.
        if self._budget_s is not None and block > 1 and spent_s + longest_s > self._budget_s:
            return f"the time of {duration(self._budget_s)} is spent after {made}"
        return None


def _sender_ceilings_per_s(experiment: Experiment, folder: Path) -> dict[str, float]:
    """What the senders that the trials need can do on this machine, now."""
    needed = {c.sender for c in experiment.configurations if c.goes_through_the_api}
    if not needed or not isinstance(experiment.workload, Bookmarks):
        return {}
    found = {LEAN: measure_ceiling(folder / "sender")}
    if LOCUST in needed:
        found[LOCUST] = measure_locust_ceiling(folder / "locust")
    return found


def _host(experiment: Experiment, settings: Settings, folder: Path, kept: ExitStack) -> WorkerHost | None:
    if not isinstance(experiment.workload, Bookmarks):
        return None
    return kept.enter_context(WorkerHost(settings, folder / "worker-host.log"))


def _one(
    planned: PlannedTrial,
    experiment: Experiment,
    settings: Settings,
    writer: RunWriter,
    shown: Reporter,
    host: WorkerHost | None,
    ceilings_per_s: Mapping[str, float],
) -> None:
    folder = writer.folder / "trials" / f"{planned.number:03}"
    for late_before in range(1 + _AGAIN):
        if late_before == _AGAIN:
            # A machine can be too busy for it at a rate that is far below its ceiling.
            ceilings_per_s = {**ceilings_per_s, LOCUST: 0.0}
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped in the middle of it
        folder.mkdir(parents=True)
        shown.begins(planned)
        with ExitStack() as own:
            one = host or _host(experiment, settings, folder, own)
            with Trial(planned, experiment, settings, folder, one, ceilings_per_s=ceilings_per_s) as trial:
                trial.wait_ready()
                trial.measure(shown.progressed)
        row = replace(trial.row(), late_before=late_before)
        writer.add(planned, row, trial.events, trial.series)
        if row.status != OK or late_before == _AGAIN or not _was_late(planned, trial.events):
            break
        shown.say(f"trial {planned.number} is measured again: the load generator was late")
    shown.ended(planned, row)
    if row.status == OK:
        # Redis and SQLite files; a failed trial keeps its own for whoever looks into it.
        shutil.rmtree(folder)


def _was_late(planned: PlannedTrial, events: list[EventRow]) -> bool:
    if planned.configuration.arrivals == "backlog":
        return False
    stamps = {
        name: pd.array([getattr(event, name) for event in events], dtype="Int64")
        for name in ("intended_ns", "sent_ns")
    }
    row = {"trial": planned.number, "rate_per_s": planned.configuration.rate_per_s}
    found = generator_late(row, pd.DataFrame(stamps))
    return found.answer is Answer.YES


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
