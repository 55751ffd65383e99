"""Bookmarks a second by two worker processes when the web site answers after 300 ms: who fetches ahead does not wait."""

from __future__ import annotations

from functools import partial

from fuze_bench.lab.benchmarks.bookmarks import UNIT as UNIT
from fuze_bench.lab.benchmarks.bookmarks import pipeline_per_s
from fuze_bench.lab.benchmarks.side_by_side import Measure, Target

_LATENCY_MS = 300.0
_PAGES = 300
#: It waits for every page: fewer tell as much.
_PAGES_ONE_BY_ONE = 60
SLOW, AT_ONCE, SIMPLE = "batch, after 300 ms", "batch, at once", "simple, after 300 ms"
TARGETS = [Target(SLOW, AT_ONCE, at_least=0.92), Target(SLOW, SIMPLE, at_least=5)]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it."""
    pages, one_by_one = (max(10, int(each * scale)) for each in (_PAGES, _PAGES_ONE_BY_ONE))
    return {
        SLOW: partial(pipeline_per_s, "batch", pages, _LATENCY_MS),
        AT_ONCE: partial(pipeline_per_s, "batch", pages),
        SIMPLE: partial(pipeline_per_s, "simple", one_by_one, _LATENCY_MS),
    }
