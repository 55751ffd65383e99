"""An RQ worker that claims, runs and finishes jobs a batch at a time, in a long-lived child.

Use it as any worker class: `rq worker -w fuze_bench.pipeline.batch_worker.BatchWorker`. What RQ's workers promise holds
for each job: statuses, registries, executions, results, retries, time limits, callbacks, dependents, groups, rate limits,
repeats, commands and signals. The worker's process talks to Redis and watches; its child runs the jobs.

- Scripts claim and finish jobs. What one needs beyond that (a callback, a limit, a retry) is done by RQ's own code.
- A claim is worth about `claim_worth_s` of work by what the last jobs took, so slow jobs are claimed one by one, and
  what was not begun goes back to the queue when a job is slower than `patience_s`: no job waits in a batch for long.
- If the child dies, the job that it was running is failed as by RQ's `Worker`; if it was running several at once, each of
  these runs in a child of its own, which fails the culprit alone.
- If the worker is killed with -9, its child ends with it, and any other batch worker puts back what was not begun, after
  `lease_s` (see `batch_lease`). RQ's clean-up tries again or fails what had begun, what ended in the last 0.05 s, and up
  to 16 jobs of less than 2 ms that were next. For bookmarks their rows decide: they are done within half a minute.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import redis
from rq.command import parse_payload
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.worker import Worker, WorkerStatus

from fuze_bench.pipeline.batch_channel import ChildEnd
from fuze_bench.pipeline.batch_child import ALONE, AWAY, ENDED, GONE, WENT_WELL, WITHDRAWN, run_child
from fuze_bench.pipeline.batch_failures import fail_as_killed, fail_as_stopped, whose_fault
from fuze_bench.pipeline.batch_form import largest_batch
from fuze_bench.pipeline.batch_hand import Hand
from fuze_bench.pipeline.batch_lease import Lease
from fuze_bench.pipeline.batch_pace import Pace
from fuze_bench.pipeline.batch_process import BatchProcess, Death
from fuze_bench.pipeline.batch_scripts import Claim, Finished

if sys.platform == "win32":
    raise ImportError("the batch worker forks: use RQ's SimpleWorker on Windows")

_TICK_S = 0.5
_HUNGRY_TICK_S = 0.05
_HEARTBEAT_S = 15


class BatchWorker(Worker):
    """See the module."""

    #: The most jobs of one claim.
    batch_size = 100
    claim_worth_s = 0.2
    patience_s = 1.0
    #: As in RQ's `Worker`: a job that its time limit does not end is killed with its process after so much more.
    overtime_s = 60.0
    #: How many claims the child has in hand, so that it can prepare the next while it runs one.
    claims_in_hand = 3
    #: As many where it would only wait for the pages of their jobs.
    claims_in_hand_waiting = 6
    #: How soon after its death what a killed worker had not begun is put back by another.
    lease_s = 15.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._hand: Hand | None = None
        self._prepared: dict[str, Execution] = {}
        super().__init__(*args, **kwargs)
        self._hand = self.in_hand = Hand(self)
        self.child = BatchProcess(self._be_the_child)
        # Where pages are fetched ahead, the first ones are, too.
        claims = (self.batch_size, self.claim_worth_s, largest_batch())
        self._pace = Pace(*claims, self.claims_in_hand, self.claims_in_hand_waiting, self.patience_s)
        self._lease = Lease(self)
        self._finished: list[Finished] = []
        self._to_run_alone: list[Claim] = []
        self._alone: Claim | None = None
        self._to_stop: set[str] = set()
        self._jobs_ended = 0
        self._max_jobs: int | None = None
        self._looked_after_s = 0.0
        self._more_waits = False

    @property
    def executions(self) -> dict[str, Execution]:
        """What is in hand, as RQ keeps it: made when somebody asks, which is rare."""
        if not self._hand:
            return self._prepared
        return {claim.execution_id: self._hand.execution(claim) for claim in self._hand}

    @executions.setter
    def executions(self, prepared: dict[str, Execution]) -> None:
        self._prepared = prepared

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """As RQ's; `max_jobs` counts jobs, not batches."""
        self._max_jobs, self._jobs_ended = max_jobs, 0
        try:
            super().work(*args, **kwargs)
        finally:
            self.child.dismiss()
        return self._jobs_ended > 0

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """As RQ's, but a batch: at most what may be claimed now. Waits for the first job if there is none."""
        if self._max_jobs is not None and self._jobs_ended >= self._max_jobs:
            self.log.info("Worker %s: finished executing %d jobs, quitting", self.name, self._jobs_ended)
            raise StopRequested
        self.set_state(WorkerStatus.IDLE)
        self.procline("Listening on " + ",".join(self.queue_names()))
        self.heartbeat()
        idle_since_s = time.monotonic()
        wait_s = 1.0
        while True:
            try:
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                batch = self._claim()
                if batch or timeout is None:
                    return (batch, None) if batch else None
                idle_s = time.monotonic() - idle_since_s
                if max_idle_time is not None and idle_s >= max_idle_time:
                    return None
                left_s = math.inf if max_idle_time is None else max_idle_time - idle_s
                popped = self.in_hand.wait_for_a_job(max(1, int(min(timeout, left_s, self.lease_s / 3))))
                if popped and (batch := self._claim(popped)):
                    return batch, None
                self.heartbeat()
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                self.log.error(
                    "Worker %s: could not connect to Redis instance: %s retrying in %d seconds...",
                    self.name,
                    error,
                    wait_s,
                )
                time.sleep(wait_s)
                wait_s = min(wait_s * self.exponential_backoff_factor, self.max_connection_wait_time)

    def execute_job(self, batch: Any, _queue: Any) -> None:
        """Run this batch and those that can be claimed while it runs; returns when nothing is in hand."""
        try:
            self.set_state(WorkerStatus.BUSY)
            self.child.send(batch)
            self._more_waits = True
            while self.in_hand or self._finished:
                try:
                    self._step()
                except redis.RedisError as error:
                    self.wait_for_redis(error)
            self._pace.note_rest()
            self._to_stop.clear()  # what ended before it could be stopped
        except SystemExit:
            self._let_go()
            raise
        self.set_state(WorkerStatus.IDLE)

    def handle_payload(self, message: Any) -> None:
        """As RQ's, which knows of one job in hand only. From the thread that listens to commands."""
        payload = parse_payload(message)
        job_id = str(payload.get("job_id"))
        match payload.get("command"):
            case "stop-job":
                ours = self.connection.hget(Job.key_for(job_id), "worker_name") == self.name.encode()
            case "stop-execution":
                composite = f"{job_id}:{payload.get('execution_id')}"
                ours = bool(self.connection.sismember(self.executions_key, composite))
            case _:
                super().handle_payload(message)
                return
        if ours:
            # Redis knows first: it may be that the claim's answer has not been read yet.
            self._to_stop.add(job_id)
            self.child.wake()
        else:
            self.log.warning("Not working on job %s, command ignored.", job_id)

    def teardown(self) -> None:
        self._lease.end()
        super().teardown()

    def _shutdown(self) -> None:
        self.child.wake()
        super()._shutdown()

    def wait_for_redis(self, error: redis.RedisError) -> None:
        """Redis is away while jobs are in hand: the child goes on with them, and what ended is kept."""
        self.log.error("Worker %s: Redis is away (%s): trying again", self.name, error)
        time.sleep(_TICK_S)

    def between_batches(self) -> None:
        """Called while jobs are in hand, at least every half second: for a subclass."""

    def during(self, claim: Claim) -> AbstractContextManager[None]:
        """Around a job that runs by itself, in the child: for a subclass."""
        return contextlib.nullcontext()

    def ended_without_redis(self, claim: Claim) -> None:
        """The job ended while Redis was away, so what came of it could not be told in RQ's way: it fails, as when a
        work horse of RQ's ends like that.
        """
        fail_as_killed(self, claim, Death(self.horse_pid, 1 << 8, None, (0, 0)))

    def queue_named(self, name: str) -> Queue:
        """The queue of that name that this worker listens to."""
        return self.in_hand.queue(name)

    def _step(self) -> None:
        """One turn beside the working child: hear of it, look after it, finish what ended and claim more."""
        if not self._finished and not self._more_waits:
            # Little is in hand: what is put on the queue meanwhile is not to wait for a job that waits for its page.
            self.child.wait(_HUNGRY_TICK_S if self._wanted() else _TICK_S)
        if self.child.waits and self.child.batches >= self._pace.claims:
            self._pace.note_wait()
        death = self.child.death()
        self._take_records()
        if death is not None:
            self._after_death(death)
        self._stop_what_is_to_stop()
        self._look_after()
        self._run_next_alone()
        if batch := self._claim():
            self.child.send(batch)
        self._more_waits = bool(batch) and self._wanted() > 0

    def _claim(self, popped: tuple[str, str] = ("", "")) -> list[Claim]:
        """Finish what has ended, and claim as much as is wanted now."""
        self._lease.when_due()
        wanted = self._wanted()
        finished, self._finished = self._finished, []
        if not wanted and not finished and not popped[1]:
            return []
        try:
            claimed = self.in_hand.exchange(finished, wanted, popped)
        except BaseException:
            self._finished = finished + self._finished
            raise
        self._jobs_ended += len(finished)
        self._pace.note(finished)
        if claimed:
            self._reorder_after(claimed[-1])
        return claimed

    def _wanted(self) -> int:
        """How many jobs to claim now."""
        if (
            self._stop_requested
            or self._to_run_alone
            or not self._ordered_queues
            or self._alone in self.in_hand
        ):
            return 0
        if self.child.batches >= self._pace.claims:
            return 0
        if self.child.running_s > self.patience_s and not self.child.waits:
            return 0
        wanted = self._pace.jobs
        if self._max_jobs is not None:
            wanted = min(wanted, self._max_jobs - self._jobs_ended - len(self._finished) - len(self.in_hand))
        return wanted

    def _reorder_after(self, last: Claim) -> None:
        if self.queue_named(last.queue) in self._ordered_queues:
            self.reorder_queues(reference_queue=self.queue_named(last.queue))

    @property
    def horse_pid(self) -> int:
        """The child's process id, as RQ calls it; 0 if there is none."""
        return self.child.pid

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """As RQ's; a child that has only just been forked is not yet in a group of its own, and must go alone."""
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(self.horse_pid) == self.horse_pid:
                os.killpg(self.horse_pid, sig)
            elif self.horse_pid:
                os.kill(self.horse_pid, sig)

    def _be_the_child(self, end: ChildEnd) -> int:
        self.setup_work_horse_signals()
        self._is_horse = True
        self.in_hand.forget()
        return run_child(self, end)

    def _take_records(self) -> None:
        for kind, serial, *rest in self.child.records():
            claim = self.in_hand.take_out(serial)
            if claim is None:
                continue
            if kind == WENT_WELL:
                self._finished.append(Finished(claim, *rest))
            elif kind == ENDED:
                self._jobs_ended += 1
            elif kind == GONE:
                self.in_hand.give_back([claim])
            elif kind == AWAY:
                self._jobs_ended += 1
                self.ended_without_redis(claim)
            elif kind == WITHDRAWN and self._stopped_job_id == claim.job_id:
                fail_as_stopped(self, claim)
            elif kind == WITHDRAWN:
                self.in_hand.give_back([claim])
            elif kind == ALONE:
                self.in_hand.keep(claim)
                self._to_run_alone.append(claim)
        with_child = (claim.serial for claim in self.in_hand if claim not in self._to_run_alone)
        self.child.done_before(min(with_child, default=self.in_hand.next_serial))

    def _after_death(self, death: Death) -> None:
        """The child is dead. Its jobs that were not begun go back; what it ran is blamed, or tried one by one."""
        begun = self.begun()
        self.child.forget()
        self._to_run_alone = [claim for claim in self._to_run_alone if claim not in begun]
        with_child = [claim for claim in self.in_hand if claim not in self._to_run_alone]
        stopped = [claim for claim in self.in_hand if claim.job_id == self._stopped_job_id]
        blamed, begun, waiting = whose_fault(with_child, begun, stopped, self._alone)
        self.child_died(death.pid, death.status, bool(stopped), begun)
        self.in_hand.give_back(waiting)
        for claim in blamed:
            self._blame(claim, death)
        self._to_run_alone.extend(claim for claim in begun if claim not in blamed)

    def child_died(self, pid: int, status: int, was_stopped: bool, begun: Sequence[Claim]) -> None:
        """The child ended by itself while it was at these jobs, or was killed to stop one: for a subclass."""
        self.log.warning("Worker %s: its child %d is gone (wait status %d)", self.name, pid, status)

    def _blame(self, claim: Claim, death: Death) -> None:
        """It is its fault that the child died, or it was killed to stop it."""
        self.in_hand.take_out(claim.serial)
        self._jobs_ended += 1
        if self._stopped_job_id != claim.job_id:
            fail_as_killed(self, claim, death)
        else:
            fail_as_stopped(self, claim)

    def _run_next_alone(self) -> None:
        """In a child of its own, when nothing else is with the child."""
        if self._to_run_alone and self._stop_requested:
            self.in_hand.give_back(self._to_run_alone)
            self._to_run_alone = []
        if self._to_run_alone and not self.child.batches:
            self.child.dismiss()
            self._alone = self._to_run_alone.pop(0)
            self.child.send([self._alone])

    def begun(self) -> list[Claim]:
        """What the child is at."""
        first, end = self.child.running
        return [claim for claim in self.in_hand if first <= claim.serial < end]

    def withdraw(self) -> list[Claim]:
        """Take back what the child has not begun."""
        first_free = self.child.withdraw(self.in_hand.next_serial)
        return [c for c in self.in_hand if c.serial >= first_free and c not in self._to_run_alone]

    def _look_after(self) -> None:
        running_s = self.child.running_s
        if self._stop_requested or (running_s > self.patience_s and not self.child.waits):
            self.in_hand.give_back(self.withdraw())
        limits_s = [claim.timeout_s for claim in self.begun() if claim.timeout_s > 0]
        if limits_s and running_s > min(limits_s) + self.overtime_s:
            self.kill_horse()
        self.between_batches()
        now_s = time.monotonic()
        if now_s - self._looked_after_s > _HEARTBEAT_S:
            self._looked_after_s = now_s
            self.in_hand.keep_alive()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()

    def _stop_what_is_to_stop(self) -> None:
        """Jobs that somebody has sent a stop command for."""
        for claim in [c for c in self.in_hand if c.job_id in self._to_stop]:
            self._to_stop.discard(claim.job_id)
            free = self.withdraw()
            self._stopped_job_id = claim.job_id
            if claim in free:
                free.remove(claim)
                self.in_hand.take_out(claim.serial)
                fail_as_stopped(self, claim)
            else:
                self.kill_horse()
            self.in_hand.give_back(free)

    def _let_go(self) -> None:
        """A cold shutdown: the child has been killed. What it did counts, and what it had not begun goes back."""
        try:
            self._take_records()
            begun = self.begun()
            finished, self._finished = self._finished, []
            if finished:
                self.in_hand.exchange(finished, 0)
            self.in_hand.give_back([claim for claim in self.in_hand if claim not in begun])
        except redis.RedisError as error:
            self.log.warning("Worker %s: what it had in hand stays there for now: %s", self.name, error)
