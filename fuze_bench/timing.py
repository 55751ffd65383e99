"""One clock for everything that is timed, and the stamps a bookmark gets on its way.

Wall-clock seconds are for people and for comparing hosts; every duration comes from the monotonic clock, which
on Linux is one clock for all processes of a host, so that stamps from different processes can be subtracted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Clock(Protocol):
    """Source of time; passed in so that tests can turn it."""

    def wall_s(self) -> float:
        """Seconds since 1970 UTC; may jump, also backwards."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point; never goes back."""


class SystemClock:
    """The machine's clocks."""

    def wall_s(self) -> float:
        return time.time()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_ns = 1_000_000_000

    def wall_s(self) -> float:
        return self._wall_s

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self._wall_s += seconds
        self._monotonic_ns += int(seconds * 1e9)

    def step_wall(self, seconds: float) -> None:
        """The wall clock is set (NTP, an operator); no time passes."""
        self._wall_s += seconds


class StageTimer:
    """Collects how long each named stage of a batch took, in milliseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.durations_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, share: int = 1) -> Iterator[None]:
        """Time the block as stage `name`; `share` divides it evenly over the bookmarks that shared it."""
        start_ns = self._clock.monotonic_ns()
        try:
            yield
        finally:
            spent_ms = (self._clock.monotonic_ns() - start_ns) / 1e6 / max(1, share)
            self.durations_ms[name] = round(self.durations_ms.get(name, 0.0) + spent_ms, 3)
