"""What a batch worker has claimed and not yet finished, and how it comes and goes: RQ's keys are changed here."""

from __future__ import annotations

import logging
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.logutils import blue, green
from rq.queue import Queue
from rq.timeouts import UnixSignalDeathPenalty
from rq.utils import as_text
from rq.worker import Worker

from fuze_bench.pipeline.batch_scripts import BatchScripts, Claim, Finished, as_date


class Hand:
    """The claims of one worker, by their serial numbers, which only grow.

    The methods raise redis.RedisError; what they were to do can then be asked for again.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._claims: dict[int, Claim] = {}
        self.scripts = BatchScripts(worker.connection, worker.name)
        self._queues = {queue.name: queue for queue in worker.queues}
        self.next_serial = 1

    def __len__(self) -> int:
        return len(self._claims)

    def __contains__(self, claim: object) -> bool:
        return isinstance(claim, Claim) and claim.serial in self._claims

    def __iter__(self) -> Iterator[Claim]:
        """Oldest first; safe while other threads claim."""
        return iter([*self._claims.values()])

    def take_out(self, serial: int) -> Claim | None:
        """It has ended; None if it was not in hand any more."""
        return self._claims.pop(serial, None)

    def keep(self, claim: Claim) -> None:
        self._claims[claim.serial] = claim

    def queue(self, name: str) -> Queue:
        queue: Queue = self._queues[name]
        return queue

    def forget(self) -> None:
        """In a fork, where nothing is in hand."""
        self._claims = {}

    def exchange(
        self, finished: Sequence[Finished], wanted: int, popped: tuple[str, str] = ("", "")
    ) -> list[Claim]:
        """Finish those jobs and claim up to `wanted`, and the `popped` one (queue, id): one round trip."""
        worker = self._worker
        now_s = time.time()
        claims = bool(wanted or popped[1])
        pipeline = worker.connection.pipeline(transaction=False)
        if finished:
            self.scripts.finish(pipeline, finished, now_s)
        if claims:
            self.scripts.claim(
                pipeline,
                [queue.name for queue in worker._ordered_queues] if wanted else [],
                max(wanted, 1),
                strategy=str(
                    getattr(worker._dequeue_strategy, "value", worker._dequeue_strategy) or "default"
                ),
                now_s=now_s,
                interval_s=worker.job_monitoring_interval,
                default_timeout_s=worker.queue_class.DEFAULT_TIMEOUT,
                in_hand=len(self._claims),
                next_serial=self.next_serial,
                popped=popped,
                described=worker.log.isEnabledFor(logging.INFO),
            )
        try:
            answers = self.scripts.execute(pipeline)
        except redis.RedisError:
            self.next_serial += wanted + 2  # some may have been claimed by these numbers
            raise
        unfinished = answers[0] if finished else []
        for place in unfinished:
            self._finish_in_rqs_way(finished[place])
        unknown, jobs = answers[-1] if claims else (0, [])
        claimed = [self._claim(*job[:7]) for job in jobs]
        if unknown > len(unfinished):
            self._give_back_unknown()
        if worker.log.isEnabledFor(logging.INFO):
            for done in finished:
                self._say(done.claim, "Job OK")
            for claim, job in zip(claimed, jobs, strict=True):
                self._say(claim, job[7].decode(errors="replace") if worker.log_job_description else "")
        return claimed

    def wait_for_a_job(self, timeout_s: int) -> tuple[str, str] | None:
        """The first job that comes (queue, id), taken off its queue as RQ does; None if none came in time."""
        worker = self._worker
        keys = [queue.key for queue in worker._ordered_queues]
        if len(keys) == 1 and worker.get_redis_server_version() >= (6, 2, 0):
            moved = worker.connection.blmove(
                keys[0], IntermediateQueue(keys[0], worker.connection).key, timeout_s
            )
            found = moved and (keys[0], moved)
        else:
            found = worker.connection.blpop(keys, timeout_s)
        if not found:
            return None
        key, job_id = map(as_text, found)
        return Queue.from_queue_key(key, connection=worker.connection).name, job_id

    def give_back(self, claims: Iterable[Claim]) -> None:
        """Put them back at the front of their queues."""
        claims = [*claims]
        if claims:
            self.scripts.give_back([(c.queue, c.job_id, c.execution_id) for c in claims])
        for claim in claims:
            self._claims.pop(claim.serial, None)

    def keep_alive(self) -> None:
        """Heartbeats of the worker and of everything in hand, as RQ's `maintain_heartbeats` for one job."""
        ttl_s = self._worker.job_monitoring_interval + 60
        with self._worker.connection.pipeline() as pipeline:
            self._worker.heartbeat(pipeline=pipeline)
            for claim in self:
                started = self.queue(claim.queue).started_job_registry
                self.execution(claim).heartbeat(started, ttl_s, pipeline=pipeline)
            pipeline.execute()

    def execution(self, claim: Claim) -> Execution:
        return Execution(
            claim.execution_id, claim.job_id, self._worker.connection, worker_name=self._worker.name
        )

    def as_rq_knows(self, claim: Claim) -> tuple[Job, Queue, Execution] | None:
        """RQ's objects for a claim; None if the job was deleted."""
        worker = self._worker
        try:
            job = worker.job_class.fetch(claim.job_id, worker.connection, worker.serializer)
        except NoSuchJobError:
            return None
        execution = self.execution(claim)
        execution._job = job
        return job, self.queue(claim.queue), execution

    def _claim(
        self,
        queue: bytes,
        job_id: bytes,
        execution_id: bytes,
        data: bytes,
        timeout: bytes,
        result_ttl: bytes,
        plain: int,
    ) -> Claim:
        worker = self._worker
        claim = Claim(
            self.next_serial,
            queue.decode(),
            job_id.decode(),
            execution_id.decode(),
            data,
            int(timeout or worker.queue_class.DEFAULT_TIMEOUT),
            int(result_ttl or worker.default_result_ttl),
            bool(plain) and result_ttl != b"0" and _runs_as_rq_does(worker),
        )
        self.next_serial += 1
        self.keep(claim)
        return claim

    def _finish_in_rqs_way(self, finished: Finished) -> None:
        """A job that others wait for: it ends, and they begin, in one transaction of RQ's."""
        worker = self._worker
        if (known := self.as_rq_knows(finished.claim)) is None:
            return
        job, queue, execution = known
        if finished.returned:
            job._result = worker.serializer.loads(b64decode(finished.returned))
        job.started_at, job.ended_at = as_date(finished.started_s), as_date(finished.ended_s)
        job._status = JobStatus.FINISHED
        worker.handle_job_success(job, queue, queue.started_job_registry, execution)

    def _say(self, claim: Claim, what: str) -> None:
        log, name = self._worker.log, self._worker.name
        if what:
            log.info("Worker %s: %s: %s (%s)", name, green(claim.queue), blue(what), claim.job_id)
        else:
            log.info("Worker %s: %s: %s", name, green(claim.queue), claim.job_id)

    def _give_back_unknown(self) -> None:
        """Claimed by a command whose reply was lost: nobody would ever run them."""
        worker = self._worker
        known = {f"{claim.job_id}:{claim.execution_id}" for claim in self}
        lost = []
        for composite in {
            as_text(member) for member in worker.connection.smembers(worker.executions_key)
        } - known:
            job_id, _, execution_id = composite.rpartition(":")
            try:
                job = worker.job_class.fetch(job_id, worker.connection, worker.serializer)
            except NoSuchJobError:
                worker.connection.srem(worker.executions_key, composite)
            else:
                lost.append((job.origin, job_id, execution_id))
        if lost:
            worker.log.warning(
                "Worker %s: %d jobs whose claim got lost go back to their queues", worker.name, len(lost)
            )
            self.scripts.give_back(lost)


def _runs_as_rq_does(worker: Any) -> bool:
    """Whether this class runs jobs as RQ does: who changes that means every job."""
    return (
        worker.death_penalty_class is UnixSignalDeathPenalty
        and type(worker).perform_job is Worker.perform_job
        and "perform_job" not in vars(worker)
    )
