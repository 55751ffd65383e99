"""Synthetic jobs, or a user's own, on stock RQ workers: sent through plain RQ at their intended times."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.errors import LabError, QueueUnavailableError
from fuze_bench.lab.experiments.service_law import ServiceLaw
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.experiments.workloads import Synthetic, Yours
from fuze_bench.lab.load.jobs import AGAIN, JobCall, find_function, load_jobs, read_record, synthetic_jobs
from fuze_bench.lab.parts.delay_proxy import running_delay_proxy
from fuze_bench.lab.parts.series import Sampler
from fuze_bench.lab.parts.stock_workers import StockWorkers
from fuze_bench.lab.runs.records import EventRow, TrialRow
from fuze_bench.pipeline.redis_server import PrivateRedis, connect, why_away

_POLL_S = 0.05
_SOON_NS = 200_000_000
_WARM_UP_LIMIT_S = 120.0
_WARM_UP = ServiceLaw(mean_ms=1.0)
#: What this process can send is tried for so long, or with so many jobs.
_CEILING_S, _CEILING_JOBS = 0.3, 300
#: Jobs of a backlog are sent in groups: one transaction each.
_GROUP = 500


class JobLoad:
    """See `trial.Load`."""

    def __init__(self, planned: PlannedTrial, experiment: Experiment, folder: Path) -> None:
        self._planned, self._experiment, self._folder = planned, experiment, folder
        self._configuration = planned.configuration
        self._arrivals = experiment.arrivals_of(self._configuration)
        self._times_s = self._arrivals.times(experiment.seed_of(planned.block))
        self._jobs = _jobs(experiment, planned)
        self._path, self._warm_up_path = folder / "jobs.jsonl", folder / "warm-up.jsonl"
        self._workers: StockWorkers | None = None
        self._redis: PrivateRedis | None = None
        self.start_ns = 0
        self._ceiling_per_s: float | None = None
        self._stamps: list[tuple[int, int]] = []
        self._seen_bytes = 0
        self._ended: Counter[int] = Counter()

    def planned_jobs(self) -> list[tuple[float, JobCall]]:
        """When each job is to be sent, seconds from the first moment, and the job."""
        return list(zip(self._times_s, self._jobs, strict=True))

    def start(self, parts: ExitStack) -> None:
        c = self._configuration
        self._redis = parts.enter_context(PrivateRedis(self._folder / "redis"))
        url = self._redis.url
        if c.redis_rtt_ms:
            url = parts.enter_context(running_delay_proxy(self._folder, url, c.redis_rtt_ms))
        self._client = connect(url, connect_timeout_s=2, timeout_s=10)
        parts.callback(self._client.close)
        queues = list(dict.fromkeys([*c.shares, *(job.queue for job in self._jobs)]))
        self._queues = {
            name: Queue(name, connection=self._client, serializer=JSONSerializer) for name in queues
        }
        self._workers = parts.enter_context(
            StockWorkers(c.kind, c.workers, queues, url, self._folder, strategy=c.strategy)
        )

    def wait_ready(self) -> None:
        assert self._workers is not None
        self._workers.wait_ready()

    def warm_up(self) -> None:
        """Some of the very jobs, so that what they import is there; of synthetic ones, short ones."""
        with _redis_errors():
            self._warm_up()

    def _warm_up(self) -> None:
        count = self._experiment.warm_up * self._configuration.workers
        if isinstance(self._experiment.workload, Synthetic):
            calls = [JobCall(n, _WARM_UP.function, (_WARM_UP.mean_ms,)) for n in range(1, count + 1)]
        else:
            calls = [
                replace(job, number=n)
                for n, job in enumerate(itertools.islice(itertools.cycle(self._jobs), count), 1)
            ]
        first = next(iter(self._queues.values()))
        first.enqueue_many([self._data(c, self._warm_up_path, f"warm-up-{c.number}") for c in calls])
        deadline_s = time.monotonic() + _WARM_UP_LIMIT_S
        while len(read_record(self._warm_up_path)) < count:
            if problem := self.problem():
                raise LabError(problem)
            if time.monotonic() > deadline_s:
                raise LabError(f"the {count} jobs to warm up were not done after {_WARM_UP_LIMIT_S:g} s")
            time.sleep(_POLL_S)
        if self._configuration.arrivals != "backlog":
            self._ceiling_per_s = self._measured_ceiling_per_s()

    def _measured_ceiling_per_s(self) -> float:
        """How many jobs a second this process sends one after the other, to a queue that no worker listens to."""
        queue = Queue("ceiling", connection=self._client, serializer=JSONSerializer)
        begin_s = time.monotonic()
        for sent in range(1, _CEILING_JOBS + 1):
            job = JobCall(sent, _WARM_UP.function, (_WARM_UP.mean_ms,))
            queue.enqueue_many([self._data(job, self._warm_up_path, f"ceiling-{sent}")])
            taken_s = time.monotonic() - begin_s
            if taken_s > _CEILING_S:
                break
        queue.delete(delete_jobs=True)
        return sent / taken_s

    def offer(self, on_progress: Callable[[], None]) -> None:
        self.start_ns = time.monotonic_ns() + _SOON_NS
        with _redis_errors():
            if self._configuration.arrivals == "backlog":
                self._send_together()
            else:
                self._send_in_time(on_progress)

    def _send_together(self) -> None:
        self.start_ns = time.monotonic_ns()
        stamps = [(0, 0)] * len(self._jobs)
        for name, jobs in itertools.groupby(sorted(self._jobs, key=lambda j: j.queue), lambda j: j.queue):
            while group := list(itertools.islice(jobs, _GROUP)):
                sent_ns = time.monotonic_ns()
                self._queues[name].enqueue_many([self._data(job, self._path) for job in group])
                for job in group:
                    stamps[job.number - 1] = (sent_ns, time.monotonic_ns())
        self._stamps = stamps

    def _send_in_time(self, on_progress: Callable[[], None]) -> None:
        next_look_ns = self.start_ns
        for time_s, job in self.planned_jobs():
            intended_ns = self.start_ns + round(time_s * 1e9)
            while (left_ns := intended_ns - time.monotonic_ns()) > 0:
                if left_ns > _POLL_S * 1e9 and time.monotonic_ns() > next_look_ns:
                    on_progress()
                    next_look_ns = time.monotonic_ns() + int(_POLL_S * 4e9)
                    continue
                time.sleep(min(left_ns / 1e9, _POLL_S))
            sent_ns = time.monotonic_ns()
            self._queues[job.queue].enqueue_many([self._data(job, self._path)])
            self._stamps.append((sent_ns, time.monotonic_ns()))

    def _data(self, job: JobCall, record: Path, job_id: str | None = None) -> Any:
        data = job.enqueue_data(record)
        return data if job_id is None else data._replace(job_id=job_id)

    def remaining(self) -> int:
        """Counted by what the workers have added to the record since the last look."""
        if self._path.exists():
            with self._path.open("rb") as record:
                record.seek(self._seen_bytes)
                whole, _, _ = record.read().rpartition(b"\n")
            for line in filter(None, whole.split(b"\n")):
                outcome = json.loads(line)
                self._ended[outcome["job"]] += outcome["status"] != AGAIN
            self._seen_bytes += len(whole) + bool(whole)
        return len(self._jobs) - sum(count > 0 for count in self._ended.values())

    def is_at_rest(self) -> bool:
        with _redis_errors():
            return not any(_waits_or_runs(queue) for queue in self._queues.values())

    def problem(self) -> str | None:
        return None if self._workers is None else self._workers.problem()

    def sampler(self) -> Sampler:
        assert self._workers is not None
        assert self._redis is not None
        workers, server = self._workers, self._redis
        groups: dict[str, Callable[[], list[int]]] = {
            "workers": lambda: workers.pids,
            "redis": server.pids,
        }
        return Sampler(groups, server.url, queues=list(self._queues))

    def record(self, row: TrialRow) -> tuple[TrialRow, list[EventRow]]:
        lines = read_record(self._path)
        ends = lines[lines["status"] != AGAIN].drop_duplicates("job").set_index("job")
        attempts = Counter(int(job) for job in lines["job"])
        first_start = lines.groupby("job")["started_ns"].min()
        p = self._planned
        events = []
        for time_s, job in self.planned_jobs():
            intended_ns = self.start_ns + round(time_s * 1e9)
            values: dict[str, Any] = {"status": "pending"}
            if job.number <= len(self._stamps):
                sent_ns, acknowledged_ns = self._stamps[job.number - 1]
                # A worker may have it before RQ's call returns: from the call's beginning it is as good as queued.
                values |= {"sent_ns": sent_ns, "queued_ns": sent_ns, "acknowledged_ns": acknowledged_ns}
            if job.number in ends.index:
                end = ends.loc[job.number]
                values |= {name: end[name] for name in ("status", "reason", "worker")}
                values |= {"started_ns": int(first_start[job.number]), "done_ns": int(end["done_ns"])}
            events.append(
                EventRow(
                    trial=p.number,
                    block=p.block,
                    label=p.label,
                    copy=p.copy,
                    job=job.number,
                    queue=job.queue,
                    intended_ns=intended_ns,
                    attempts=attempts[job.number],
                    **values,
                )
            )
        counted = replace(
            row,
            window_s=self._arrivals.window_s,
            offered=len(events),
            sent=len(self._stamps),
            acknowledged=len(self._stamps),
            duplicated=sum(max(0, count - 1) for count in self._ended.values()),
            sender_ceiling_per_s=self._ceiling_per_s,
        )
        return counted, events

    def exit_codes(self) -> dict[str, int | None]:
        codes = [] if self._workers is None else self._workers.exit_codes()
        return {"workers_exit_code": next((code for code in codes if code), codes[0] if codes else None)}


@contextmanager
def _redis_errors() -> Iterator[None]:
    """Redis's errors as ours."""
    try:
        yield
    except redis.RedisError as error:
        raise QueueUnavailableError(f"the trial's Redis is away ({why_away(error)})") from None


def _waits_or_runs(queue: Queue) -> bool:
    """Counted without tidying up, which RQ's own counts do."""
    registries = (
        queue.started_job_registry, queue.scheduled_job_registry, queue.deferred_job_registry,
    )  # fmt: skip
    return bool(queue.count) or any(registry.get_job_count(cleanup=False) for registry in registries)


def _jobs(experiment: Experiment, planned: PlannedTrial) -> list[JobCall]:
    """One for each arrival; the same for every configuration of the block with as many."""
    configuration, workload = planned.configuration, experiment.workload
    seed = experiment.seed_of(planned.block)
    count = len(experiment.arrivals_of(configuration).times(seed))
    if isinstance(workload, Yours):
        find_function(workload.function)
        listed = load_jobs(Path(workload.jobs), workload.function)
        return [
            replace(job, number=n)
            for n, job in enumerate(itertools.islice(itertools.cycle(listed), count), 1)
        ]
    assert isinstance(workload, Synthetic)
    queues = experiment.arrivals_of(configuration).queues(configuration.shares, count, seed)
    return synthetic_jobs(workload.service, queues, np.random.default_rng(seed))
