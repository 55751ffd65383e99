"""How much one user may change in a minute."""

from __future__ import annotations

from fuze_bench.timing import Clock

#: Of how many users the state is kept before that of those who have been quiet is dropped.
_REMEMBERED = 4_096


class RateLimit:
    """A token bucket for each user: `per_min` requests a minute, of which a tenth may come at once; 0: no limit.

    In the memory of this process: two API processes allow twice as much. The bucket is kept as the moment at which it
    is full again ("generic cell rate algorithm"), so that a quiet user costs nothing.
    """

    def __init__(self, per_min: int, clock: Clock) -> None:
        self._clock = clock
        self._interval_ns = 60_000_000_000 // per_min if per_min else 0
        self._slack_ns = (max(1, per_min // 10) - 1) * self._interval_ns
        self._full_at_ns: dict[int, int] = {}

    def wait_s(self, user_id: int) -> float:
        """0 if the request may be served, and then it counts; else how many seconds from now one may."""
        if not self._interval_ns:
            return 0.0
        now_ns = self._clock.monotonic_ns()
        full_at_ns = max(now_ns, self._full_at_ns.get(user_id, 0))
        too_early_ns = full_at_ns - now_ns - self._slack_ns
        if too_early_ns > 0:
            return too_early_ns / 1e9
        if len(self._full_at_ns) >= _REMEMBERED:
            self._full_at_ns = {user: at for user, at in self._full_at_ns.items() if at > now_ns}
        self._full_at_ns[user_id] = full_at_ns + self._interval_ns
        return 0.0
