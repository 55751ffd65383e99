"""How much a batch worker claims: by what the last jobs took, so that a claim is worth the same time of any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuze_bench.pipeline.batch_scripts import Finished


@dataclass
class Pace:
    """`batch_size`: the most jobs of a claim; `claim_worth_s`: the work that a claim is to be worth; `at_once`: how many
    jobs are done at once, and claimed while nothing is known of them; `claims_ahead`: the most claims in the child's
    hands, where jobs are much shorter than `patience_s`, and `claims_far_ahead` where it would only wait for their pages.
    """

    batch_size: int
    claim_worth_s: float
    at_once: int
    claims_ahead: int
    claims_far_ahead: int
    patience_s: float
    seconds_per_job: float | None = None
    further_ahead: int = 0

    def note_wait(self) -> None:
        """The child has nothing to compute: so many claims ahead were too few."""
        self.further_ahead = min(self.further_ahead + 1, self.claims_far_ahead - self.claims_ahead)

    def note_rest(self) -> None:
        """Nothing is left to do: whether the next pages come as late is not known."""
        self.further_ahead = 0

    def note(self, finished: Sequence[Finished]) -> None:
        """Learn from jobs that have ended; half of what is known is forgotten each time."""
        if finished:
            latest_s = sum(job.worked_s for job in finished) / len(finished)
            before_s = latest_s if self.seconds_per_job is None else self.seconds_per_job
            self.seconds_per_job = (latest_s + before_s) / 2

    @property
    def jobs(self) -> int:
        """How many jobs make a claim now."""
        jobs = self.at_once
        if self.seconds_per_job is not None:
            job_s = max(self.seconds_per_job, 1e-6)
            jobs = int(self.claim_worth_s / job_s)
            if self.at_once * job_s <= self.patience_s / 2:
                jobs = max(jobs, self.at_once)
        jobs = min(jobs, self.batch_size)
        # What is done together is claimed together: a page alone takes half as long again as one of eight.
        return max(1, jobs - jobs % self.at_once if jobs > self.at_once else jobs)

    @property
    def claims(self) -> int:
        """How many claims may be in the child's hands now."""
        if self.seconds_per_job is None:
            alone = self.at_once == 1
        else:
            alone = self.seconds_per_job > self.patience_s / 2
        return 1 if alone else self.claims_ahead + self.further_ahead
