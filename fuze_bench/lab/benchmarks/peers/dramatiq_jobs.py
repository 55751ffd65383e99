"""Dramatiq: `dramatiq fuze_bench.lab.benchmarks.peers.dramatiq_jobs --processes 2 --threads 5`."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from fuze_bench.lab.benchmarks.peers import note

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))  # type: ignore[no-untyped-call]


@dramatiq.actor
def nothing(text: str) -> None:
    """The job."""
    note.take(text)


def send(notes: list[str]) -> None:
    """Queue a job for each note."""
    for text in notes:
        nothing.send(text)
