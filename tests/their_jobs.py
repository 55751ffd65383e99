"""Jobs as somebody else has them, who knows nothing of this project."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from rq import Retry, get_current_job


def note(path: str, *, text: str = "") -> bytes:
    """Returns what JSON does not have."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return b"noted"


async def note_later(path: str, text: str) -> None:
    await asyncio.sleep(0.001)
    note(path, text=text)


def fail(words: str) -> None:
    raise ValueError(words)


def try_again_once(path: str) -> Retry | None:
    was_tried = Path(path).exists()
    note(path, text="tried")
    return None if was_tried else Retry(max=1)


def rest(seconds: float) -> None:
    time.sleep(seconds)


def end_the_process() -> None:
    os._exit(3)


class Shop:
    @staticmethod
    def who() -> None:
        job = get_current_job()
        assert job is not None
        if not job.id.startswith("job-"):
            raise ValueError(job.id)


NOT_A_FUNCTION = 5
