"""A batch worker at work in a fork, for the tests of what it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis
from conftest import wait_until
from rq import Worker
from rq.job import Job

from fuze_bench.pipeline.batch_worker import BatchWorker


class QuickToKill(BatchWorker):
    """A second of overtime in place of a minute."""

    overtime_s = 1.0


@contextmanager
def working(connection: redis.Redis, *queues: str, **options: Any) -> Iterator[int]:
    """A batch worker in a fork, until it is told to stop; its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            worker = BatchWorker(queues or ["high", "low"], connection=connection)
            worker.work(logging_level="CRITICAL", **options)
        finally:
            os._exit(0)
    try:
        wait_until(lambda: any(w.pid == pid for w in Worker.all(connection)), what="the worker")
        yield pid
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def statuses(*jobs: Job) -> list[str]:
    return [job.get_status().value for job in jobs]
