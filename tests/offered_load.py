"""What the tests of both load generators share."""

from __future__ import annotations

import itertools
from pathlib import Path

from fuze_bench.lab.arrivals import Arrivals
from fuze_bench.lab.load.sender import PlannedRequest, planned_saves


def saves(arrivals: Arrivals, who: str, seed: int = 1) -> list[PlannedRequest]:
    """Saves of pages that nobody else saves, to each queue in turn."""
    urls = (f"http://127.0.0.1:9/page/{number}?user={who}" for number in itertools.count())
    return planned_saves(arrivals.times(seed), urls, itertools.cycle(["high", "default", "low"]))


def record(folder: Path) -> str:
    """Where the sender writes; Locust writes there, too, when the lab drives it."""
    return str(folder / "requests.jsonl")


def progress(folder: Path, what: bytes = b"\n") -> int:
    """How many requests (of which the record says `what`) are over."""
    path = Path(record(folder))
    return path.read_bytes().count(what) if path.exists() else 0


def p99(values: list[float]) -> float:
    """The nearest rank; of 500 too few lie beyond it for the lab to state it, but the case does."""
    return sorted(values)[round(0.99 * len(values)) - 1]
