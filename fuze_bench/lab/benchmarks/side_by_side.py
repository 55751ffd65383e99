"""Measuring contenders in turn, block by block, so that what a slow minute does to all of them cancels in the ratios."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from fuze_bench.lab.judgement.stats import ratio_within_blocks

#: Measures one contender once and returns its figure; more is better.
Measure = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """What the ratio of one contender's figure to another's is to reach; `at_least` None: it is only shown."""

    what: str
    against: str
    at_least: float | None = None


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
    """Every contender's figure by block; within a block their order is drawn from the seed."""
    order = random.Random(seed)
    figures: dict[str, dict[int, float]] = {name: {} for name in contenders}
    for block in range(blocks):
        for name in order.sample(list(contenders), len(contenders)):
            figures[name][block] = contenders[name]()
            say(f"block {block + 1} of {blocks}: {name} {figures[name][block]:,.0f}")
    return figures


def ratios(figures: Mapping[str, Mapping[int, float]], targets: Sequence[Target]) -> list[BenchmarkRatio]:
    """The ratios that are asked for."""
    found = []
    for target in targets:
        ratio = ratio_within_blocks(figures[target.what], figures[target.against])
        if ratio is not None:
            holds = None if target.at_least is None else ratio.mean >= target.at_least
            found.append(
                BenchmarkRatio(
                    target.what, target.against, ratio.mean, ratio.low, ratio.high, target.at_least, holds
                )
            )
    return found


def in_words(figures: Mapping[str, Mapping[int, float]], found: Sequence[BenchmarkRatio], unit: str) -> str:
    """Medians, then ratios, a line each."""
    lines = [f"{name}: {median(by_block.values()):,.0f} {unit}" for name, by_block in figures.items()]
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
