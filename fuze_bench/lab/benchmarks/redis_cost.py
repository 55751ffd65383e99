"""What a job costs Redis: commands and bytes on its worker's side, and memory while it waits and when it has ended.

Counted by the server itself, so that a busy machine changes nothing but the time of its processor. What one worker's start
and end cost is taken off: it is measured with empty queues.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks.empty_job import fail, nothing
from fuze_bench.lab.benchmarks.side_by_side import Figures, Measure, Target, median_of
from fuze_bench.lab.parts.services import running_origin
from fuze_bench.lab.parts.stock_workers import argv_of
from fuze_bench.pipeline.redis_server import PrivateRedis, connect
from fuze_bench.pipeline.service import BookmarkService
from fuze_bench.pipeline.settings import NO_MODEL, Settings
from fuze_bench.processes import Child

UNIT = "bytes"
_JOBS = 1_000
#: Run before anything is counted, so that scripts, registries and the sets of queues are there.
_WARM_UP = 20
_LIMIT_S = 600.0
_QUEUE = "default"
_BOOKMARK = "bookmark, batch"
#: The kinds of worker by their names here.
_KINDS = {"rq worker": "fork", "SimpleWorker": "simple", "batch": "batch"}
_STATES = ("waiting", "finished", "failed")
_COMMANDS, _SENT, _ANSWERED, _PROCESSOR = (
    "commands",
    "bytes to Redis",
    "bytes from Redis",
    "Redis's processor",
)
_SHOWN_MIB = 256
_EMPTY_REDIS = "empty Redis"


def _name(of: str, what: str) -> str:
    return f"{of}: {what} a job"


def _memory(of: str, state: str) -> str:
    return f"{of}: memory of a {state} job"


_ALL = (*_KINDS, _BOOKMARK)
UNITS = {
    **{_name(of, _COMMANDS): "commands" for of in _ALL},
    **{_name(of, _PROCESSOR): "µs" for of in _ALL},
}
#: Shown, with nothing to reach.
TARGETS = [
    *(
        Target(_name("batch", what), _name(other, what))
        for other in ("rq worker", "SimpleWorker")
        for what in (_COMMANDS, _SENT, _ANSWERED, _PROCESSOR)
    ),
    *(Target(_memory("batch", state), _memory("rq worker", state)) for state in _STATES),
    *(Target(_memory(_BOOKMARK, state), _memory("batch", state)) for state in _STATES),
]


def contenders(scale: float = 1.0) -> dict[str, Measure]:
    """What is compared; `scale` shortens it."""
    jobs = max(50, int(_JOBS * scale))
    found: dict[str, Measure] = {
        name: partial(_empty_jobs, name, kind, jobs) for name, kind in _KINDS.items()
    }
    return {**found, _BOOKMARK: partial(_bookmarks, jobs)}


def sentences(figures: Figures) -> list[str]:
    """How many jobs a Redis of 256 MB holds in each state."""
    said: dict[str, list[str]] = {}
    for name in (name for name in _ALL if _memory(name, "waiting") in figures):
        free = _SHOWN_MIB * 2**20 - median_of(figures, _memory_of_empty(name))
        held = [f"{_rounded(free / median_of(figures, _memory(name, s))):,} {s}" for s in _STATES]
        jobs = "jobs of bookmarks" if name == _BOOKMARK else "empty jobs"
        holds = f"Your {_SHOWN_MIB} MB Redis holds {held[0]}, {held[1]} or {held[2]} {jobs}"
        said.setdefault(holds, []).append(name)
    return [f"{holds} ({', '.join(names)})." for holds, names in said.items()]


def _rounded(number: float) -> int:
    """Down to two digits: what memory a job takes depends on its arguments, too."""
    step = 10 ** max(0, len(str(int(number))) - 2)
    return int(number // step * step)


def _memory_of_empty(of: str) -> str:
    return f"{of}: memory of an {_EMPTY_REDIS}"


@dataclass(frozen=True)
class _Load:
    """What is measured: how jobs are queued (that will end well, or fail), and the worker's command line."""

    queue: Callable[[int, bool], None]
    argv: Sequence[str]
    environment: Mapping[str, str]


def _empty_jobs(name: str, kind: str, jobs: int) -> dict[str, float]:
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="fuze-")))
        server = parts.enter_context(PrivateRedis(folder / "redis"))
        [argv] = argv_of(kind, 1, [_QUEUE])
        environment = {**os.environ, "RQ_REDIS_URL": server.url}
        load = _Load(partial(_queue_empty, server.url), [*argv, "--burst"], environment)
        return _measure(name, load, server.url, folder, jobs)


def _queue_empty(url: str, number: int, is_to_fail: bool) -> None:
    with connect(url) as client:
        queue = Queue(_QUEUE, connection=client, serializer=JSONSerializer)
        queue.enqueue_many([Queue.prepare_data(fail if is_to_fail else nothing) for _ in range(number)])


def _bookmarks(jobs: int) -> dict[str, float]:
    """Of pages that are small, without a model: Redis does not see either."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="fuze-")))
        (folder / "pages").mkdir()
        (folder / "pages" / "page.html").write_text(
            f"<title>A page</title><p>{'Some words to read. ' * 20}</p>"
        )
        server = parts.enter_context(PrivateRedis(folder / "redis"))
        origin = parts.enter_context(running_origin(folder, latency_ms=0, pages=str(folder / "pages")))
        settings = replace(
            Settings(data_dir=folder / "data", redis_url=server.url, embedding_model=NO_MODEL),
            fetch_allow=(urlsplit(origin.url).netloc,),
            host_fetches=_JOBS,  # counted, as for any host, but none has to wait
            host_interval_s=0.0,
        )
        argv = [sys.executable, "-m", "fuze_bench.cli", "worker", "--kind", "batch", "--burst"]
        load = _Load(partial(_save, settings, origin.url), argv, settings.environment(os.environ))
        return _measure(_BOOKMARK, load, server.url, folder, jobs)


def _save(settings: Settings, origin: str, number: int, is_to_fail: bool) -> None:
    with BookmarkService(settings) as service:
        first = sum(service.store.counts().values())
        path = "status/404?n=" if is_to_fail else "page/"
        urls = [f"{origin}/{path}{first + n}" for n in range(number)]
        service.save([service.check(user_id=1, url=url) for url in urls])


def _measure(name: str, load: _Load, url: str, folder: Path, jobs: int) -> dict[str, float]:
    """Everything in turn on one server: jobs that wait, their work, and as many that fail."""
    for is_to_fail in (False, True):
        load.queue(_WARM_UP, is_to_fail)
    _work(load, folder)
    idle = _spent(url, lambda: _work(load, folder))
    empty_bytes = _used_bytes(url)
    load.queue(jobs, False)
    waiting_bytes = _used_bytes(url)
    spent = _spent(url, lambda: _work(load, folder))
    finished_bytes = _used_bytes(url)
    load.queue(jobs, True)
    _work(load, folder)
    failed_bytes = _used_bytes(url)
    _check_ends(url, 2 * (jobs + _WARM_UP))
    return {
        **{_name(name, what): (spent[what] - idle[what]) / jobs for what in spent},
        _memory(name, "waiting"): (waiting_bytes - empty_bytes) / jobs,
        _memory(name, "finished"): (finished_bytes - empty_bytes) / jobs,
        _memory(name, "failed"): (failed_bytes - finished_bytes) / jobs,
        _memory_of_empty(name): empty_bytes,
    }


def _work(load: _Load, folder: Path) -> None:
    """One worker, until the queues are empty. Raises LabError if it did not end well, ServiceError if it does not end."""
    with Child("the worker", load.argv, folder / "worker.log", environment=load.environment) as worker:
        if worker.wait(_LIMIT_S):
            raise LabError(f"the worker ended with code {worker.returncode()}: {worker.log_tail(3)}")


def _check_ends(url: str, jobs: int) -> None:
    """Raises LabError unless half of the jobs have finished, and half have failed."""
    with connect(url) as client:
        queue = Queue(_QUEUE, connection=client, serializer=JSONSerializer)
        ended = (queue.finished_job_registry.count, queue.failed_job_registry.count)
    if ended != (jobs // 2, jobs // 2):
        raise LabError(
            f"of {jobs} jobs, of which half were to fail, {ended[0]} finished and {ended[1]} failed"
        )


def _spent(url: str, work: Callable[[], None]) -> dict[str, float]:
    """What the server did meanwhile; commands within scripts and transactions count."""
    before = _counts(url)
    work()
    return {what: count - before[what] for what, count in _counts(url).items()}


def _counts(url: str) -> dict[str, float]:
    with connect(url) as client:
        stats, commands, cpu = (_info(client, section) for section in ("stats", "commandstats", "cpu"))
    return {
        _COMMANDS: sum(each["calls"] for each in commands.values()),
        _SENT: stats["total_net_input_bytes"],
        _ANSWERED: stats["total_net_output_bytes"],
        _PROCESSOR: (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6,
    }


def _used_bytes(url: str) -> float:
    """What the server has allocated; a new connection, so that none has a large buffer yet."""
    with connect(url) as client:
        return float(_info(client, "memory")["used_memory"])


def _info(client: Any, section: str) -> dict[str, Any]:
    found: dict[str, Any] = client.info(section)
    return found
