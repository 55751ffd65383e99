"""What synthetic and foreign jobs run as: a user's function as it is, and a line in a file that says how it went.

Jobs go through plain RQ. `run_job` imports the function in the worker, calls it, and adds its line with a single write
that nothing comes between, from whatever process the worker runs its jobs in.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuze_bench.errors import LabError, nearest, one_line

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from rq.queue import EnqueueData

    from fuze_bench.lab.experiments.service_law import ServiceLaw

RUN_JOB = "fuze_bench.lab.load.jobs.run_job"
PROCESSED, FAILED, AGAIN = "processed", "failed", "again"

_REASON_CHARS = 300


@dataclass(frozen=True)
class JobCall:
    """One job to come: `number` from 1, the function as `package.module:name`, its arguments as JSON has them.

    `at_s`: when it is to be sent, in seconds from the start, if the job's file says so.
    """

    number: int
    function: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str = "default"
    at_s: float | None = None

    def enqueue_data(self, record: Path, *, timeout_s: int = 600) -> EnqueueData:
        """What `rq.Queue.enqueue_many` takes (on the queue `queue`, with the JSON serializer)."""
        from rq import Queue

        return Queue.prepare_data(
            RUN_JOB,
            (self.number, self.function, list(self.args), dict(self.kwargs), str(record.absolute())),
            timeout=timeout_s,
            job_id=f"job-{self.number}",
            description=f"{self.function}, job {self.number}",
        )


def run_job(number: int, function: str, args: list[Any], kwargs: dict[str, Any], record: str) -> Any:
    """The job: call the function, add a line to the file `record`, and fail as the function fails.

    What it returns is dropped, as it need not be JSON, but for a Retry, which RQ obeys. An `async` function is run to
    its end.
    """
    from rq import get_current_job
    from rq.job import Retry

    job = get_current_job()
    worker = None if job is None else job.worker_name
    started_ns = time.monotonic_ns()
    try:
        result = find_function(function)(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:
        reason = f"{type(error).__name__}: {one_line(error)}"[:_REASON_CHARS]
        _add_line(record, number, started_ns, FAILED, reason, worker)
        raise
    again = isinstance(result, Retry)
    _add_line(record, number, started_ns, AGAIN if again else PROCESSED, None, worker)
    return result if again else None


def _add_line(
    record: str, number: int, started_ns: int, status: str, reason: str | None, worker: str | None
) -> None:
    line = {
        "job": number,
        "started_ns": started_ns,
        "done_ns": time.monotonic_ns(),
        "status": status,
        "reason": reason,
        "worker": worker,
    }
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def find_function(name: str) -> Callable[..., Any]:
    """What `package.module:name` names, imported. Raises LabError if there is nothing to be called."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise LabError(f"function={name!r} names none: write package.module:name")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise LabError(
            f"function={name!r}: there is no module {error.name!r}: start in the folder that holds it,"
            " or name that in PYTHONPATH"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise LabError(f"function={name!r}: {module_name} has no {part!r}: {nearest(part, names)}")
        found = getattr(found, part)
    if not callable(found):
        raise LabError(f"function={name!r} is {type(found).__name__} and cannot be called: name a function")
    function: Callable[..., Any] = found
    return function


def synthetic_jobs(
    law: ServiceLaw, queues: Sequence[str], generator: np.random.Generator, *, first_number: int = 1
) -> list[JobCall]:
    """A job for each of `queues`, in this order, with service times drawn ahead: the same ones for the same seed."""
    times_ms = law.draw_ms(len(queues), generator)
    return [
        JobCall(number, law.function, (round(float(service_ms), 6),), queue=queue)
        for number, (queue, service_ms) in enumerate(zip(queues, times_ms, strict=True), first_number)
    ]


@dataclass(frozen=True, kw_only=True)
class _JobLine:
    """A line of a file of jobs."""

    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue: str = "default"
    at_s: float | None = None


_LINE_FIELDS = {field.name: field for field in dataclasses.fields(_JobLine)}
_LINE_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "args": (list, "a list"),
    "kwargs": (dict, "an object with the arguments' names"),
    "queue": (str, "a queue's name"),
    "at_s": ((int, float), "seconds from the start"),
}


def load_jobs(path: Path, function: str) -> list[JobCall]:
    """The jobs of a file of JSON objects, one a line: `args`, `kwargs`, `queue` and `at_s`, each of which may lack.

    Raises LabError, with the line's number, for the first line that cannot be used; also for a file without jobs.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(
            f"jobs={str(path)!r} cannot be read ({one_line(error)}): name a file of JSON lines"
        ) from None
    found = [
        (number, _read_line(f"{path}, line {number}", line))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not found:
        raise LabError(f'jobs={str(path)!r} holds no job: write a line such as {{"args": [1, 2]}} for each')
    _check_times(path, [(number, line.at_s) for number, line in found])
    return [
        JobCall(number, function, line.args, line.kwargs, line.queue, line.at_s)
        for number, (_, line) in enumerate(found, start=1)
    ]


def _read_line(where: str, text: str) -> _JobLine:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise LabError(f"{where} is not JSON ({one_line(error)}): write an object a line") from None
    if not isinstance(line, dict):
        raise LabError(f'{where} is no object: write one, such as {{"args": [1, 2]}}')
    for name, value in line.items():
        if name not in _LINE_TYPES:
            raise LabError(f"{where} has {name!r}, which no job has: {nearest(name, _LINE_TYPES)}")
        kind, words = _LINE_TYPES[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LabError(f"{where}: {name} is {value!r}, give {words}")
    if not line.get("queue", "default"):
        raise LabError(f"{where}: queue is empty: name one, or leave it out")
    if not 0 <= line.get("at_s", 0) < float("inf"):
        raise LabError(f"{where}: at_s is {line['at_s']!r}: give 0 or more seconds from the start")
    return _JobLine(**line)


def _check_times(path: Path, times: Sequence[tuple[int, float | None]]) -> None:
    """Either every job says when it is sent, in their order, or none does."""
    with_time = [(number, at_s) for number, at_s in times if at_s is not None]
    if not with_time:
        return
    if len(with_time) < len(times):
        number = next(number for number, at_s in times if at_s is None)
        raise LabError(
            f"{path}, line {number} has no at_s, and others have: give it in every line, or in none"
        )
    for (_, before_s), (number, at_s) in itertools.pairwise(with_time):
        if at_s < before_s:
            raise LabError(
                f"{path}, line {number}: at_s={at_s:g} comes before the line above: sort the lines"
            )


def read_record(path: Path) -> pd.DataFrame:
    """The lines of a record file in the order written: job, started_ns, done_ns, status, reason, worker.

    Stamps are int64 nanoseconds of the host's monotonic clock. Raises LabError if a line cannot be read.
    """
    import pandas as pd

    lines = []
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise LabError(
                f"{path}, line {number} is damaged, as a full disk leaves it: measure again"
            ) from None
    kinds = {"job": "int64", "started_ns": "int64", "done_ns": "int64"}
    columns = [*kinds, "status", "reason", "worker"]
    return pd.DataFrame(lines, columns=columns).astype(kinds)
