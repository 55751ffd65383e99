"""Run folders: what a run recorded, written after every trial and read back as DataFrames with known units."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.spec import Configuration, Experiment

#: Changes whenever a file or column changes its name or meaning.
FORMAT_VERSION = 1
#: How an executed notebook says which run folder it read.
RUN_MIME_TYPE = "application/vnd.fuze-bench.run+json"

OK = "ok"
FAILED = "failed"

_SPEC, _MACHINE, _EVENTS, _TRIALS = "spec.json", "machine.json", "events.parquet", "trials.parquet"
_ARROW_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}


def _column(meaning: str) -> Any:
    return field(metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One configuration run once."""

    trial: int = _column("number of the trial, from 1, in the order run")
    block: int = _column("number of the repeat, from 1; a block holds every configuration once")
    kind: str = _column("how the workers run their jobs: fork, simple or spawn")
    workers: int = _column("number of workers")
    status: str = _column("ok, or failed: then nothing of the trial counts")
    problem: str | None = _column("why it failed, in one line")
    log_end: str | None = _column("the last lines of the parts' logs, if it failed")
    started_at_s: float = _column("when it began, seconds since 1970 UTC")
    workers_ready_s: float | None = _column(
        "from starting the parts until all workers had registered, seconds; a run's first trial waits for the model"
    )
    drain_s: float | None = _column("from the save until the last bookmark was done, seconds")
    throughput_per_s: float | None = _column("bookmarks done per second of drain_s")
    processed: int = _column("bookmarks that ended as processed")
    failed: int = _column("bookmarks that ended as failed, with a reason")
    lost: int = _column("saved bookmarks that were neither when the trial ended")
    duplicated: int = _column("requests for a page beyond the first")
    workers_exit_code: int | None = _column("exit code of the workers, negative for a signal")
    origin_exit_code: int | None = _column("exit code of the origin, negative for a signal")


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One bookmark in one trial. Stamps are nanoseconds of the host's monotonic clock: subtract, do not read."""

    trial: int = _column("number of the trial")
    block: int = _column("number of the repeat")
    kind: str = _column("how the workers run their jobs")
    workers: int = _column("number of workers")
    bookmark: int = _column("number of the bookmark within the trial, from 1, in the order saved")
    status: str = _column("processed or failed; pending or processing if it was lost")
    reason: str | None = _column("why it failed")
    attempts: int = _column("how often a worker took it up")
    queued_ns: int = _column("saved and queued, monotonic nanoseconds")
    started_ns: int | None = _column("taken up by a worker, monotonic nanoseconds")
    done_ns: int | None = _column("outcome stored, monotonic nanoseconds")
    fetch_ms: float | None = _column("fetching the page, milliseconds")
    extract_ms: float | None = _column("finding its text, milliseconds")
    embed_ms: float | None = _column("computing its vector, milliseconds; none if the model is off")
    analyse_ms: float | None = _column("summary and keywords, milliseconds")


#: Columns that `load_run` adds to the events.
DERIVED_EVENT_COLUMNS = {
    "wait_ms": "from saved to taken up by a worker, milliseconds",
    "service_ms": "from taken up to outcome stored, milliseconds",
    "total_ms": "from saved to outcome stored, milliseconds",
}


def columns(row_type: type[TrialRow] | type[EventRow]) -> dict[str, str]:
    """What each column means, with its unit."""
    return {f.name: f.metadata["meaning"] for f in dataclasses.fields(row_type)}


@dataclass(frozen=True)
class Run:
    """A recorded run. `trials` and `events` are as `columns` and DERIVED_EVENT_COLUMNS say."""

    folder: Path
    experiment: Experiment
    settings: Mapping[str, str]
    machine: Mapping[str, Any]
    trials: pd.DataFrame
    events: pd.DataFrame
    pages: str | None = None
    """The folder of pages that was served, which need not exist here; None: the shipped pages."""

    @property
    def planned_trials(self) -> int:
        return len(self.experiment.configurations) * self.experiment.repeats

    def good_trials(self) -> pd.DataFrame:
        """The trials that count."""
        return self.trials[self.trials["status"] == OK]

    def good_events(self) -> pd.DataFrame:
        """The bookmarks of the trials that count."""
        return self.events[self.events["trial"].isin(self.good_trials()["trial"])]

    def describe(self) -> dict[str, str]:
        """What was run on what, for people."""
        m, e = self.machine, self.experiment
        configurations = ", ".join(c.label for c in e.configurations)
        pages = "shipped pages" if self.pages is None else f"pages of the folder {Path(self.pages).name}"
        return {
            "Trials": f"{len(self.good_trials())} good of {self.planned_trials} planned",
            "Configurations": configurations,
            "Workload": f"{e.bookmarks} bookmarks saved at once; {pages}, answered after {e.origin_latency_ms:g} ms",
            "Repeats": f"{e.repeats}, each in an order shuffled with seed {e.seed}",
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


class RunWriter:
    """A new run folder `<UTC timestamp>-<name>` below `root`, with all that is known so far always on the disk."""

    def __init__(
        self,
        root: Path,
        name: str,
        experiment: Experiment,
        *,
        settings: Mapping[str, str],
        machine: Mapping[str, Any],
    ) -> None:
        self.folder = _new_folder(root, name)
        self._trials: dict[int, TrialRow] = {}
        self._events: dict[int, list[EventRow]] = {}
        recorded = experiment.to_mapping()
        if recorded["pages"] is not None:
            recorded["pages"] = Path(
                recorded["pages"]
            ).name  # where that folder was is nobody else's business
        spec = {
            "format_version": FORMAT_VERSION,
            "name": name,
            "experiment": recorded,
            "settings": dict(settings),
        }
        _write_json(self.folder / _SPEC, spec)
        _write_json(self.folder / _MACHINE, machine)
        self._write_tables()

    def add(self, trial: TrialRow, events: Iterable[EventRow]) -> None:
        """Record a trial; what was recorded of the same trial before is replaced."""
        self._trials[trial.trial] = trial
        self._events[trial.trial] = list(events)
        self._write_tables()

    def _write_tables(self) -> None:
        # Events first: a trial that is listed has its events.
        events = [event for of_trial in self._events.values() for event in of_trial]
        _write_table(self.folder / _EVENTS, EventRow, events)
        _write_table(self.folder / _TRIALS, TrialRow, list(self._trials.values()))


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
    events = _read_table(folder / _EVENTS, EventRow)
    events["wait_ms"] = _milliseconds(events["started_ns"] - events["queued_ns"])
    events["service_ms"] = _milliseconds(events["done_ns"] - events["started_ns"])
    events["total_ms"] = _milliseconds(events["done_ns"] - events["queued_ns"])
    return Run(
        folder=folder,
        # The folder of pages may be gone by now, or on another machine.
        experiment=Experiment.from_mapping({**spec["experiment"], "pages": None}),
        pages=spec["experiment"]["pages"],
        settings=spec["settings"],
        machine=_read_json(folder / _MACHINE),
        trials=_read_table(folder / _TRIALS, TrialRow),
        events=events,
    )


def configuration_of(row: Mapping[str, Any] | pd.Series) -> Configuration:
    """The configuration that a row of trials or events belongs to."""
    return Configuration(str(row["kind"]), int(row["workers"]))


def _milliseconds(nanoseconds: pd.Series) -> pd.Series:
    return (nanoseconds / 1e6).astype("Float64")


def _new_folder(root: Path, name: str) -> Path:
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


def _schema(row_type: type[TrialRow] | type[EventRow]) -> pa.Schema:
    hints = typing.get_type_hints(row_type)
    meanings = columns(row_type)
    fields = []
    for name, hint in hints.items():
        options = [part for part in typing.get_args(hint) or (hint,) if part is not NoneType]
        optional = NoneType in typing.get_args(hint)
        meaning = {"meaning": meanings[name]}
        fields.append(pa.field(name, _ARROW_TYPES[options[0]], nullable=optional, metadata=meaning))
    return pa.schema(fields)


def _write_table(
    path: Path, row_type: type[TrialRow] | type[EventRow], rows: Sequence[TrialRow] | Sequence[EventRow]
) -> None:
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=_schema(row_type))
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def _read_table(path: Path, row_type: type[TrialRow] | type[EventRow]) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LabError(f"{path} cannot be read ({one_line(error)}): measure again") from None
    if not table.schema.equals(_schema(row_type)):
        raise LabError(f"{path} has other columns than this fuze_bench reads: measure again")
    # Int64 and Float64 keep a missing stamp missing, and the others exact.
    kinds = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype()}
    return table.to_pandas(types_mapper=kinds.get)
