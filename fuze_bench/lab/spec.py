"""What an experiment is: its workload, its configurations, and the balanced order of its trials."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, nearest
from fuze_bench.pipeline.settings import Kind

_KINDS = tuple(kind.value for kind in Kind)

_LARGEST = {
    "worker_counts": 256,
    "bookmarks": 1_000_000,
    "origin_latency_ms": 60_000,
    "repeats": 1_000,
    "seed": 2**63 - 1,
}


@dataclass(frozen=True)
class Configuration:
    """What differs between trials: how many workers of which kind."""

    kind: str
    workers: int

    @property
    def label(self) -> str:
        """«2 fork workers», for tables and sentences."""
        return f"{self.workers} {self.kind} worker{'' if self.workers == 1 else 's'}"


@dataclass(frozen=True)
class PlannedTrial:
    """One configuration's place in the order: `number` from 1 over the run, `block` from 1 over the repeats."""

    number: int
    block: int
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """How the number and kind of workers change what a backlog of bookmarks takes.

    Each combination of `worker_counts` and `kinds` is a configuration. Each of `repeats` blocks runs every
    configuration once, in an order shuffled by `seed`, so that a slow minute of the machine hits no configuration
    alone. A trial saves `bookmarks` pages at once; the origin answers each after `origin_latency_ms` milliseconds.
    `pages` is a folder of HTML pages to serve instead of the shipped ones. Raises LabError on any wrong value.
    """

    worker_counts: tuple[int, ...] = (1, 2, 4)
    kinds: tuple[str, ...] = ("fork", "simple")
    bookmarks: int = 20
    origin_latency_ms: float = 300.0
    repeats: int = 3
    seed: int = 1
    pages: str | None = None

    def __post_init__(self) -> None:
        # A notebook gives lists, and whole numbers where a fraction would do.
        for name in ("worker_counts", "kinds"):
            object.__setattr__(self, name, _sequence(name, getattr(self, name)))
        for count in self.worker_counts:
            _check_whole("worker_counts", count, lowest=1)
        for kind in self.kinds:
            if kind not in _KINDS:
                raise LabError(
                    f"kinds holds {kind!r}, which is no kind of worker: {nearest(str(kind), _KINDS)}"
                )
        for name, lowest in (("bookmarks", 1), ("repeats", 1), ("seed", 0)):
            _check_whole(name, getattr(self, name), lowest=lowest)
        _check_number("origin_latency_ms", self.origin_latency_ms, lowest=0)
        object.__setattr__(self, "origin_latency_ms", float(self.origin_latency_ms))
        _check_pages(self.pages)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Experiment:
        """An experiment from names and values; an unknown name is an error that says the nearest known one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise LabError(f"an experiment has no {name!r}: {nearest(name, known)}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON has them; the inverse of `from_mapping`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Every combination, kind by kind, in ascending order of workers."""
        return tuple(
            Configuration(kind, count) for kind in self.kinds for count in sorted(self.worker_counts)
        )

    @property
    def baseline(self) -> Configuration:
        """What the others are compared with: the fewest workers of the kind named first."""
        return self.configurations[0]

    def plan(self) -> list[PlannedTrial]:
        """All trials in the order in which they run; the same for the same seed."""
        chance = random.Random(self.seed)
        result: list[PlannedTrial] = []
        for block in range(1, self.repeats + 1):
            order = list(self.configurations)
            chance.shuffle(order)
            result += [
                PlannedTrial(len(result) + place, block, configuration)
                for place, configuration in enumerate(order, start=1)
            ]
        return result


def _sequence(name: str, value: object) -> tuple[Any, ...]:
    example = "{worker_counts: [1, 2]}" if name == "worker_counts" else "{kinds: [fork, simple]}"
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        given = "the text " if isinstance(value, str) else ""
        raise LabError(f"{name} is {given}{value!r}, not a list: give it to papermill as -y '{example}'")
    if not value:
        raise LabError(f"{name} is empty: name at least one, such as -y '{example}'")
    twice = next((item for item in value if list(value).count(item) > 1), None)
    if twice is not None:
        raise LabError(f"{name} holds {twice!r} twice: name each once, and use repeats to measure more often")
    return tuple(value)


def _check_whole(name: str, value: object, *, lowest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise LabError(f"{name} holds {value!r}, not a whole number: use {lowest} or more")
    _check_range(name, value, lowest)


def _check_number(name: str, value: object, *, lowest: int) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise LabError(f"{name} is {value!r}, not a number: use {lowest} or more")
    _check_range(name, value, lowest)


def _check_range(name: str, value: float, lowest: int) -> None:
    # Written so that "not a number" is out of range, too.
    if not lowest <= value <= _LARGEST[name]:
        raise LabError(f"{name}={value} is out of range: use {lowest:,} to {_LARGEST[name]:,}")


def _check_pages(pages: object) -> None:
    if pages is None:
        return
    if not isinstance(pages, str):
        raise LabError(f"pages is {pages!r}, not a folder's name: leave it None for the shipped pages")
    if not Path(pages).is_dir():
        raise LabError(f"pages={pages!r} is not a folder: name one that holds *.html files, or leave it None")
