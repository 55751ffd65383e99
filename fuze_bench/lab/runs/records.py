"""The rows that a run records, with what every column means, and the files that hold them."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.experiments.factors import Configuration, factors

OK = "ok"
FAILED = "failed"
#: How a job ends, beside `pending` and `processing`, which it did not.
PROCESSED = "processed"
JOB_FAILED = "failed"
#: A save that got an answer, but not the one wanted; or none: `refused`, `reset`, `timeout`, `unfinished`.
REFUSED = "refused"
#: A save that got the answer wanted, and that the database does not know.
GONE = "gone"

_ARROW_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


def _column(meaning: str, default: Any = dataclasses.MISSING) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One configuration run once. The factors' values are columns as well."""

    trial: int = _column("number of the trial, from 1, in the order planned")
    block: int = _column("number of the block, from 1; a block holds every configuration once")
    label: str = _column("the configuration, saying what differs from the others")
    copy: bool = _column("whether this is the second run of the baseline in its block")
    status: str = _column("ok, or failed: then nothing of the trial counts")
    problem: str | None = _column("why it failed, in one line", None)
    log_end: str | None = _column("the last lines of the parts' logs, if it failed", None)
    started_at_s: float = _column("when it began, seconds since 1970 UTC")
    ready_s: float | None = _column("from starting the parts until all were ready, seconds", None)
    window_s: float = _column("for how long jobs were offered, seconds; 0: all at once", 0.0)
    offered: int = _column("jobs that were to be sent", 0)
    sent: int = _column("jobs that were sent", 0)
    acknowledged: int = _column("sent jobs that got the answer that they are saved, or queued", 0)
    refused: int = _column("sent jobs that got another answer, or an error", 0)
    unfinished: int = _column("sent jobs whose answer had not come when the trial ended", 0)
    processed: int = _column("jobs that ended well", 0)
    failed: int = _column("jobs that ended as failed, with a reason", 0)
    lost: int | None = _column(
        "acknowledged jobs that never ended, though all was drained; none: it was not drained", None
    )
    duplicated: int = _column("executions beyond the first of a job", 0)
    drained: bool = _column("whether in time nothing waited or was worked on any more", False)
    drain_s: float | None = _column("from the first job queued until the last was done, seconds", None)
    throughput_per_s: float | None = _column("jobs done per second of drain_s", None)
    cpu_s: float | None = _column(
        "processor time of the workers (threads of the API, if it works), seconds", None
    )
    peak_pss_bytes: int | None = _column(
        "most memory of all workers together (shared pages counted once), bytes", None
    )
    redis_commands: int | None = _column("commands that Redis processed, those of sampling left out", None)
    sent_by: str | None = _column(
        "who really sent the saves: lean or locust; none: nothing went through the API", None
    )
    sender_ceiling_per_s: float | None = _column(
        "most requests (of synthetic or your jobs: jobs) per second that whoever sent managed on its own",
        None,
    )
    late_before: int = _column(
        "times it was measured before and the load generator was late: of those nothing is recorded", 0
    )
    missed_samples: int = _column("samples of the series that could not be taken", 0)
    faults: str | None = _column("what was done to the parts, and when, as JSON", None)
    workers_exit_code: int | None = _column("exit code of the workers, negative for a signal", None)
    origin_exit_code: int | None = _column("exit code of the origin, negative for a signal", None)


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """One job in one trial. Stamps are nanoseconds of the host's monotonic clock: subtract, do not read."""

    trial: int = _column("number of the trial")
    block: int = _column("number of the block")
    label: str = _column("the configuration")
    copy: bool = _column("whether the trial is the baseline's second in its block")
    job: int = _column("number of the job within the trial, from 1, in the order intended")
    queue: str | None = _column("the queue it was for", None)
    intended_ns: int = _column("when it was to be sent, monotonic nanoseconds")
    sent_ns: int | None = _column("when it was sent, monotonic nanoseconds", None)
    acknowledged_ns: int | None = _column("when the answer was there, monotonic nanoseconds", None)
    queued_ns: int | None = _column("when it was saved and queued, monotonic nanoseconds", None)
    started_ns: int | None = _column("when a worker took it up, monotonic nanoseconds", None)
    done_ns: int | None = _column("when its outcome was stored, monotonic nanoseconds", None)
    status: str = _column(
        "processed or failed; pending or processing if it had not ended; refused if it was not saved; gone if it was"
        " acknowledged and is not in the database"
    )
    reason: str | None = _column("why it failed, or was refused", None)
    mode: str | None = _column(
        "who took it in hand when it was saved: rq, thread, or deferred to later", None
    )
    attempts: int = _column("how often a worker took it up", 0)
    worker: str | None = _column("the worker that ran it, where that is known", None)
    fetch_ms: float | None = _column("fetching the page, milliseconds", None)
    extract_ms: float | None = _column("finding its text, milliseconds", None)
    embed_ms: float | None = _column("computing its vector, milliseconds; none if the model is off", None)
    analyse_ms: float | None = _column("summary and keywords, milliseconds", None)


@dataclass(frozen=True, kw_only=True)
class SeriesRow:
    """One sample of one thing during a trial."""

    trial: int = _column("number of the trial")
    t_s: float = _column("seconds from the first intended send time; negative before")
    thing: str = _column("a queue, a process, or redis")
    metric: str = _column("depth, oldest_age_s, busy_workers, cpu_s, pss_bytes, commands or memory_bytes")
    value: float = _column("the value, in the unit that the metric's name ends with")


#: Columns that `load_run` adds to the events.
DERIVED_EVENT_COLUMNS = {
    "late_ms": "from intended to sent, milliseconds",
    "ack_ms": "from intended to acknowledged: what whoever saves has to wait, milliseconds",
    "ack_service_ms": "from sent to acknowledged, milliseconds",
    "wait_ms": "from queued to taken up by a worker, milliseconds",
    "service_ms": "from taken up to outcome stored, milliseconds",
    "total_ms": "from intended to outcome stored, milliseconds",
}

Row = TrialRow | EventRow | SeriesRow


def columns(row_type: type[Row]) -> dict[str, str]:
    """What each column means, with its unit; of trials the factors' too."""
    meanings = {f.name: f.metadata["meaning"] for f in dataclasses.fields(row_type)}
    if row_type is TrialRow:
        meanings |= {name: known["meaning"] for name, known in factors().items()}
    return meanings


def write_table(
    path: Path, row_type: type[Row], rows: Sequence[Row], more: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Replace the file by a table of the rows, at once; `more`: for each row, what to put beside it."""
    beside = more or [{}] * len(rows)
    content = [{**vars(row), **other} for row, other in zip(rows, beside, strict=True)]
    table = pa.Table.from_pylist(content, schema=_schema(row_type))
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def read_table(path: Path, row_type: type[Row]) -> pd.DataFrame:
    """The table as a DataFrame. Raises LabError if it cannot be read or has other columns."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LabError(f"{path} cannot be read ({one_line(error)}): measure again") from None
    if not table.schema.equals(_schema(row_type)):
        raise LabError(f"{path} has other columns than this fuze_bench reads: measure again")
    # Int64 and Float64 keep a missing stamp missing, and the others exact.
    kinds = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype()}
    return table.to_pandas(types_mapper=kinds.get)


def _schema(row_type: type[Row]) -> pa.Schema:
    meanings = columns(row_type)
    hints = typing.get_type_hints(row_type)
    if row_type is TrialRow:
        hints |= typing.get_type_hints(Configuration)
    fields = []
    for name, hint in hints.items():
        options = [part for part in typing.get_args(hint) or (hint,) if part is not NoneType]
        optional = NoneType in typing.get_args(hint)
        meaning = {"meaning": meanings[name]}
        fields.append(pa.field(name, _ARROW_TYPES[options[0]], nullable=optional, metadata=meaning))
    return pa.schema(fields)
