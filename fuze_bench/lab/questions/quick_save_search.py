"""The search for quick-save's knee, measured: each rate in a trial of its own, all of them in one run folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.experiments.factors import LEAN, Configuration
from fuze_bench.lab.experiments.progress import Reporter, reporter
from fuze_bench.lab.experiments.run import recorded_settings
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.experiments.trial import Trial
from fuze_bench.lab.judgement.knee import Attempt, find_knee
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.trial_verdicts import CEILING_SHARE
from fuze_bench.lab.load.sender_ceiling import measure_ceiling
from fuze_bench.lab.parts.machine import describe_machine
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.questions.quick_save import WAYS, Search, judge
from fuze_bench.lab.runs.records import OK, EventRow, SeriesRow, TrialRow
from fuze_bench.lab.runs.results import Run, RunWriter, load_run, new_folder
from fuze_bench.pipeline.settings import Settings

#: Nobody waits until all that was saved is processed: that would take far longer than the saving.
_DRAIN_LIMIT_S = 0.1


def search_knees(
    search: Search,
    *,
    modes: Sequence[str] = tuple(WAYS),
    workers: int = 1,
    window_s: float = 2.0,
    embedding_model: str | None = None,
    budget_s: float | None = None,
    settings: Settings | None = None,
    out: Path | None = None,
) -> Run:
    """Look for the knee of each mode, the one after the other, and record every trial in one run folder.

    `workers`: of RQ. `embedding_model`: instead of that of `settings`, which are the environment's by default.
    `budget_s`: each mode gets an equal share of what measuring the sender's ceiling leaves of it, and begins no trial
    beyond, but its first. Raises LabError.
    """
    begin_s = time.monotonic()
    for mode in modes:
        if mode not in WAYS:
            raise LabError(f"there is no mode {mode!r}: {nearest(mode, WAYS)}")
        if mode not in search.start_per_s:
            raise LabError(
                f"start_per_s={dict(search.start_per_s)} has no rate for {mode}: say where to begin"
            )
    settings = Settings.from_mapping(os.environ) if settings is None else settings
    if embedding_model is not None:
        settings = replace(settings, embedding_model=embedding_model)
    folder = new_folder(settings.data_dir / "runs", "quick-save-load") if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    with reporter(len(modes) * search.most_trials, budget_s=budget_s) as shown, ExitStack() as kept:
        measured = _Trials(search, settings, folder, shown, workers, window_s, kept)
        cap_per_s = min(search.cap_per_s, CEILING_SHARE * measured.ceiling_per_s)
        # A slow machine may not be able to offer where the search is to begin.
        starts = {mode: min(start, cap_per_s) for mode, start in search.start_per_s.items()}
        search = replace(search, cap_per_s=cap_per_s, start_per_s=starts)
        left_s = None if budget_s is None else budget_s - (time.monotonic() - begin_s)
        for mode in modes:
            measured.find(mode, search, None if left_s is None else left_s / len(modes))
    measured.label_all()
    measured.writer.end("every search came to its end", {"search": search.to_mapping()})
    return load_run(folder)


class _Trials:
    """The trials made so far, each one rate of one mode."""

    def __init__(
        self,
        search: Search,
        settings: Settings,
        folder: Path,
        shown: Reporter,
        workers: int,
        window_s: float,
        kept: ExitStack,
    ) -> None:
        self._target_ms, self._settings, self._shown, self._kept = search.target_ms, settings, shown, kept
        self._workers, self._window_s = workers, window_s
        self._host: WorkerHost | None = None
        self._configurations: list[Configuration] = []
        self._made: list[Configuration] = []
        self._recorded: list[tuple[PlannedTrial, TrialRow, list[EventRow], list[SeriesRow]]] = []
        self.ceiling_per_s = measure_ceiling(folder / "ceiling")
        shutil.rmtree(folder / "ceiling")
        some = self._experiment([self._configuration("rq", max(search.start_per_s.values()))])
        self.writer = RunWriter.new(
            folder, some, settings=recorded_settings(settings), machine=describe_machine()
        )

    def find(self, mode: str, search: Search, budget_s: float | None) -> None:
        """Search one mode's knee."""
        begin_s, longest_s = time.monotonic(), 0.0

        def holds(rate_per_s: float) -> Attempt:
            nonlocal longest_s
            trial_begin_s = time.monotonic()
            attempt = self._measure(self._configuration(mode, rate_per_s))
            longest_s = max(longest_s, time.monotonic() - trial_begin_s)
            return attempt

        knee = find_knee(
            holds,
            start_per_s=search.start_per_s[mode],
            cap_per_s=search.cap_per_s,
            within=search.within,
            most_trials=search.most_trials,
            is_time_left=lambda: (
                budget_s is None or not longest_s or time.monotonic() - begin_s + longest_s < budget_s
            ),
        )
        self._shown.say(f"{WAYS[mode]}: {knee.sentence}")

    def _configuration(self, mode: str, rate_per_s: float) -> Configuration:
        return Configuration(mode=mode, workers=self._workers, arrivals="constant", rate_per_s=rate_per_s)

    def _experiment(self, configurations: Sequence[Configuration]) -> Experiment:
        return Experiment(
            name="quick_save_load",
            configurations=tuple(configurations),
            duration_s=self._window_s,
            drain_limit_s=_DRAIN_LIMIT_S,
            blocks=1,
            baseline_copy=False,
        )

    def _measure(self, configuration: Configuration) -> Attempt:
        if configuration not in self._configurations:
            self._configurations.append(configuration)
        experiment = self._experiment(self._configurations)
        self.writer.describe(experiment, recorded_settings(self._settings))
        block = 1 + sum(c == configuration for c in self._made)
        self._made.append(configuration)
        name = f"{configuration.mode}, {cell(configuration.rate_per_s)} /s"
        planned = PlannedTrial(len(self._made), block, configuration, name)
        folder = self.writer.folder / "trials" / f"{planned.number:03}"
        folder.mkdir(parents=True)
        self._shown.begins(planned)
        ceilings_per_s = {LEAN: self.ceiling_per_s}
        host = self._host_of(configuration)
        with Trial(planned, experiment, self._settings, folder, host, ceilings_per_s=ceilings_per_s) as trial:
            trial.wait_ready()
            trial.measure(self._shown.progressed)
        row = trial.row()
        self._record(planned, row, trial.events, trial.series)
        self._shown.ended(planned, row)
        if row.status == OK:
            shutil.rmtree(folder)
        run = load_run(self.writer.folder)
        [(_, recorded)] = run.trials[run.trials["trial"] == planned.number].iterrows()
        held = judge(recorded, run.events[run.events["trial"] == planned.number], self._target_ms)
        return Attempt(float(recorded["rate_per_s"]), held.held, held.goodput_per_s)

    def label_all(self) -> None:
        """Say of every trial what differs from the others, which is known when all are made."""
        labels = self._experiment(self._configurations).labels
        for planned, row, events, series in list(self._recorded):
            label = labels[planned.configuration]
            self.writer.add(
                replace(planned, label=label),
                replace(row, label=label),
                [replace(event, label=label) for event in events],
                series,
            )

    def _record(
        self, planned: PlannedTrial, row: TrialRow, events: list[EventRow], series: list[SeriesRow]
    ) -> None:
        self._recorded.append((planned, row, events, series))
        self.writer.add(planned, row, events, series)

    def _host_of(self, configuration: Configuration) -> WorkerHost | None:
        if configuration.mode != "rq":
            return None
        if self._host is None:
            self._host = self._kept.enter_context(
                WorkerHost(self._settings, self.writer.folder / "worker-host.log")
            )
        return self._host
