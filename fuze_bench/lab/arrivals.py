"""Open-loop arrivals: when each request is to be sent, whatever became of those before it; pure."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, nearest, one_line
from fuze_bench.pipeline.settings import QUEUES

#: Each law with what it takes.
LAWS: dict[str, tuple[str, ...]] = {
    "constant": ("rate_per_s", "duration_s"),
    "poisson": ("rate_per_s", "duration_s"),
    "step": ("steps",),
    "burst": ("burst_size", "burst_every_s", "duration_s"),
    "spike": ("rate_per_s", "duration_s", "burst_size"),
    "backlog": ("burst_size",),
    "trace": ("trace",),
}
_MOST = 10_000_000
_LONGEST_S = 604_800.0


@dataclass(frozen=True)
class TracedRequest:
    """One line of somebody's own traffic; `time_s` counts from the first one."""

    time_s: float
    url: str
    queue: str


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """A law of arrivals with its numbers. Raises LabError on an unknown law, on what the law does not take or lacks,
    and on any value out of range.

    `constant`: evenly spaced, the first at 0. `poisson`: exponential gaps. `step`: constant within each of `steps`,
    pairs of (rate per second, seconds), one after the other. `burst`: `burst_size` at once every `burst_every_s`.
    `spike`: constant, and halfway through `burst_size` more at once. `backlog`: `burst_size` at once and no more.
    `trace`: a CSV file of times, URLs and queues (see `read_trace`). An experiment's jobs take times and queues from it;
    pages of the trial's own site stand in for the URLs.
    """

    law: str
    rate_per_s: float | None = None
    duration_s: float | None = None
    steps: tuple[tuple[float, float], ...] | None = None
    burst_size: int | None = None
    burst_every_s: float | None = None
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise LabError(f"arrivals know no law {self.law!r}: {nearest(str(self.law), LAWS)}")
        for field in dataclasses.fields(self)[1:]:
            value, taken = getattr(self, field.name), field.name in LAWS[self.law]
            if taken and value is None:
                raise LabError(f"{self.law} arrivals need {field.name}: give it")
            if not taken and value is not None:
                raise LabError(
                    f"{self.law} arrivals take no {field.name} (it is {value!r}): leave it out, "
                    f"or give {', '.join(LAWS[self.law])}"
                )
            if value is not None:
                object.__setattr__(self, field.name, _CHECKS[field.name](field.name, value))
        if (expected := self._expected()) > _MOST:
            raise LabError(f"{self.law} arrivals make {expected:,.0f} requests: {_MOST:,} are the most")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Arrivals:
        """Arrivals from names and values; an unknown name is an error that says the nearest known one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise LabError(f"arrivals have no {name!r}: {nearest(str(name), known)}")
        if "law" not in values:
            raise LabError(f"arrivals need a law: give one of {', '.join(LAWS)}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON has them, without what the law does not take; the inverse of `from_mapping`."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        if self.steps is not None:
            given["steps"] = [list(step) for step in self.steps]
        return given

    @property
    def window_s(self) -> float:
        """How long load is offered; every time lies below it (a backlog's, and a trace's last one, at it)."""
        if self.steps is not None:
            return math.fsum(seconds for _, seconds in self.steps)
        if self.trace is not None:
            return read_trace(Path(self.trace))[-1].time_s
        return self.duration_s or 0.0

    def times(self, seed: int) -> list[float]:
        """The intended send times in ascending order, in seconds from 0; the same for the same seed."""
        rate, duration_s, size = self.rate_per_s or 0.0, self.duration_s or 0.0, self.burst_size or 0
        match self.law:
            case "constant":
                return _even(rate, duration_s)
            case "poisson":
                return list(_poisson(rate, duration_s, random.Random(seed)))
            case "step":
                return list(_steps(self.steps or ()))
            case "burst":
                starts = _even(1 / (self.burst_every_s or 1.0), duration_s)
                return [start_s for start_s in starts for _ in range(size)]
            case "spike":
                return sorted([*_even(rate, duration_s), *[duration_s / 2] * size])
            case "backlog":
                return [0.0] * size
        return [request.time_s for request in read_trace(Path(self.trace or ""))]

    def queues(self, shares: Mapping[str, float], count: int, seed: int) -> list[str]:
        """The queue of each of `count` jobs: as the trace says, else drawn by their shares; the same for a seed."""
        if self.trace is not None:
            return [request.queue for request in read_trace(Path(self.trace))]
        return random.Random(f"{seed}/queues").choices(list(shares), list(shares.values()), k=count)

    def _expected(self) -> float:
        """About how many requests it makes."""
        if self.steps is not None:
            return math.fsum(rate * seconds for rate, seconds in self.steps)
        bursts = (self.duration_s or 0.0) / self.burst_every_s if self.burst_every_s else 1.0
        return (self.rate_per_s or 0.0) * (self.duration_s or 0.0) + (self.burst_size or 0) * bursts


def _even(rate_per_s: float, duration_s: float) -> list[float]:
    """Times 1/rate apart, from 0 to below the duration: exactly rate times duration where that is a whole number."""
    count = max(1, math.ceil(round(rate_per_s * duration_s, 6)))
    below = math.nextafter(duration_s, 0.0)
    return [min(number / rate_per_s, below) for number in range(count)]


def _poisson(rate_per_s: float, duration_s: float, chance: random.Random) -> Iterator[float]:
    time_s = chance.expovariate(rate_per_s)
    while time_s < duration_s:
        yield time_s
        time_s += chance.expovariate(rate_per_s)


def _steps(steps: tuple[tuple[float, float], ...]) -> Iterator[float]:
    start_s = 0.0
    for rate_per_s, seconds in steps:
        if rate_per_s:
            yield from (start_s + time_s for time_s in _even(rate_per_s, seconds))
        start_s += seconds


def _positive(name: str, value: object, largest: float = _LONGEST_S) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise LabError(f"{name} is {value!r}, not a number: use one above 0")
    # Written so that "not a number" is out of range, too.
    if not 0 < value <= largest:
        raise LabError(f"{name}={value} is out of range: use more than 0 and at most {largest:,.0f}")
    return float(value)


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise LabError(f"{name} is {value!r}, not a whole number: use 1 or more")
    if not 1 <= value <= _MOST:
        raise LabError(f"{name}={value} is out of range: use 1 to {_MOST:,}")
    return value


def _parts(name: str, value: object) -> tuple[tuple[float, float], ...]:
    example = "a list of pairs (rate per second, seconds), such as [[10, 5], [50, 5]]"
    if not isinstance(value, list | tuple) or not value:
        raise LabError(f"{name} is {value!r}: give {example}")
    result = []
    for part in value:
        if not isinstance(part, list | tuple) or len(part) != 2:
            raise LabError(f"{name} holds {part!r}: give {example}")
        rate, seconds = part
        # A part may be silent.
        is_silent = rate == 0 and not isinstance(rate, bool)
        result.append((0.0 if is_silent else _positive(f"a rate of {name}", rate), _positive(name, seconds)))
    if not any(rate for rate, _ in result):
        raise LabError(f"{name} offers nothing at all: give at least one rate above 0")
    return tuple(result)


def _file(name: str, value: object) -> str:
    if not isinstance(value, str | Path):
        raise LabError(
            f"{name} is {value!r}, not a file's name: name a CSV file with the columns time and url"
        )
    read_trace(Path(value))
    return str(value)


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "rate_per_s": _positive,
    "duration_s": _positive,
    "steps": _parts,
    "burst_size": _whole,
    "burst_every_s": _positive,
    "trace": _file,
}


def read_trace(path: Path) -> list[TracedRequest]:
    """Somebody's own traffic, in the order of its times, the first at 0.

    A CSV file with a header: `time` (seconds, from any point, or ISO 8601 as in 2026-03-01T09:30:00.250Z), `url`, and
    `queue` where there is one (`default` where it is missing or empty). Other columns are left alone. Raises LabError,
    with the line's number, for what cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(
            f"cannot read the trace {path} ({one_line(error)}): name a CSV file in UTF-8"
        ) from None
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    found: list[TracedRequest] = []
    try:
        for name in ("time", "url"):
            if name not in (rows.fieldnames or ()):
                raise LabError(f"{path}, line 1: there is no column {name!r}: begin with time,url,queue")
        kinds: set[bool] = set()
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            time_s, is_date = _time_of(where, (row["time"] or "").strip())
            kinds.add(is_date)
            if len(kinds) > 1:
                raise LabError(f"{where}: {row['time']!r} after times of another kind: use seconds or dates")
            found.append(TracedRequest(time_s, *_target_of(where, row)))
    except csv.Error as error:
        raise LabError(f"{path}, line {rows.line_num}: {one_line(error)}: is it a CSV file?") from None
    if not found:
        raise LabError(f"the trace {path} has no requests: give it a line for each")
    found.sort(key=lambda request: request.time_s)
    first_s = found[0].time_s
    return [dataclasses.replace(request, time_s=request.time_s - first_s) for request in found]


def _time_of(where: str, text: str) -> tuple[float, bool]:
    """Seconds, and whether they were written as a date."""
    try:
        time_s = float(text)
    except ValueError:
        try:
            return datetime.fromisoformat(text).timestamp(), True
        except ValueError:
            raise LabError(f"{where}: {text[:50]!r} is no time: use seconds or ISO 8601") from None
    if not math.isfinite(time_s):
        raise LabError(f"{where}: {text[:50]!r} is no time: use a finite number of seconds")
    return time_s, False


def _target_of(where: str, row: Mapping[str, str | None]) -> tuple[str, str]:
    url, queue = (row["url"] or "").strip(), (row.get("queue") or "").strip() or "default"
    if not url:
        raise LabError(f"{where}: the url is empty: give each request one")
    if queue not in QUEUES:
        raise LabError(f"{where}: there is no queue {queue[:50]!r}: {nearest(queue, QUEUES)}")
    return url, queue
