"""Hundreds of forks of workers that have loaded the real model: none hangs.

A fork does not inherit torch's threads. One whose parent has run torch on two of them waits for ever at its first call.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import their_calls
from nursery import nursery
from rq import Queue
from rq.serializers import JSONSerializer

from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.settings import Settings
from fuze_bench.pipeline.worker_command import main as worker_main
from fuze_bench.processes import usable_cores

#: A fork takes a tenth of a second. Loading the model, before the first, takes longest on a busy machine.
_DEADLINE_S = 40.0


@dataclass(frozen=True)
class Forks:
    """Workers of a kind that run `jobs`, each in a fork of its own: a batch worker, because each ends its child."""

    kind: str
    workers: int
    jobs: int
    queue: str


RUNS = (Forks("fork", 1, 20, "high"), Forks("fork", 2, 130, "default"), Forks("batch", 2, 60, "low"))


def run_them_all() -> int:
    """Each command in turn, in a fork of a process that has imported torch: that takes seconds, and runs nothing."""
    import sentence_transformers  # noqa: F401

    codes = []
    for forks in RUNS:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                sys.argv[1:] = ["--burst", "--kind", forks.kind, "--count", str(forks.workers)]
                sys.argv += ["--queue", forks.queue]
                code = worker_main()
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return max(codes)


def wait_for_lines(paths: Sequence[Path], wanted: int) -> None:
    """The test fails when no fork has come to its end for as long as `_DEADLINE_S`."""
    seen, since_s = 0, time.monotonic()
    while seen < wanted:
        now = sum(len(path.read_text().splitlines()) for path in paths if path.exists())
        if now > seen:
            seen, since_s = now, time.monotonic()
        if time.monotonic() - since_s > _DEADLINE_S:
            pytest.fail(f"a fork hangs, after {seen} of {wanted}")
        time.sleep(0.05)


@pytest.mark.xdist_group("model")
def test_of_hundreds_of_forks_with_a_loaded_model_none_hangs(settings: Settings, tmp_path: Path) -> None:
    notes = [tmp_path / forks.queue for forks in RUNS]
    with connect(settings.redis_url or "") as connection:
        queues = [Queue(forks.queue, connection=connection, serializer=JSONSerializer) for forks in RUNS]
        for forks, queue, path in zip(RUNS, queues, notes, strict=True):
            calls = [
                Queue.prepare_data(their_calls.embed_and_note, (str(path), forks.kind == "batch"))
                for _ in range(forks.jobs)
            ]
            queue.enqueue_many(calls)
        environment = replace(settings, embedding_model="bundled", embedding_threads=0).environment(
            os.environ
        )
        log = tmp_path / "workers.log"
        with nursery().start("workers", "test_many_forks:run_them_all", [], environment, log) as workers:
            wait_for_lines(notes, sum(forks.jobs for forks in RUNS))
            assert workers.wait(30) == 0
    for forks, path in zip(RUNS, notes, strict=True):
        told = [line.split(":") for line in path.read_text().splitlines()]
        assert len({pid for pid, _, _ in told}) == forks.jobs, "each in a fork of its own"
        shared = max(1, usable_cores() // forks.workers)
        assert Counter(threads for _, threads, _ in told) == {str(shared): forks.jobs}
        assert {length for _, _, length in told} == {"1.000"}
