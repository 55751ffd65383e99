"""Run folders: what a run recorded, written after every trial and read back as DataFrames with known units."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.judgement.trial_verdicts import growing_trials, invalid_trials, judge
from fuze_bench.lab.judgement.verdicts import Verdicts
from fuze_bench.lab.runs.records import OK, EventRow, SeriesRow, TrialRow, read_table, write_table

#: Changes whenever a file or column changes its name or meaning.
FORMAT_VERSION = 4
#: How an executed notebook says which run folder it read.
RUN_MIME_TYPE = "application/vnd.fuze-bench.run+json"

#: How `Run.ended` begins where the wanted precision was reached.
KNOWN = "known to"

_SPEC, _MACHINE, _VERDICT = "spec.json", "machine.json", "verdict.json"
_TABLES: dict[str, type[TrialRow] | type[EventRow] | type[SeriesRow]] = {
    "series.parquet": SeriesRow,
    "events.parquet": EventRow,
    "trials.parquet": TrialRow,
}
_SPANS = {
    "late_ms": ("intended_ns", "sent_ns"),
    "ack_ms": ("intended_ns", "acknowledged_ns"),
    "ack_service_ms": ("sent_ns", "acknowledged_ns"),
    "wait_ms": ("queued_ns", "started_ns"),
    "service_ms": ("started_ns", "done_ns"),
    "total_ms": ("intended_ns", "done_ns"),
}


@dataclass(
    frozen=True, eq=False
)  # tables cannot be compared as one; so a run is itself alone, and can be a key
class Run:
    """A recorded run. `records.columns` and `records.DERIVED_EVENT_COLUMNS` say what the tables hold."""

    folder: Path
    experiment: Experiment
    settings: Mapping[str, str]
    machine: Mapping[str, Any]
    trials: pd.DataFrame
    events: pd.DataFrame
    series: pd.DataFrame
    ended: str | None
    """Why the run ended: all blocks done, precise enough, or the time was spent; None: it was stopped before."""

    @property
    def ended_early(self) -> bool:
        """Whether the run ended because its ratios were known well enough: see `stats.ratio_within_blocks`."""
        return (self.ended or "").startswith(KNOWN)

    @property
    def planned_trials(self) -> int:
        return self.experiment.trials_per_block * self.experiment.blocks

    @cached_property
    def verdicts(self) -> Verdicts:
        """Every verdict on every trial, and on the run."""
        return judge(self.trials, self.events, self.series)

    @property
    def invalid(self) -> frozenset[int]:
        """Numbers of the trials that ended well and do not count all the same: see `trial_verdicts.INVALIDATING`."""
        return frozenset(invalid_trials(self.verdicts))

    @property
    def growing(self) -> frozenset[int]:
        """Numbers of the trials in which a queue grew: how long their jobs waited says how long the trial was."""
        return frozenset(growing_trials(self.verdicts))

    def good_trials(self) -> pd.DataFrame:
        """The trials that count: those that ended well, and that no verdict makes invalid."""
        return self.trials[(self.trials["status"] == OK) & ~self.trials["trial"].isin(self.invalid)]

    def good_events(self) -> pd.DataFrame:
        """The jobs of the trials that count."""
        return self.events[self.events["trial"].isin(self.good_trials()["trial"])]

    def describe(self) -> dict[str, str]:
        """What was run on what, for people."""
        m, e = self.machine, self.experiment
        blocks = self.trials["block"].nunique()
        return {
            "Trials": f"{len(self.good_trials())} good of {len(self.trials)} made, in {blocks}"
            f" block{'' if blocks == 1 else 's'}; {self.ended or 'stopped before the end'}",
            "Configurations": "; ".join(e.labels.values()),
            "Workload": f"{e.workload}; {_load(e)}",
            "Order": f"drawn with seed {e.seed}, every second block in reverse; new in each trial:"
            f" {' or '.join(sorted({c.fresh for c in e.configurations}))}",
            "Embedding model": str(self.settings.get("FUZE_EMBEDDING_MODEL", "unknown")),
            "Machine": f"{m.get('cpu_model', 'unknown CPU')}, {m.get('usable_cores')} usable cores,"
            f" {m.get('memory_bytes', 0) / 2**30:.0f} GiB, Linux {m.get('kernel')}",
            "Load before": f"{m.get('load_1min_before', float('nan')):.2f} (1-minute average)",
        }

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        rows = "".join(
            f"<tr><th scope='row'>{escape(k)}</th><td>{escape(v)}</td></tr>"
            for k, v in self.describe().items()
        )
        return {
            RUN_MIME_TYPE: {"folder": str(self.folder.absolute())},
            "text/html": f"<table class='facts'>{rows}</table>",
            "text/plain": "\n".join(f"{k}: {v}" for k, v in self.describe().items()),
        }


def _load(e: Experiment) -> str:
    laws = {c.arrivals for c in e.configurations}
    parts = [f"{e.jobs} jobs at once"] if "backlog" in laws else []
    parts += [f"{law} arrivals for {e.duration_s:g} s" for law in sorted(laws - {"backlog"})]
    latencies = sorted({c.origin_latency_ms for c in e.configurations})
    if str(e.workload) == "bookmarks" and "origin_latency_ms" not in e.varying:
        parts.append(f"pages answered after {latencies[0]:g} ms")
    return ", ".join(parts)


class RunWriter:
    """A run folder, with all that is known so far always on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[int, tuple[PlannedTrial, TrialRow, list[EventRow], list[SeriesRow]]] = {}

    @classmethod
    def new(
        cls,
        folder: Path,
        experiment: Experiment,
        *,
        settings: Mapping[str, str],
        machine: Mapping[str, Any],
    ) -> RunWriter:
        """A new run in an empty `folder` (see `new_folder`)."""
        writer = cls(folder)
        _write_json(folder / _MACHINE, machine)
        writer.describe(experiment, settings)
        writer._write_tables()
        return writer

    def describe(self, experiment: Experiment, settings: Mapping[str, str]) -> None:
        """Record what is run; again, where a run only finds out on its way which configurations it needs."""
        recorded = experiment.to_mapping()
        for configuration in recorded["configurations"]:
            if configuration["pages"] is not None:
                # Where that folder was is nobody else's business.
                configuration["pages"] = Path(configuration["pages"]).name
        spec = {"format_version": FORMAT_VERSION, "experiment": recorded, "settings": dict(settings)}
        _write_json(self.folder / _SPEC, spec)

    @classmethod
    def going_on(cls, run: Run) -> RunWriter:
        """The folder of a run that was stopped: what it recorded stays, but for why it had ended."""
        writer = cls(run.folder)
        (run.folder / _VERDICT).unlink(missing_ok=True)
        planned = {p.number: p for p in _planned_until(run.experiment, run.trials["block"].max())}
        for kept in _rows(run.trials, TrialRow):
            writer._rows[kept.trial] = (planned[kept.trial], kept, [], [])
        for event in _rows(run.events, EventRow):
            writer._rows[event.trial][2].append(event)
        for sample in _rows(run.series, SeriesRow):
            writer._rows[sample.trial][3].append(sample)
        return writer

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the trials that are recorded."""
        return frozenset(self._rows)

    def add(
        self,
        planned: PlannedTrial,
        trial: TrialRow,
        events: Iterable[EventRow],
        series: Iterable[SeriesRow] = (),
    ) -> None:
        """Record a trial; what was recorded of the same trial before is replaced."""
        self._rows[planned.number] = (planned, trial, list(events), list(series))
        self._write_tables()

    def end(self, why: str, verdict: Mapping[str, Any]) -> None:
        """Record why the run ended, and the verdicts over it."""
        _write_json(self.folder / _VERDICT, {"ended": why, **verdict})

    def _write_tables(self) -> None:
        # Events first: a trial that is listed has its events.
        rows = [self._rows[number] for number in sorted(self._rows)]
        write_table(self.folder / "series.parquet", SeriesRow, [s for row in rows for s in row[3]])
        write_table(self.folder / "events.parquet", EventRow, [e for row in rows for e in row[2]])
        factors = [planned.configuration.to_mapping() for planned, *_ in rows]
        write_table(self.folder / "trials.parquet", TrialRow, [row[1] for row in rows], factors)


def load_run(path: str | Path) -> Run:
    """The run recorded in a folder. Raises LabError if it is none, is damaged, or has another format version."""
    folder = Path(path)
    spec = _read_json(folder / _SPEC)
    version = spec.get("format_version")
    if version != FORMAT_VERSION:
        raise LabError(
            f"{folder} has format version {version!r} and this fuze_bench reads {FORMAT_VERSION}: "
            "measure again, or read it with the fuze_bench that wrote it"
        )
    tables = {name: read_table(folder / name, row_type) for name, row_type in _TABLES.items()}
    events = tables["events.parquet"]
    for name, (start, end) in _SPANS.items():
        events[name] = ((events[end] - events[start]) / 1e6).astype("Float64")
    verdict = _read_json(folder / _VERDICT) if (folder / _VERDICT).exists() else {}
    return Run(
        folder=folder,
        experiment=Experiment.from_mapping(spec["experiment"]),
        settings=spec["settings"],
        machine=_read_json(folder / _MACHINE),
        trials=tables["trials.parquet"],
        events=events,
        series=tables["series.parquet"],
        ended=verdict.get("ended"),
    )


def new_folder(root: Path, name: str) -> Path:
    """A new folder `<UTC timestamp>-<name>` below `root`. Raises LabError if it cannot be made."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for attempt in range(1, 1000):
        folder = root / (f"{stamp}-{name}" if attempt == 1 else f"{stamp}-{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise LabError(
                f"the run folder {folder} cannot be made ({one_line(error)}): set FUZE_DATA_DIR to a folder"
                " that can be written to"
            ) from None
        return folder
    raise LabError(f"{root} is full of runs of this second: try again")


def is_run_folder(folder: Path) -> bool:
    """Whether the folder holds a run, whatever of it."""
    return (folder / _SPEC).is_file()


def _planned_until(experiment: Experiment, last_block: Any) -> list[PlannedTrial]:
    last = 0 if pd.isna(last_block) else int(last_block)
    return [planned for block in range(1, last + 1) for planned in experiment.block(block)]


def _rows(table: pd.DataFrame, row_type: type[Any]) -> list[Any]:
    """The rows of a table as they were recorded."""
    names = list(row_type.__dataclass_fields__)
    return [
        row_type(**{n: None if v is pd.NA or v != v else v for n, v in zip(names, values, strict=True)})
        for values in table[names].itertuples(index=False, name=None)
    ]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(
            f"{path.parent} is not a run folder, it has no {path.name}: name one below <data_dir>/runs"
        ) from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read ({one_line(error)}): measure again") from None
    if not isinstance(found, dict):
        raise LabError(f"{path} holds no JSON object: measure again")
    return found
