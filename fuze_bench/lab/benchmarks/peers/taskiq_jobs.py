"""Taskiq: `taskiq worker fuze_bench.lab.benchmarks.peers.taskiq_jobs:broker --workers 2`."""

from __future__ import annotations

import asyncio
import os

from taskiq_redis import ListQueueBroker

from fuze_bench.lab.benchmarks.peers import note

broker = ListQueueBroker(url=os.environ["REDIS_URL"])


@broker.task("nothing")
async def nothing(text: str) -> None:
    """The job."""
    note.take(text)


async def _send(notes: list[str]) -> None:
    await broker.startup()
    for text in notes:
        await nothing.kiq(text)
    await broker.shutdown()


def send(notes: list[str]) -> None:
    """Queue a job for each note."""
    asyncio.run(_send(notes))
