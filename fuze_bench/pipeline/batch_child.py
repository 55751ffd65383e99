"""The child of a batch worker: runs the jobs it is handed, one after another or many of a kind at once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
import time
import zlib
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import redis
from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, Retry, _current_job
from rq.timeouts import JobTimeoutException
from rq.utils import import_attribute

from fuze_bench.pipeline.batch_channel import ChildEnd
from fuze_bench.pipeline.batch_form import BatchForm, any_batch_form, batch_form
from fuze_bench.pipeline.batch_lease import Announcements
from fuze_bench.pipeline.batch_scripts import Claim, as_date
from fuze_bench.processes import give_back_memory

#: What a record says of a job: it went well, RQ's own way has ended it, its job is gone, it is to be run alone, it
#: ended while Redis was away, or it was withdrawn when it was about to begin.
WENT_WELL, ENDED, GONE, ALONE, AWAY, WITHDRAWN = range(6)


_WAIT_STEP_S = 0.01
#: Without work for so long, it takes no more memory than it must.
_REST_S = 1.0


class _Planned(NamedTuple):
    """Claims to be run, and whether they would not have to wait for their input now."""

    claims: Sequence[Claim]
    run: Callable[[], None]
    is_ready: Callable[[], bool] = lambda: True


class BatchChild:
    """Runs batches for a worker, in a fork of it, until the worker closes the channel."""

    def __init__(self, worker: Any, end: ChildEnd) -> None:
        self._worker = worker
        self._end = end
        self._progress = end.progress
        _, begun_key = worker.in_hand.scripts.lease_keys
        self._announced = Announcements(worker.connection, begun_key, end.progress)
        self._functions: dict[str, Callable[..., Any]] = {}
        self._planned: deque[_Planned] = deque()
        self._deadline = Deadline()
        self._lazy = _lazy_class(worker.job_class)

    def run(self) -> None:
        self._end.listen()
        while True:
            if not self._planned:
                self._progress.idle()
                self._end.ring()
                batch = self._end.waiting_batch(_REST_S)
                if batch is None:
                    give_back_memory()
                    batch = self._end.next_batch()
                if batch is None:
                    return
                self._plan(batch)
            self._look_ahead()
            if self._planned[0].is_ready():
                self._planned.popleft().run()
            else:
                self._take_ready()()

    def _take_ready(self) -> Callable[[], None]:
        """Take out the first that is ready: what comes late holds up nothing. Until there is one, others are begun."""
        while not (ready := [each for each in self._planned if each.is_ready()]):
            if not self._progress.waits:
                front = self._planned[0].claims
                self._progress.begin(front[0].serial, front[-1].serial + 1)
                self._progress.waits = True
                self._end.ring(always=True)
            if (batch := self._end.waiting_batch(_WAIT_STEP_S)) is not None:
                self._plan(batch)
        self._progress.waits = False
        self._planned.remove(ready[0])
        return ready[0].run

    def _look_ahead(self) -> None:
        if any_batch_form():
            while (batch := self._end.waiting_batch()) is not None:
                self._plan(batch)

    def _plan(self, batch: list[Any]) -> None:
        claims = [Claim(*claim) for claim in batch]
        if not any_batch_form():
            self._planned.extend(self._by_itself(claim) for claim in claims)
            return
        for form, group in self._grouped(claims):
            if form is None:
                self._planned.extend(self._by_itself(claim) for claim, _ in group)
            else:
                self._begin_group(form, [claim for claim, _ in group], [call for _, call in group])

    def _by_itself(self, claim: Claim) -> _Planned:
        return _Planned([claim], lambda: self._one(claim))

    def _grouped(self, claims: list[Claim]) -> Iterator[tuple[BatchForm | None, list[Any]]]:
        """Neighbours that call a function with the same batch form, with their arguments."""
        group: list[Any] = []
        form_of_group: BatchForm | None = None
        for claim in claims:
            form, call = self._form_of(claim)
            if group and (form is not form_of_group or (form is not None and len(group) >= form.size)):
                yield form_of_group, group
                group = []
            form_of_group = form
            group.append((claim, call))
        if group:
            yield form_of_group, group

    def _form_of(self, claim: Claim) -> tuple[BatchForm | None, Any]:
        if not claim.plain:
            return None, None
        try:
            name, instance, args, kwargs = self._call(claim)
        except Exception:  # noqa: BLE001 - whatever a serializer raises: the job fails of it when its turn has come
            return None, None
        form = batch_form(name) if instance is None else None
        return form, (tuple(args), kwargs)

    def _begin_group(self, form: BatchForm, claims: list[Claim], calls: list[Any]) -> None:
        self._announced.begin(claims[0].serial, claims[-1].serial + 1)
        self._progress.hold(claims[-1].serial + 1)
        if claims[0].serial < self._progress.withdrawn_before:
            for claim in claims:
                self._end.record((WITHDRAWN, claim.serial))
            return
        if not self._planned:
            # It is at nothing else: should it die from here on, it dies of these.
            self._progress.begin(claims[0].serial, claims[-1].serial + 1)
        try:
            begun = form.begin(calls)
        except Exception as error:
            self._worker.log.exception("batch form %r cannot begin %d jobs", form, len(claims))
            failed = error  # the name of the block is gone when it is over
            self._planned.append(
                _Planned(claims, lambda: self._blame_or_try_alone(claims, time.time(), failed))
            )
            return
        limit_s = min((claim.timeout_s for claim in claims if claim.timeout_s > 0), default=-1)
        until_s = math.inf if limit_s < 0 else time.monotonic() + limit_s

        def is_ready() -> bool:
            return form.is_ready(begun) or time.monotonic() > until_s

        self._planned.append(_Planned(claims, lambda: self._group(form, claims, begun, limit_s), is_ready))

    def _group(self, form: BatchForm, claims: list[Claim], begun: Any, limit_s: int) -> None:
        self._progress.begin(claims[0].serial, claims[-1].serial + 1)
        started_s, worked_s = time.time(), time.process_time()
        try:
            # What has not come by now has had its time.
            with self._deadline.of(limit_s if limit_s < 0 or form.is_ready(begun) else 1):
                outcomes = form.finish(begun)
            if len(outcomes) != len(claims):
                raise ValueError(f"batch form {form!r} made {len(outcomes)} outcomes of {len(claims)} jobs")
        except Exception as error:
            self._worker.log.exception("a batch of %d jobs failed", len(claims))
            self._blame_or_try_alone(claims, started_s, error)
            return
        share_s = (time.time() - started_s) / len(claims)
        # What it waited for was begun ahead: the more jobs are in hand, the less each of them waits.
        worked_s = (time.process_time() - worked_s) / len(claims)
        for place, (claim, outcome) in enumerate(zip(claims, outcomes, strict=True)):
            start_s = started_s + place * share_s
            if isinstance(outcome, BaseException):
                self._in_rqs_way(claim, start_s, error=outcome)
            else:
                self._end_well(claim, outcome, start_s, start_s + share_s, worked_s)
        self._end.ring()  # what the worker claims next is to be fetched while the next group is computed

    def _blame_or_try_alone(self, claims: list[Claim], started_s: float, error: Exception) -> None:
        """Whose fault it was shows when each job has a batch, and a process, of its own."""
        if len(claims) == 1:
            self._in_rqs_way(claims[0], started_s, error=error)
            return
        for claim in claims:
            self._end.record((ALONE, claim.serial))

    def _one(self, claim: Claim) -> None:
        serial = claim.serial
        self._announced.begin(serial, serial + 1)
        self._progress.begin(serial, serial + 1)
        if serial < self._progress.withdrawn_before:
            # Perhaps the worker has seen the announcement and takes it for begun.
            self._end.record((WITHDRAWN, serial))
            return
        with self._worker.during(claim):
            self._run(claim)

    def _run(self, claim: Claim) -> None:
        if not claim.plain:
            self._in_rqs_way(claim)
            return
        started_s = time.time()
        try:
            value = self._perform(claim)
        except BaseException as error:  # noqa: BLE001 - as RQ: whatever a job raises, SystemExit too, is its failure
            self._in_rqs_way(claim, started_s, error=error)
            return
        ended_s = time.time()
        self._end_well(claim, value, started_s, ended_s, ended_s - started_s)

    def _perform(self, claim: Claim) -> Any:
        with self._deadline.of(claim.timeout_s):
            name, instance, args, kwargs = self._call(claim)
            if instance is None:
                function = self._functions.get(name) or self._import(name)
            else:
                function = getattr(instance, name)
            token = _current_job.set(self._lazy_job(claim))
            try:
                value = function(*args, **kwargs)
                if asyncio.iscoroutine(value):
                    value = asyncio.run(value)
            finally:
                _current_job.reset(token)
        return value

    def _call(self, claim: Claim) -> Any:
        """Function name, instance, positional and keyword arguments."""
        data = claim.data
        with contextlib.suppress(zlib.error):  # as RQ: what cannot be decompressed was not compressed
            data = zlib.decompress(data)
        return self._worker.serializer.loads(data)

    def _import(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = import_attribute(name)
        self._functions[name] = function
        return function

    def _lazy_job(self, claim: Claim) -> Job:
        job: Job = object.__new__(self._lazy)
        job.__dict__["_in_hand"] = (claim.job_id, self._worker.connection, self._worker.serializer)
        return job

    def _end_well(self, claim: Claim, value: Any, started_s: float, ended_s: float, worked_s: float) -> None:
        if isinstance(value, Retry):
            self._in_rqs_way(claim, started_s, value=value)
            return
        returned = b""
        if value is not None:
            dumps = self._worker.serializer.dumps
            try:
                returned = b64encode(dumps(value))
            except Exception:  # noqa: BLE001 - as RQ: such a job went well all the same
                returned = b64encode(dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD))
        self._end.record((WENT_WELL, claim.serial, returned, started_s, ended_s, worked_s))

    def _in_rqs_way(
        self,
        claim: Claim,
        started_s: float | None = None,
        *,
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
        """Run the job as RQ's workers do, or (with `started_s`) only end it as they do: every callback, retry,
        repeat, dependent and limit is RQ's own code then."""
        try:
            there = self._take_rqs_way(claim, started_s, value, error)
        except redis.RedisError as away:
            self._worker.log.warning("job %s: Redis was away when it ended (%s)", claim.job_id, away)
            self._end.record((AWAY, claim.serial))
        else:
            self._end.record((ENDED if there else GONE, claim.serial))

    def _take_rqs_way(
        self, claim: Claim, started_s: float | None, value: Any, error: BaseException | None
    ) -> bool:
        """False if the job was deleted meanwhile, or Redis was emptied."""
        worker = self._worker
        try:
            job = worker.job_class.fetch(claim.job_id, worker.connection, worker.serializer)
            execution = Execution.fetch(claim.execution_id, claim.job_id, worker.connection)
        except (NoSuchJobError, ValueError):
            return False
        execution._job = job
        queue = worker.queue_named(claim.queue)
        if started_s is None:
            worker.perform_job(job, queue, execution)
            return True
        job.started_at = as_date(started_s)
        if error is None:
            worker._finalize_success(job, queue, execution, value)
        else:
            worker._finalize_failure(job, queue, execution, (type(error), error, error.__traceback__))
        return True


class Deadline:
    """A job's time limit by SIGALRM, as RQ's, but without system calls while the alarm that is set comes soon enough.

    An alarm that comes before the job's time is over is set anew. Ends a job by `JobTimeoutException`.
    """

    def __init__(self) -> None:
        self._until_s = math.inf
        self._limit_s = 0

    def of(self, limit_s: int) -> Deadline:
        """Within this, at most `limit_s` seconds; below zero: no limit."""
        self._limit_s = limit_s
        return self

    def __enter__(self) -> None:
        if self._limit_s < 0:
            return
        self._until_s = time.monotonic() + self._limit_s
        if signal.getsignal(signal.SIGALRM) != self._ring:
            signal.signal(signal.SIGALRM, self._ring)
        left_s = signal.getitimer(signal.ITIMER_REAL)[0]
        if not 0 < left_s <= self._limit_s:
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def __exit__(self, *_error: object) -> None:
        self._until_s = math.inf

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        if self._until_s == math.inf:
            return
        left_s = self._until_s - time.monotonic()
        if left_s > 0.001:
            signal.setitimer(signal.ITIMER_REAL, left_s)
            return
        raise JobTimeoutException(f"Task exceeded maximum timeout value ({self._limit_s} seconds)")


def _lazy_class(job_class: type[Job]) -> type[Job]:
    """A job that reads itself from Redis when somebody asks it for something: `get_current_job()` is rarely called."""

    def read(job: Any, name: str) -> Any:
        if "_in_hand" not in job.__dict__:
            raise AttributeError(name)
        job_id, connection, serializer = job.__dict__.pop("_in_hand")
        read_now = job_class.fetch(job_id, connection, serializer)
        job.__dict__ = {**read_now.__dict__, **job.__dict__}
        return getattr(job, name)

    return type(f"InHand{job_class.__name__}", (job_class,), {"__getattr__": read})


def run_child(worker: Any, end: ChildEnd) -> int:
    """The whole life of the child; its exit code."""
    try:
        BatchChild(worker, end).run()
    except BaseException:  # the process ends here, and its worker must know why
        worker.log.exception("the child of worker %s fails", worker.name)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
