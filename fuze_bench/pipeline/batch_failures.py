"""How a batch worker's jobs fail that did not end themselves: they were stopped, or their process was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rq.utils import now

from fuze_bench.pipeline.batch_process import Death
from fuze_bench.pipeline.batch_scripts import Claim


def whose_fault(
    with_child: Sequence[Claim], begun: Sequence[Claim], stopped: Sequence[Claim], alone: Claim | None
) -> tuple[list[Claim], list[Claim], list[Claim]]:
    """(who is to blame that the child died, what it was at, what goes back to the queues).

    Of several that it was at, each is to have a child of its own, and so is the first of those that it only prepared:
    whose fault it is shows then, by the one that was `alone`.
    """
    blamed = [*stopped] or ([*begun] if len(begun) == 1 else [])
    waiting = [claim for claim in with_child if claim not in begun and claim not in blamed]
    if begun or blamed:
        return blamed, [*begun], waiting
    return (waiting[:1] if waiting[:1] == [alone] else []), waiting[:1], waiting[1:]


def fail_as_stopped(worker: Any, claim: Claim) -> None:
    """Somebody sent a stop command for it."""
    if (known := worker.in_hand.as_rq_knows(claim)) is not None:
        worker._handle_stopped_job(*known)


def fail_as_killed(worker: Any, claim: Claim, death: Death) -> None:
    """As RQ's `monitor_work_horse` when a fork dies."""
    if (known := worker.in_hand.as_rq_knows(claim)) is None:
        return
    job, queue, execution = known
    job.ended_at = now()
    status = death.status
    signal_note = f" (signal {os.WTERMSIG(status)})" if os.WIFSIGNALED(status) else ""
    reason = f"Work-horse terminated unexpectedly; waitpid returned {status}{signal_note}; "
    worker.log.warning("Worker %s: job %s failed (%s)", worker.name, job.id, reason)
    worker.handle_work_horse_killed(job, death.pid, status, death.usage)
    worker.handle_job_failure(job, queue=queue, exc_string=reason, execution=execution)
