"""Threads of a worker share one heap: what they free is not kept for each of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Counts the heaps that glibc has after four threads have asked it for memory at the same time.
PROGRAM = """
import ctypes, sys, threading
from fuze_bench.processes import keep_one_heap
if "one" in sys.argv:
    keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
everybody = threading.Barrier(4)
def ask():
    everybody.wait()
    libc.malloc(5000)
    everybody.wait()
threads = [threading.Thread(target=ask) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("arguments", "is_one"), [(["one"], True), ([], False)])
def test_threads_share_one_heap(arguments: list[str], is_one: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert (ran.stdout.count("<heap nr=") == 1) is is_one
