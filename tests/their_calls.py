"""Jobs of somebody else's, as small as they can be: what RQ workers are put through in tests."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import signal
import time
from pathlib import Path

import psutil
from rq import Retry, get_current_job

from fuze_bench.pipeline.process import current_pipeline


def nothing() -> None:
    """The empty job."""


def add(a: int, b: int = 1) -> int:
    return a + b


async def later(value: int) -> int:
    return value


def fail(text: str = "no") -> None:
    raise ValueError(text)


def leave() -> None:
    raise SystemExit(3)


def again(times: int) -> Retry:
    return Retry(max=times)


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def exit_at_once(code: int = 7) -> None:
    os._exit(code)


def segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    ctypes.string_at(0)


def hang_in_c(*_: object) -> None:
    """A lock taken twice: no signal interrupts that."""
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    for _time in range(2):
        libc.pthread_mutex_lock(mutex)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def swallow_everything(seconds: float) -> str:
    """A library that takes a time limit for an ordinary error."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(Exception):
            time.sleep(seconds)
    return "late"


def who() -> str:
    job = get_current_job()
    assert job is not None
    job.meta["seen"] = True
    job.save_meta()
    return f"{job.id} {job.origin}"


def write_line(path: str, line: str) -> None:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def write_line_slowly(path: str, line: str) -> None:
    time.sleep(0.01)
    write_line(path, line)


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def note_and_wait(path: str, until: str) -> None:
    write_line(path, "running")
    wait_for(until)


def unserialisable() -> object:
    return lambda: None


def note_success(job: object, _connection: object, result: object) -> None:
    write_line(os.environ["NOTES"], f"success {result}")


def note_failure(job: object, _connection: object, kind: type, *_rest: object) -> None:
    write_line(os.environ["NOTES"], f"failure {kind.__name__}")


def note_stopped(job: object, _connection: object) -> None:
    write_line(os.environ["NOTES"], "stopped")


class Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    def up(self, by: int) -> int:
        return self.start + by


def embed_and_note(path: str, ends: bool) -> None:
    """What the pipeline does first with torch in a fork; then the process ends, if it is told so."""
    import torch

    [vector] = current_pipeline().embedder.embed(["A train in the morning."])
    write_line(path, f"{os.getpid()}:{torch.get_num_threads()}:{vector @ vector:.3f}")
    if ends:
        exit_at_once()


_kept: list[bytes] = []


def fill_the_heap() -> int:
    """Memory in use with 50 MB in pieces, of which the last is kept, so that the heap cannot shrink by itself."""
    pieces = [bytes([n % 256]) * 50_000 for n in range(1_000)]
    _kept.append(pieces[-1])
    return int(psutil.Process().memory_info().rss)
