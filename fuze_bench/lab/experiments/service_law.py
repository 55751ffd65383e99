"""Synthetic service times: the law they follow, their values drawn from a seed, and the jobs that take so long."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuze_bench.errors import LabError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LAWS = ("constant", "exponential", "lognormal")
#: What a job does meanwhile, and the function that does it.
WAYS = {
    "sleep": "fuze_bench.lab.experiments.service_law:sleep_for",
    "cpu": "fuze_bench.lab.experiments.service_law:spin_for",
}

LONGEST_MEAN_MS = 600_000.0
LARGEST_CV = 10.0
_SPIN_STEP = 200


@dataclass(frozen=True, kw_only=True)
class ServiceLaw:
    """How long synthetic jobs take: `mean_ms` milliseconds on average, and what they do meanwhile.

    `cv`, the standard deviation over the mean, is given for `lognormal` alone: a constant has 0, an exponential law 1.
    `how` is `sleep` (as if waiting for somebody else) or `cpu`: so much time of a processor, which takes longer by the
    clock where processes share one. Raises LabError on any wrong value.
    """

    law: str = "constant"
    mean_ms: float
    cv: float | None = None
    how: str = "sleep"

    def __post_init__(self) -> None:
        for name, known in (("law", LAWS), ("how", tuple(WAYS))):
            given = getattr(self, name)
            if given not in known:
                raise LabError(
                    f"{name}={given!r} is not one for synthetic jobs: {nearest(str(given), known)}"
                )
        _check_number("mean_ms", self.mean_ms, 0.0, LONGEST_MEAN_MS)
        if self.law == "lognormal":
            if self.cv is None:
                raise LabError("a lognormal law needs its cv (standard deviation over mean), such as cv=1.5")
            _check_number("cv", self.cv, 0.0, LARGEST_CV)
        elif self.cv is not None:
            raise LabError(f"cv={self.cv!r} is for the lognormal law alone: leave it out of a {self.law} one")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ServiceLaw:
        """A law from names and values. Raises LabError, also for a name that is not known, or if `mean_ms` lacks."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise LabError(f"a service law has no {name!r}: {nearest(str(name), known)}")
        if "mean_ms" not in values:
            raise LabError("a service law needs mean_ms, the average in milliseconds")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Names and values as JSON has them; the inverse of `from_mapping`."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def function(self) -> str:
        """`package.module:name` of the job; its one argument is how long it takes, in milliseconds."""
        return WAYS[self.how]

    def draw_ms(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """`count` service times in milliseconds, float64 of shape (count,); a generator of the same seed repeats them."""
        import numpy as np

        if self.law == "exponential":
            return generator.exponential(self.mean_ms, count)
        if self.law == "lognormal":
            assert self.cv is not None
            # The normal law of the logarithms: mean μ, standard deviation σ.
            variance = math.log1p(self.cv**2)
            return generator.lognormal(math.log(self.mean_ms) - variance / 2, math.sqrt(variance), count)
        return np.full(count, float(self.mean_ms))


def sleep_for(service_ms: float) -> None:
    """A job that waits so long."""
    time.sleep(service_ms / 1e3)


def spin_for(service_ms: float) -> None:
    """A job that uses so much time of a processor, by its thread's own clock."""
    until_ns = time.thread_time_ns() + int(service_ms * 1e6)
    while time.thread_time_ns() < until_ns:
        sum(range(_SPIN_STEP))


def _check_number(name: str, value: object, above: float, largest: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise LabError(f"{name} is {value!r}, not a number: use more than {above:g}, up to {largest:,.0f}")
    # Written so that "not a number" is out of range, too.
    if not above < value <= largest:
        raise LabError(f"{name}={value} is out of range: use more than {above:g}, up to {largest:,.0f}")
