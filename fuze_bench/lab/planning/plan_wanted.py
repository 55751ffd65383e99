"""What a capacity plan is asked for: a rate, waits that must be kept, a backlog to drain, memory, spare workers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuze_bench.errors import LabError, one_line

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Wanted:
    """What the workers must be able to do. Raises LabError for values that cannot be."""

    rate_per_s: float
    """Jobs a second over all queues, mixed as in the run; of a profile, those of its busiest hour."""
    wait_p95_s: Mapping[str, float] = field(default_factory=dict)
    """By queue: 95 % of its jobs must start within so many seconds."""
    backlog: int | None = None
    """So many jobs at once, behind everything else, while the rate goes on, …"""
    drain_s: float | None = None
    """… must be done within so many seconds."""
    memory_bytes: int | None = None
    """All workers together, spare ones included, may take so much."""
    spare: int = 0
    """So many workers may be down while everything above still holds."""
    busiest_hour: str | None = None
    """The hour of the profile that the rate is of."""

    def __post_init__(self) -> None:
        _check(self.rate_per_s, "rate", "jobs a second")
        for queue, wait in self.wait_p95_s.items():
            _check(wait, f"wait-p95 of {queue}", "a time")
        if (self.backlog is None) != (self.drain_s is None):
            raise LabError(
                "backlog and drain belong together: give how many jobs, and within what time they must be done"
            )
        if self.backlog is not None and self.drain_s is not None:
            _check(self.backlog, "backlog", "jobs")
            _check(self.drain_s, "drain", "a time")
        if self.memory_bytes is not None:
            _check(self.memory_bytes, "memory", "an amount")
        if self.spare < 0:
            raise LabError(f"spare={self.spare}: give 0 or more workers")


def _check(value: float, name: str, what: str) -> None:
    if not 0 < value < math.inf:
        raise LabError(f"{name}={value:g}: give {what} above 0")


def parse_duration_s(text: str) -> float:
    """`500ms`, `2s`, `10m` or `1h` in seconds. Raises LabError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    if match is None:
        raise LabError(f"{text!r} is not a time: give 500ms, 2s, 10m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def parse_bytes(text: str) -> int:
    """`800M` or `2G` in bytes (of 1,024). Raises LabError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise LabError(f"{text!r} is not an amount of memory: give 800M or 2G")
    return int(float(match[1]) * _UNITS_BYTES[match[2].upper()])


def parse_waits_s(text: str) -> dict[str, float]:
    """`high=2s,default=60s` as seconds by queue. Raises LabError for anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        queue, equals, time = (piece.strip() for piece in part.partition("="))
        if not queue or not equals:
            raise LabError(f"{part.strip()!r} names no queue: give queue=time, as in high=2s,default=60s")
        if queue in found:
            raise LabError(f"{queue} stands twice in {text!r}: give each queue one time")
        found[queue] = parse_duration_s(time)
    return found


def read_profile(path: Path) -> dict[str, float]:
    """Jobs a second by hour, from a CSV file with the columns `hour` and `rate`. Raises LabError for any other file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"hour", "rate"} <= set(reader.fieldnames or ()):
                raise LabError(
                    f"{path} needs the columns hour,rate in its first line: it has {reader.fieldnames}"
                )
            rows = [(reader.line_num, row["hour"], row["rate"]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabError(
            f"{path} cannot be read ({one_line(error)}): give a CSV file with the columns hour,rate"
        ) from None
    profile: dict[str, float] = {}
    for line, hour, text in rows:
        rate = _rate(text)
        if rate is None or not hour:
            raise LabError(f"{path}, line {line}: {hour},{text} is not an hour and a rate in jobs a second")
        if hour.strip() in profile:
            raise LabError(f"{path}, line {line}: hour {hour} stands twice")
        profile[hour.strip()] = rate
    if not any(profile.values()):
        raise LabError(f"{path} has no hour with a rate above 0")
    return profile


def _rate(text: str | None) -> float | None:
    try:
        rate = float(text or "")
    except ValueError:
        return None
    return rate if 0 <= rate < math.inf else None
