"""One configuration against another: the claim a run supports, in one sentence, or why it supports none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE, LEVEL, Ratio, ratio_within_blocks
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.verdicts import Answer


@dataclass(frozen=True)
class Comparison:
    """A figure of `name` against the same figure of `baseline`.

    `ratio` is None where no block has both. `floor` is the noise floor: the baseline's second copy against its
    first, None where there was no copy. Shows itself in a notebook.
    """

    name: str
    baseline: str
    ratio: Ratio | None
    floor: Ratio | None = None

    @property
    def differs(self) -> Answer:
        """Yes where the interval leaves out 1, no where it does not.

        Unknown with fewer than BLOCKS_TO_CONCLUDE blocks, and where the same thing measured twice differed clearly
        and as much: then something else than the configuration told them apart, such as their place in the block.
        """
        if self.ratio is None or self.ratio.is_exploratory:
            return Answer.UNKNOWN
        if not self.ratio.is_clear:
            return Answer.NO
        return Answer.UNKNOWN if self._is_within_floor else Answer.YES

    @property
    def sentence(self) -> str:
        """What can be said, with its interval and the number of blocks."""
        if self.ratio is None:
            return f"exploratory: no block has a figure of both {self.name} and {self.baseline}"
        times = f"{cell(self.ratio.mean)} times {self.baseline}"
        blocks = f"{self.ratio.blocks} block{'' if self.ratio.blocks == 1 else 's'}"
        if self.ratio.is_exploratory:
            return (
                f"exploratory: {self.name} was {times} in {blocks}; {BLOCKS_TO_CONCLUDE} or more are needed"
                " for a claim"
            )
        interval = f"{LEVEL:.0%} {_bound(self.ratio.low)} to {_bound(self.ratio.high)}".replace("%", " %")
        if self.differs is Answer.YES:
            return f"{self.name} is {times} ({interval}), {blocks}{self._floor_in_words}"
        if self.differs is Answer.UNKNOWN:
            return (
                f"{self.name} was {times} ({interval}), {blocks}, no more than {self.baseline} differed from its"
                f" own second copy{self._floor_in_words}"
            )
        return (
            f"no difference seen between {self.name} and {self.baseline} ({interval}, {blocks}); this run could"
            f" have seen {_up(self.ratio.detectable)} times or more{self._floor_in_words}"
        )

    def as_json(self) -> dict[str, Any]:
        """For verdict.json: names, answer, sentence, and the figures (null where there is none)."""
        ratio, floor = self.ratio, self.floor
        return {
            "name": self.name,
            "baseline": self.baseline,
            "differs": self.differs.value,
            "sentence": self.sentence,
            "blocks": ratio.blocks if ratio else 0,
            "ratio": ratio.mean if ratio else None,
            "low": ratio.low if ratio else None,
            "high": ratio.high if ratio else None,
            "detectable": ratio.detectable if ratio else None,
            "noise_floor": floor.mean if floor else None,
        }

    @property
    def _is_within_floor(self) -> bool:
        if self.ratio is None or self.floor is None or not self.floor.is_clear:
            return False
        return abs(math.log(self.ratio.mean)) <= abs(math.log(self.floor.mean))

    @property
    def _floor_in_words(self) -> str:
        return f"; {self.baseline} against itself: {cell(self.floor.mean)} times" if self.floor else ""

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p class='comparison'>{escape(self.sentence)}</p>"


def compare(
    name: str,
    by_block: Mapping[int, float],
    baseline: str,
    baseline_by_block: Mapping[int, float],
    *,
    copy_by_block: Mapping[int, float] | None = None,
    stopped_early: bool = False,
) -> Comparison:
    """Compare a figure of two configurations, given for each block.

    `copy_by_block` are the figures of the baseline's second copy; `stopped_early` as for `ratio_within_blocks`.
    """
    return Comparison(
        name,
        baseline,
        ratio_within_blocks(by_block, baseline_by_block, stopped_early=stopped_early),
        ratio_within_blocks(copy_by_block, baseline_by_block, stopped_early=stopped_early)
        if copy_by_block
        else None,
    )


def bounds_in_words(ratio: Ratio) -> str:
    """« (0.996 to 1.19)», to stand behind the ratio; of a single block nothing."""
    return "" if ratio.low is None else f" ({_bound(ratio.low)} to {_bound(ratio.high)})"


def not_shown(ratio: Ratio) -> str:
    """To stand behind a ratio whose blocks are enough for a claim and do not tell it from 1; else nothing."""
    return "" if ratio.is_exploratory or ratio.is_clear else ", a difference that was not shown"


def _bound(value: float | None) -> str:
    """With enough digits that a bound beside 1 does not read as 1."""
    shown = cell(value)
    return f"{value:.5g}" if value is not None and shown == "1" else shown


def _up(value: float | None) -> str:
    """Rounded up: a run that could have seen 1.119 must not be said to have seen 1.11."""
    return cell(None if value is None else math.ceil(round(value * 100, 6)) / 100)
