"""The report's page on speed, computed from the benchmark results that are recorded; it measures nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuze_bench.lab.benchmarks.known import BENCHMARKS
from fuze_bench.lab.benchmarks.result import BenchmarkResult, ratio_in_words, recorded, times
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.report import pages, speed_plots

TITLE = "Speed: how fast the product itself is"


@dataclass(frozen=True)
class Speed:
    """What is recorded of the benchmarks; `problems` says of each file that cannot be read why."""

    results: tuple[BenchmarkResult, ...]
    problems: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The benchmarks without a result."""
        known = {each.benchmark for each in self.results}
        return tuple(name for name in BENCHMARKS if name not in known)

    def in_short(self) -> str:
        """A sentence: how many targets hold, or that nothing is recorded. A first look says nothing of a target."""
        if not self.results:
            return "No benchmark has been recorded yet."
        number, whole = len(self.results), [each for each in self.results if not each.is_first_look]
        verdicts = [ratio.holds for each in whole for ratio in each.ratios if ratio.holds is not None]
        said = [f"{number} of {len(BENCHMARKS)} benchmarks {'is' if number == 1 else 'are'} recorded"]
        if len(whole) < number:
            said.append(f"{number - len(whole)} of them only in a first look, which shows no target to hold")
        if verdicts:
            said.append(f"{sum(verdicts)} of {len(verdicts)} targets hold")
        return f"{'; '.join(said)}."


def read(folder: Path | None) -> Speed:
    """The results in the folder; none if there is no folder."""
    results, problems = ([], []) if folder is None else recorded(folder)
    order = list(BENCHMARKS)
    known = [each for each in results if each.benchmark in BENCHMARKS]
    return Speed(tuple(sorted(known, key=lambda each: order.index(each.benchmark))), tuple(problems))


def page(speed: Speed, *, written_at: str, has_index: bool) -> str:
    """The page as HTML that needs nothing else. `has_index`: whether the report's first page is beside it, to be linked."""
    return pages.render(
        "speed.html.j2",
        title=TITLE,
        policy=pages.policy(),
        short=speed.in_short(),
        problems=speed.problems,
        results=[_section(each) for each in speed.results],
        missing=[(name, _question(name)) for name in speed.missing],
        is_empty=not speed.results,
        written_at=written_at,
        has_index=has_index,
    )


def data(speed: Speed) -> str:
    """The results as JSON, for programs."""
    return json.dumps([each.as_plain() for each in speed.results], indent=2, ensure_ascii=False) + "\n"


def _section(result: BenchmarkResult) -> dict[str, Any]:
    plot = speed_plots.ratios(result) if result.ratios else None
    return {
        "name": result.benchmark,
        "question": _question(result.benchmark),
        "verdict": _verdict(result),
        "missed": [ratio_in_words(each) for each in result.ratios if each.holds is False],
        "sentences": result.sentences,
        "is_first_look": result.is_first_look,
        "plot": "" if plot is None else base64.b64encode(plot.png()).decode(),
        "plot_description": "" if plot is None else plot.description,
        "ratios": [
            (
                each.what,
                each.against,
                times(each.ratio),
                "–" if each.low is None else f"{cell(each.low)} to {cell(each.high)}",
                _target(each),
                {True: "yes", False: "no", None: "–"}[each.holds],
            )
            for each in result.ratios
        ],
        "figures": [(each.what, f"{cell(each.median)} {each.unit}") for each in result.figures],
        "facts": pages.facts_table(_facts(result)),
    }


def _question(name: str) -> str:
    return BENCHMARKS[name][1].replace("`", "")


def _target(ratio: BenchmarkRatio) -> str:
    if ratio.target is None:
        return "–"
    return f"{'at least' if speed_plots.is_least(ratio) else 'at most'} {ratio.target:g}"


def _verdict(result: BenchmarkResult) -> str:
    judged = [each for each in result.ratios if each.holds is not None]
    missed = [each for each in judged if not each.holds]
    if not judged:
        return "There is no target here: the figures are for you to plan with."
    if missed:
        said = f"{len(judged) - len(missed)} of {len(judged)} targets hold."
    else:
        said = "The target holds." if len(judged) == 1 else f"All {len(judged)} targets hold."
    return f"Exploratory: {said[0].lower()}{said[1:]}" if result.is_first_look else said


def _facts(result: BenchmarkResult) -> dict[str, object]:
    machine = result.machine
    facts = {
        "Measured": f"{result.measured_at} UTC, in {cell(result.took_s)} s",
        "Blocks": result.blocks,
        "Scale": f"{result.scale:g}",
        "Processor": machine.get("cpu_model"),
        "Usable cores": machine.get("usable_cores"),
        "Load before": cell(machine.get("load_1min_before")),
        "Python": machine.get("python"),
        "redis-server": machine.get("redis_server"),
        **machine.get("packages", {}),
        "git commit": machine.get("git_commit"),
    }
    return {name: value for name, value in facts.items() if value is not None}
