"""Celery: `celery -A fuze_bench.lab.benchmarks.peers.celery_jobs worker --concurrency 2`."""

from __future__ import annotations

import os

from celery import Celery

from fuze_bench.lab.benchmarks.peers import note

#: Celery has a scheme of its own for a socket.
app = Celery("empty", broker=os.environ["REDIS_URL"].replace("unix://", "redis+socket://"))


@app.task(ignore_result=True, name="nothing")  # type: ignore[untyped-decorator]
def nothing(text: str) -> None:
    """The job."""
    note.take(text)


def send(notes: list[str]) -> None:
    """Queue a job for each note."""
    for text in notes:
        nothing.delay(text)
