"""RQ's own workers and the batch worker, as RQ's command line starts them: for jobs that are not ours, and as a baseline for ours.

Which kind can take jobs in which order:

| kind | started as | strict | round robin, random |
| --- | --- | --- | --- |
| simple | `rq worker -w rq.SimpleWorker` | yes | `--dequeue-strategy` |
| fork | `rq worker` | yes | `--dequeue-strategy` |
| spawn | `rq worker -w rq.SpawnWorker` | yes | `--dequeue-strategy` |
| batch | `rq worker -w fuze_bench.pipeline.batch_worker.BatchWorker` | yes | `--dequeue-strategy` |
| pool | `rq worker-pool` | yes | no option for it; `-w` with the worker classes that RQ calls deprecated |
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import redis
from rq import Worker

from fuze_bench.errors import LabError, QueueUnavailableError, nearest
from fuze_bench.pipeline.redis_server import connect, why_away
from fuze_bench.pipeline.settings import Strategy
from fuze_bench.processes import Child, is_running

POOL = "pool"
#: The worker class of each kind on RQ's command line, for the strategies that `rq worker` has an option for.
_CLASSES = {
    "simple": "rq.SimpleWorker",
    "fork": "rq.Worker",
    "spawn": "rq.SpawnWorker",
    "batch": "fuze_bench.pipeline.batch_worker.BatchWorker",
}
#: The pool has no such option: its strategy is a matter of the class of its workers.
_POOL_CLASSES = {
    Strategy.STRICT: "rq.Worker",
    Strategy.ROUND_ROBIN: "rq.worker.RoundRobinWorker",
    Strategy.RANDOM: "rq.worker.RandomWorker",
}
KINDS = (*_CLASSES, POOL)

_READY_S = 60.0
_STOP_S = 30.0
#: A worker of RQ's that is told between two jobs may note it and wait for the next job all the same, for minutes; told
#: twice, it ends at once, in the middle of a job too.
_TELL_AGAIN_S = 10.0
_LET_START_S = 5.0
_POLL_S = 0.02


def argv_of(kind: str, count: int, queues: Sequence[str], strategy: str = Strategy.STRICT) -> list[list[str]]:
    """The command lines that start `count` workers, one for each process to start.

    Raises LabError for what RQ cannot do.
    """
    _check(kind, count, queues, strategy)
    rq = str(Path(sys.executable).with_name("rq"))
    if kind == POOL:
        options = ["--num-workers", str(count), "--worker-class", _POOL_CLASSES[Strategy(strategy)]]
        return [[rq, "worker-pool", *options, "--serializer", "json", *queues]]
    options = ["--worker-class", _CLASSES[kind], "--dequeue-strategy", Strategy(strategy).as_rq_says]
    return [[rq, "worker", *options, "--with-scheduler", "--serializer", "json", *queues]] * count


def _check(kind: str, count: int, queues: Sequence[str], strategy: str) -> None:
    for name, value, known in (("kind", kind, KINDS), ("strategy", strategy, tuple(map(str, Strategy)))):
        if value not in known:
            raise LabError(f"{name}={value!r} is none of RQ's workers: {nearest(str(value), known)}")
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise LabError(f"workers={count!r}: start at least one")
    if isinstance(queues, str) or not queues or not all(queues):
        raise LabError(f"queues={queues!r}: name at least one, as a list, the first one first")
    twice = next((name for name in queues if list(queues).count(name) > 1), None)
    if twice is not None:
        raise LabError(f"queues={queues!r} holds {twice!r} twice: name each once")


class StockWorkers:
    """`count` workers of RQ's that listen to `queues`, with their output in `folder`. A context manager: entering it
    starts them, leaving it lets the jobs in hand finish and reaps everything, forks included.

    `environment`: what they are started with, beside the address of Redis; None: this process's. They find modules in
    `module_path` (None: the folder that this process works in). Raises LabError for what RQ cannot do.
    """

    def __init__(
        self,
        kind: str,
        count: int,
        queues: Sequence[str],
        redis_url: str,
        folder: Path,
        *,
        strategy: str = Strategy.STRICT,
        environment: Mapping[str, str] | None = None,
        module_path: Path | None = None,
    ) -> None:
        self._argvs = argv_of(kind, count, queues, strategy)
        self._count = count
        self._folder = folder
        self._environment = _environment(
            os.environ if environment is None else environment, redis_url, module_path
        )
        self._redis = connect(redis_url, connect_timeout_s=2, timeout_s=5)
        self._others: frozenset[str] = frozenset()
        self._names: frozenset[str] = frozenset()
        self._started = ExitStack()
        self.children: list[Child] = []

    def __enter__(self) -> StockWorkers:
        self._others = self._registered()
        with ExitStack() as stack:
            stack.callback(self._redis.close)
            for number, argv in enumerate(self._argvs, start=1):
                child = Child(
                    f"{argv[1]} {number}",
                    argv,
                    self._folder / f"rq-{number}.log",
                    environment=self._environment,
                )
                stack.callback(_end_session, child)
                self.children.append(child)
            self._started = stack.pop_all()
        return self

    def wait_ready(self) -> None:
        """Wait until all have registered in RQ and begun to work.

        Raises ServiceError if they do not get there, QueueUnavailableError if Redis is away.
        """
        deadline_s = time.monotonic() + _READY_S
        for child in self.children:
            child.wait_ready(self._are_ready, deadline_s - time.monotonic())

    @property
    def pids(self) -> list[int]:
        """Of the processes that were started; theirs follow from them."""
        return [child.pid for child in self.children]

    def problem(self) -> str | None:
        """What became of a worker that is no longer there; None while all of them live."""
        for child in self.children:
            if not child.is_alive():
                return f"{child.name} ended with code {child.returncode()}"
        replaced = self._registered() - self._others - self._names if self._names else None
        return f"a worker died and was replaced by {', '.join(sorted(replaced))}" if replaced else None

    def exit_codes(self) -> list[int | None]:
        """Of the processes that were started; None for one that runs."""
        return [child.returncode() for child in self.children]

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._stop()
        finally:  # somebody may press Ctrl-C while this waits
            self._started.close()

    def _stop(self) -> None:
        self._let_start()
        # All are told before anyone is waited for.
        began_s = time.monotonic()
        self._tell_to_stop()
        while time.monotonic() < began_s + _TELL_AGAIN_S and self._any_runs():
            time.sleep(_POLL_S)
        self._tell_to_stop()
        for child in self.children:
            child.wait(max(0.0, began_s + _STOP_S - time.monotonic()))

    def _tell_to_stop(self) -> None:
        for child in self.children:
            if child.is_alive():
                child.signal(signal.SIGTERM)

    def _any_runs(self) -> bool:
        return any(child.is_alive() for child in self.children)

    def _let_start(self) -> None:
        """RQ's pool waits for ever for a worker that is told to stop after it registered and before it listens to that."""
        deadline_s = time.monotonic() + _LET_START_S
        with contextlib.suppress(QueueUnavailableError):
            while self._starting(self._registered() - self._others) and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)

    def _are_ready(self) -> bool:
        self._names = self._registered() - self._others
        return len(self._names) == self._count and not self._starting(self._names)

    def _starting(self, names: frozenset[str]) -> bool:
        try:
            return any(self._redis.hget(name, "state") in (None, b"started") for name in names)
        except redis.RedisError as error:
            raise _away(error) from None

    def _registered(self) -> frozenset[str]:
        try:
            return frozenset(Worker.all_keys(connection=self._redis))
        except redis.RedisError as error:
            raise _away(error) from None


def _away(error: redis.RedisError) -> QueueUnavailableError:
    return QueueUnavailableError(f"the workers' Redis is away ({why_away(error)})")


def _environment(base: Mapping[str, str], redis_url: str, module_path: Path | None) -> dict[str, str]:
    """`base` with the address of Redis, which may hold a password and so is in no command line."""
    paths = [str((module_path or Path.cwd()).absolute()), base.get("PYTHONPATH", "")]
    kept = {name: value for name, value in base.items() if not name.startswith("RQ_")}
    return {**kept, "RQ_REDIS_URL": redis_url, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _end_session(child: Child) -> None:
    """kill -9 to what is left of the process and of all that it started: a fork that runs a job is in another group."""
    child.kill_group()
    while left := [pid for pid in psutil.pids() if _session_of(pid) == child.pid and is_running(pid)]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
