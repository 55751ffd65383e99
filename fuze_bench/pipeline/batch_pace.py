"""How much a batch worker claims: by what the last jobs took, so that a claim is worth the same time of any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuze_bench.pipeline.batch_scripts import Finished


@dataclass
class Pace:
    """`batch_size`: the most jobs of a claim; `claim_worth_s`: the work that a claim is to be worth; `claims_ahead`: the
    most claims in the child's hands, where jobs are much shorter than `patience_s`.
    """

    batch_size: int
    claim_worth_s: float
    claims_ahead: int
    patience_s: float
    seconds_per_job: float | None = None

    def note(self, finished: Sequence[Finished]) -> None:
        """Learn from jobs that have ended; half of what is known is forgotten each time."""
        if finished:
            latest_s = sum(job.worked_s for job in finished) / len(finished)
            before_s = latest_s if self.seconds_per_job is None else self.seconds_per_job
            self.seconds_per_job = (latest_s + before_s) / 2

    @property
    def jobs(self) -> int:
        """How many jobs make a claim now; one, as long as nothing is known."""
        if self.seconds_per_job is None:
            return 1
        return max(1, min(self.batch_size, int(self.claim_worth_s / max(self.seconds_per_job, 1e-6))))

    @property
    def claims(self) -> int:
        """How many claims may be in the child's hands now."""
        slow = self.seconds_per_job is None or self.seconds_per_job > self.patience_s / 2
        return 1 if slow else self.claims_ahead
