"""Which numbers the model computes with: bfloat16 where that is measured to be faster and as good, else float32."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fuze_bench.errors import one_line
from fuze_bench.pipeline.settings import EMBEDDING_DTYPES
from fuze_bench.processes import die_with_parent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUTO, FLOAT32, BFLOAT16 = EMBEDDING_DTYPES

#: Vectors that are less alike than this would change what is found near to what.
_LOWEST_COSINE = 0.999
_REPEATS = 2
_FORK_TAKES_AT_MOST_S = 30.0
#: Long enough for the model to have something to do, short enough to take it hundredths of a second.
TEXTS = (
    "Whoever saves a page wants to find it again among many others, by what it is about and not by how it is called.",
    "The cook lets onions, carrots and celery simmer for two hours, takes off the fat, and salts the broth at the end.",
)

_PROCESSOR = Path("/proc/cpuinfo")
#: What Linux calls it, on x86 and on ARM.
_FLAGS = re.compile(r"^(?:flags|Features)\s*:.*\b(?:avx512_bf16|amx_bf16|bf16)\b", re.MULTILINE)

#: Embeds the texts: (n, d) float32 of unit length.
Embed = Callable[[], "NDArray[np.float32]"]


@dataclass(frozen=True)
class NumberType:
    """`name` is `float32` or `bfloat16`, `why` a few words for people."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def known_beforehand(wanted: str) -> NumberType | None:
    """What there is nothing to measure about; None if it is to be measured."""
    if wanted != AUTO:
        return NumberType(wanted, "set by FUZE_EMBEDDING_DTYPE")
    if not _processor_has_bfloat16():
        return NumberType(FLOAT32, "this processor has no bfloat16")
    return None


def _processor_has_bfloat16() -> bool:
    """As Linux tells; where nobody tells, it is not taken for granted: without, it is far slower than float32."""
    try:
        return _FLAGS.search(_PROCESSOR.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False


def measured(embed: Embed, convert: Callable[[], object]) -> NumberType:
    """Whichever is better: what `embed` does at first, in float32, or what it does after `convert`, in bfloat16."""
    exact, exact_s = _best(embed)
    convert()
    rounded, rounded_s = _best(embed)
    cosine = float((exact * rounded).sum(axis=1).min())
    if cosine < _LOWEST_COSINE:
        return NumberType(FLOAT32, f"bfloat16 has a cosine of {cosine:.4f} to it")
    if rounded_s >= exact_s:
        return NumberType(FLOAT32, f"bfloat16 takes {rounded_s / exact_s:.2f} times as long")
    return NumberType(BFLOAT16, f"{exact_s / rounded_s:.1f} times as fast as float32, cosine {cosine:.5f}")


def _best(embed: Embed) -> tuple[NDArray[np.float32], float]:
    """The vectors, and the processor time of the quickest run after the first: others may want the processor, too."""
    vectors, took_s = embed(), []
    for _ in range(_REPEATS):
        began_s = time.thread_time()
        embed()
        took_s.append(time.thread_time() - began_s)
    return vectors, min(took_s)


def in_a_fork(measure: Callable[[], NumberType]) -> NumberType:
    """What `measure` finds in a fork of this process, which thus runs nothing itself; float32 if it fails there."""
    reader, writer = os.pipe()
    parent, pid = os.getpid(), os.fork()
    if not pid:
        try:
            die_with_parent(signal.SIGKILL, parent)
            os.write(writer, json.dumps(asdict(measure())).encode())
        except BaseException as error:  # noqa: BLE001 - the fork ends here, and its parent must know why
            os.write(writer, json.dumps({"problem": f"{type(error).__name__}: {one_line(error)}"}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        told = os.read(reader, 65_536) if select.select([reader], [], [], _FORK_TAKES_AT_MOST_S)[0] else b""
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
    found = json.loads(told or '{"problem": "no answer"}')
    if "problem" in found:
        return NumberType(FLOAT32, f"bfloat16 could not be tried: {found['problem'][:200]}")
    return NumberType(**found)
