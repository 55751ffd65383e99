"""The knee: the highest rate that a server holds, by bracket and bisection, each rate in a trial of its own.

A trial's answer near the knee is partly chance, so the place found is confirmed: 0.9 times the knee must hold and 1.1
times must not. Where that fails, an earlier answer was chance, and the search goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape

import pandas as pd

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement.tables import cell

#: The rates beside the knee at which it is confirmed.
BELOW, ABOVE = 0.9, 1.1
_MOST_WITHIN = 0.09


@dataclass(frozen=True)
class Attempt:
    """One rate (jobs/s) in its own trial.

    `held` is None where the trial does not count, such as one whose load generator was late. `goodput_per_s`: what
    was answered well and in time.
    """

    rate_per_s: float
    held: bool | None
    goodput_per_s: float | None = None


#: Measures one rate: whether the server held it, or the whole attempt.
Holds = Callable[[float], "Attempt | bool | None"]


@dataclass(frozen=True)
class Knee:
    """What the search found. Shows itself in a notebook.

    `low_per_s` is the highest rate held below those that were not (None: not even the lowest tried), `high_per_s` the
    lowest above it that was not (None: none up to `cap_per_s`). `is_confirmed`: 0.9 times the knee held, and 1.1 times did not.
    """

    low_per_s: float | None
    high_per_s: float | None
    cap_per_s: float
    is_confirmed: bool
    attempts: tuple[Attempt, ...]
    doubts: tuple[str, ...] = ()

    @property
    def rate_per_s(self) -> float | None:
        """The middle of the interval; None where it has but one end."""
        if self.low_per_s is None or self.high_per_s is None:
            return None
        return math.sqrt(self.low_per_s * self.high_per_s)

    @property
    def goodput_per_s(self) -> float | None:
        """Goodput at the highest rate held, the last time it was tried."""
        found = [a.goodput_per_s for a in self.attempts if a.rate_per_s == self.low_per_s and a.held]
        return found[-1] if found else None

    @property
    def sentence(self) -> str:
        """The interval with its goodput, or which end was not reached."""
        goodput = (
            "" if self.goodput_per_s is None else f", goodput {cell(self.goodput_per_s)} /s at its low end"
        )
        trials = _trials(len(self.attempts))
        doubt = "".join(f"; {doubt}" for doubt in self.doubts)
        if self.low_per_s is None:
            what = "no rate held" if self.high_per_s is None else f"not even {cell(self.high_per_s)} /s held"
            return f"{what} ({trials}){doubt}"
        if self.high_per_s is None:
            return f"held up to {cell(self.low_per_s)} /s, the knee lies above ({trials}){goodput}{doubt}"
        return (
            f"the knee lies between {cell(self.low_per_s)} and {cell(self.high_per_s)} /s ({trials},"
            f" {'confirmed' if self.is_confirmed else 'not confirmed'} at {BELOW:g} and {ABOVE:g} times)"
            f"{goodput}{doubt}"
        )

    def table(self) -> pd.DataFrame:
        """A row a trial in the order made: rate_per_s, held, goodput_per_s."""
        columns = ["rate_per_s", "held", "goodput_per_s"]
        rows = [(a.rate_per_s, a.held, a.goodput_per_s) for a in self.attempts]
        table = pd.DataFrame(rows, columns=columns)
        return table.astype({"held": "boolean", "rate_per_s": "Float64", "goodput_per_s": "Float64"})

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p class='knee'>{escape(self.sentence)}</p>"


def find_knee(
    holds: Holds,
    *,
    start_per_s: float,
    cap_per_s: float,
    floor_per_s: float | None = None,
    within: float = 0.05,
    most_trials: int = 20,
    is_time_left: Callable[[], bool] = lambda: True,
) -> Knee:
    """Search from `start_per_s` for the highest rate that holds, between `floor_per_s` and `cap_per_s`.

    The interval's ends lie at most `within` apart, relative to the lower. `floor_per_s` is a 64th of the start where
    not given. Ends after `most_trials`, or before the first trial for which `is_time_left` says no, with what is known
    by then. A trial that does not count is made once more;
    if that does not count either, the search stays below its rate and says so. Raises LabError for impossible
    bounds; what `holds` raises passes through.

    The shorter the trials, the more the place found is chance: of an M/M/1 queue's known knee for a p95 wait, 98 of
    100 searches came within 5 % with trials of 20,000 jobs, 79 with 5,000, 63 with 2,000 (tests/test_knee.py).
    """
    floor_per_s = start_per_s / 64 if floor_per_s is None else floor_per_s
    if not 0 < floor_per_s <= start_per_s <= cap_per_s < math.inf:
        raise LabError(
            f"rates from {floor_per_s:g} over {start_per_s:g} to {cap_per_s:g} /s: floor, start and cap of a"
            " search must be positive and in this order"
        )
    if not 0 < within <= _MOST_WITHIN:
        raise LabError(
            f"within={within:g}: choose 0 to {_MOST_WITHIN}, or {BELOW:g} and {ABOVE:g} times confirm nothing"
        )
    if most_trials < 1:
        raise LabError(f"most_trials={most_trials}: a search needs at least one")
    search = _Search(holds, floor_per_s, cap_per_s, most_trials, is_time_left)
    try:
        confirmed = search.run(start_per_s, within)
    except _SpentError as spent:
        return search.knee(False, [str(spent)])
    return search.knee(confirmed, [])


def _trials(number: int) -> str:
    return f"{number} trial{'' if number == 1 else 's'}"


class _SpentError(Exception):
    """All trials allowed are made, or the time for them is spent."""


class _Search:
    """The bracket as it narrows: `low` was held, `high` was not; None where no such rate is known."""

    def __init__(
        self, holds: Holds, floor: float, cap: float, most: int, is_time_left: Callable[[], bool]
    ) -> None:
        self._holds, self._floor, self._cap, self._most = holds, floor, cap, most
        self._is_time_left = is_time_left
        self._attempts: list[Attempt] = []
        self._uncounted: set[float] = set()
        self._low: float | None = None
        self._high: float | None = None

    def run(self, start: float, within: float) -> bool:
        """Search to the end; whether the knee was confirmed."""
        self._try(start)
        step = 2.0
        while True:
            bracket = self._bracket(step)
            if bracket is None:
                return False
            low, high = bracket
            while high > low * (1 + within):
                self._try(math.sqrt(low * high))
                low, high = self._low or low, self._high or high
            knee = math.sqrt(low * high)
            if self._is_still(BELOW * knee, held=True) and self._is_still(ABOVE * knee, held=False):
                return not self._uncounted
            step = ABOVE  # Chance misled by a little: the knee is near.

    def _bracket(self, step: float) -> tuple[float, float] | None:
        """Both ends, gone for up or down in steps that grow to doubling; None where the floor or the cap is reached."""
        while self._low is None or self._high is None:
            if self._low is not None:
                if self._low == self._cap:
                    return None
                self._try(min(self._low * step, self._cap))
            elif self._high is not None:
                if self._high == self._floor:
                    return None
                self._try(max(self._high / step, self._floor))
            step = min(step**1.5, 2.0)
        return self._low, self._high

    def _is_still(self, rate: float, *, held: bool) -> bool:
        """Confirm that a rate is held or not; if it is otherwise, what lies beyond it is forgotten."""
        rate = min(max(rate, self._floor), self._cap)
        if self._measure(rate) is held:
            return True
        self._low, self._high = (None, rate) if held else (rate, None)
        return False

    def _try(self, rate: float) -> None:
        if self._measure(rate):
            self._low = rate
        else:
            self._high = rate

    def _measure(self, rate: float) -> bool:
        """Whether a rate was held; what could not be measured twice was not held, and `knee` says so."""
        for _ in range(2):
            if len(self._attempts) >= self._most:
                raise _SpentError(f"stopped after the {_trials(self._most)} allowed")
            if not self._is_time_left():
                raise _SpentError(f"stopped after {_trials(len(self._attempts))}, as the time was spent")
            found = self._holds(rate)
            attempt = found if isinstance(found, Attempt) else Attempt(rate, found)
            self._attempts.append(replace(attempt, rate_per_s=rate))
            if attempt.held is not None:
                return attempt.held
        self._uncounted.add(rate)
        return False

    def knee(self, is_confirmed: bool, doubts: list[str]) -> Knee:
        """What is known so far. A rate that could not be measured is no upper end.

        Where the search ended while it looked for an end of the bracket anew, what was tried on that side before is it.
        """
        held = {
            a.rate_per_s: a.held for a in self._attempts if a.held is not None
        }  # the last time it was tried
        low, high = self._low, self._high
        if low is None:
            below = (rate for rate, is_held in held.items() if is_held and (high is None or rate < high))
            low = max(below, default=None)
        if high is None:
            above = (rate for rate, is_held in held.items() if not is_held and (low is None or rate > low))
            high = min(above, default=None)
        high = None if high in self._uncounted else high
        doubts += [f"no trial at {cell(rate)} /s counted" for rate in sorted(self._uncounted)]
        return Knee(low, high, self._cap, is_confirmed, tuple(self._attempts), tuple(doubts))
