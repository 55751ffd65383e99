"""Measuring contenders in turn, block by block, so that what a slow minute does to all of them cancels in the ratios."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fuze_bench.lab.judgement.stats import ratio_within_blocks
from fuze_bench.lab.judgement.tables import cell

#: Measures one contender once and returns its figure, or several by names of their own.
Measure = Callable[[], float | Mapping[str, float]]


@dataclass(frozen=True)
class Target:
    """What the ratio of one figure to another is to reach, or to stay below; with neither it is only shown."""

    what: str
    against: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, ratio: float) -> bool | None:
        """None if there is nothing to reach."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or ratio >= self.at_least) and (
            self.at_most is None or ratio <= self.at_most
        )


@dataclass(frozen=True)
class BenchmarkRatio:
    """A measured ratio with its 95 % interval over blocks (Student's t on the logarithms of the ratios within blocks).

    `low` and `high` are None for a single block. `holds` is judged by the ratio itself, None without a target.
    """

    what: str
    against: str
    ratio: float
    low: float | None
    high: float | None
    target: float | None
    holds: bool | None


def measure_in_turn(
    contenders: Mapping[str, Measure], blocks: int, seed: int, say: Callable[[str], None]
) -> dict[str, dict[int, float]]:
    """Every figure by block; within a block the order of the contenders is drawn from the seed."""
    order = random.Random(seed)
    figures: dict[str, dict[int, float]] = {}
    for block in range(blocks):
        for name in order.sample(list(contenders), len(contenders)):
            measured = contenders[name]()
            named = measured if isinstance(measured, Mapping) else {name: measured}
            for each, figure in named.items():
                figures.setdefault(each, {})[block] = figure
                say(f"block {block + 1} of {blocks}: {each} {cell(figure)}")
    return figures


def ratios(figures: Mapping[str, Mapping[int, float]], targets: Sequence[Target]) -> list[BenchmarkRatio]:
    """The ratios that are asked for, of those that were measured."""
    found = []
    for target in targets:
        if not {target.what, target.against} <= set(figures):
            continue  # of another queue that is not installed
        ratio = ratio_within_blocks(figures[target.what], figures[target.against])
        if ratio is not None:
            wanted = target.at_most if target.at_least is None else target.at_least
            found.append(
                BenchmarkRatio(
                    target.what,
                    target.against,
                    ratio.mean,
                    ratio.low,
                    ratio.high,
                    wanted,
                    target.holds(ratio.mean),
                )
            )
    return found


def in_words(figures: Mapping[str, Mapping[int, float]], found: Sequence[BenchmarkRatio], unit: str) -> str:
    """Medians, then ratios, a line each."""
    lines = [f"{name}: {cell(median(by_block.values()))} {unit}" for name, by_block in figures.items()]
    for each in found:
        interval = "" if each.low is None else f" (95 % {each.low:.3g} to {each.high:.3g})"
        target = (
            "" if each.target is None else f", target {each.target:g}: {'holds' if each.holds else 'missed'}"
        )
        lines.append(f"{each.what} against {each.against}: {each.ratio:.3g} times{interval}{target}")
    return "\n".join(lines)


def as_plain(name: str, machine: dict[str, Any], found: Sequence[BenchmarkRatio]) -> dict[str, Any]:
    """For JSON."""
    return {"benchmark": name, "machine": machine, "ratios": [vars(each) for each in found]}
