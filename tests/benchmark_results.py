"""Benchmark results made by hand."""

from __future__ import annotations

from typing import Any

from fuze_bench.lab.benchmarks.result import BenchmarkResult, Figure
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio


def found(*ratios: BenchmarkRatio, benchmark: str = "replay", **fields: Any) -> BenchmarkResult:
    """Of six whole blocks, if not said otherwise."""
    given: dict[str, Any] = {
        "machine": {"cores": 2},
        "figures": (Figure("ours", 400.0, "pages/s"),),
        "sentences": ("Said.",),
        "measured_at": "2026-01-02 03:04",
        "blocks": 6,
        "scale": 1.0,
        "took_s": 60.0,
    }
    return BenchmarkResult(benchmark=benchmark, ratios=ratios, **given | fields)
