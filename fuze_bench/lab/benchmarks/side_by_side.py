"""Measuring contenders in turn, block by block, so that what a slow minute does to all of them cancels in the ratios."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fuze_bench.lab.judgement.stats import ratio_within_blocks
from fuze_bench.lab.judgement.tables import cell

#: Measures one contender once and returns its figure, or several by names of their own.
Measure = Callable[[], float | Mapping[str, float]]
#: Every figure by block.
Figures = Mapping[str, Mapping[int, float]]


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


@dataclass(frozen=True)
class Agreement:
    """How far one contender's results are another's: a share or a cosine, 1 at most. Not timed, so without interval."""

    what: str
    against: str
    share: float
    at_least: float

    @property
    def holds(self) -> bool:
        return self.share >= self.at_least

    def as_ratio(self) -> BenchmarkRatio:
        """For where there are ratios alone."""
        return BenchmarkRatio(self.what, self.against, self.share, None, None, self.at_least, self.holds)


def measure_in_turn(
    contenders: Mapping[str, Measure],
    blocks: int,
    seed: int,
    say: Callable[[str], None],
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, dict[int, float]]:
    """Every figure by block; within a block the order of the contenders is drawn from the seed.

    After each measurement `say` is told which block it was of how many, and about how long the rest will take.
    """
    order = random.Random(seed)
    figures: dict[str, dict[int, float]] = {}
    to_go, took_s = dict.fromkeys(contenders, blocks), dict[str, float]()
    for block in range(blocks):
        for name in order.sample(list(contenders), len(contenders)):
            began_s = clock_s()
            measured = contenders[name]()
            took_s[name] = clock_s() - began_s
            to_go[name] -= 1
            is_one = not isinstance(measured, Mapping)
            named = measured if isinstance(measured, Mapping) else {name: measured}
            for each, figure in named.items():
                figures.setdefault(each, {})[block] = figure
            shown = f"{name} {cell(named[name])}" if is_one else name
            say(f"block {block + 1} of {blocks}: {shown}{_left(to_go, took_s)}")
    return figures


def median_of(figures: Figures, name: str) -> float:
    """Over the blocks."""
    return median(figures[name].values())


def _left(to_go: Mapping[str, int], took_s: Mapping[str, float]) -> str:
    """What is to be measured yet takes as long as it took the last time; what has not been measured, as the others."""
    if not any(to_go.values()):
        return ""
    usual_s = sum(took_s.values()) / len(took_s)
    left_s = sum(number * took_s.get(name, usual_s) for name, number in to_go.items())
    return f"; about {left_s:,.0f} s left"


def ratios(figures: Figures, targets: Sequence[Target]) -> list[BenchmarkRatio]:
    """The ratios that are asked for, of those that were measured."""
    found = []
    for target in targets:
        if not {target.what, target.against} <= set(figures):
            continue  # of another queue that is not installed, or a quantile of too few answers: see `not_judged`
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


def not_judged(found: Sequence[BenchmarkRatio], targets: Sequence[Target]) -> list[str]:
    """A sentence with the limits of which nothing can be said, as a figure was not measured or is not above 0; or none."""
    known = {(ratio.what, ratio.against) for ratio in found}
    asked = [target for target in targets if target.at_least is not None or target.at_most is not None]
    missing = [
        f"{each.what} against {each.against}" for each in asked if (each.what, each.against) not in known
    ]
    return [f"Not judged, for want of a figure: {'; '.join(missing)}."] if missing else []
