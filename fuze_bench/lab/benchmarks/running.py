"""Runs benchmarks one after the other, and keeps what each found in the data folder as soon as it is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from statistics import fmean

from fuze_bench.errors import FuzeError, one_line
from fuze_bench.lab.benchmarks import result, side_by_side
from fuze_bench.lab.benchmarks.known import BENCHMARKS, blocks_of
from fuze_bench.lab.benchmarks.result import BenchmarkResult, Figure
from fuze_bench.lab.parts.machine import describe_machine
from fuze_bench.pipeline.settings import Settings

#: Tells the person who waits; given whole lines.
Say = Callable[[str], None]


def results_folder() -> Path:
    """Where results are kept: `benchmarks` in the data folder of the environment's settings."""
    return Settings.from_mapping(os.environ).data_dir / "benchmarks"


def run_benchmark(name: str, *, blocks: int | None, scale: float, seed: int, say: Say) -> BenchmarkResult:
    """Measure one. `blocks`: repeats of everything; None: as many as it takes (see `known.blocks_of`)."""
    module = import_module(f"fuze_bench.lab.benchmarks.{BENCHMARKS[name][0]}")
    repeats = blocks_of(name) if blocks is None else blocks
    units = getattr(module, "UNITS", {})
    began_s, machine = time.monotonic(), describe_machine(getattr(module, "PACKAGES", ()))
    figures = side_by_side.measure_in_turn(module.contenders(scale), repeats, seed, say)
    figures |= module.derived(figures) if hasattr(module, "derived") else {}
    agreements = module.agreements(scale) if hasattr(module, "agreements") else []
    ratios = side_by_side.ratios(figures, module.TARGETS)
    said = module.sentences(figures) if hasattr(module, "sentences") else []
    return BenchmarkResult(
        benchmark=name,
        machine=machine,
        ratios=(*ratios, *(each.as_ratio() for each in agreements)),
        figures=tuple(
            Figure(what, side_by_side.median_of(figures, what), units.get(what, module.UNIT))
            for what in figures
        ),
        sentences=(*said, *side_by_side.not_judged(ratios, module.TARGETS)),
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        blocks=repeats,
        scale=scale,
        took_s=time.monotonic() - began_s,
    )


def run_all(
    names: Sequence[str], folder: Path, *, blocks: int | None, scale: float, seed: int, say: Say
) -> Iterator[BenchmarkResult | None]:
    """Measure each and keep it in the folder; None for one that failed, of which `say` has been told why."""
    took_s: list[float] = []
    for place, name in enumerate(names):
        if len(names) > 1:
            left_s = _left_s(names[place:], folder, took_s, blocks, scale)
            left = "" if left_s is None else f"; about {left_s / 60:,.0f} min left"
            say(f"benchmark {place + 1} of {len(names)}: {name}{left}")
        began_s = time.monotonic()
        try:
            found = run_benchmark(name, blocks=blocks, scale=scale, seed=seed, say=say)
            say(result.record(found, folder))
            yield found
        except FuzeError as error:
            say(f"{name} failed: {one_line(error)}")
            yield None
        took_s.append(time.monotonic() - began_s)


def _left_s(
    names: Sequence[str], folder: Path, took_s: Sequence[float], blocks: int | None, scale: float
) -> float | None:
    """What they took when they were last measured like this; else as long as those before. None: nobody knows."""
    before_s = {
        each.benchmark: each.took_s
        for each in result.recorded(folder)[0]
        if each.scale == scale and each.blocks == (blocks_of(each.benchmark) if blocks is None else blocks)
    }
    known_s = [before_s[name] for name in names if name in before_s]
    usual = [*took_s, *known_s]
    return sum(known_s) + (len(names) - len(known_s)) * fmean(usual) if usual else None
