"""Huey: `huey_consumer fuze_bench.lab.benchmarks.peers.huey_jobs.huey -k thread -w 1`, once for each process."""

from __future__ import annotations

import os

from huey import RedisHuey

from fuze_bench.lab.benchmarks.peers import note

huey = RedisHuey("empty", url=os.environ["REDIS_URL"], results=False)


@huey.task()  # type: ignore[untyped-decorator]
def nothing(text: str) -> None:
    """The job."""
    note.take(text)


def send(notes: list[str]) -> None:
    """Queue a job for each note."""
    for text in notes:
        nothing(text)
