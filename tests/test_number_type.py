"""What the model computes with: measured, never worse than float32, and found without harm to the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from fuze_bench.pipeline import number_type
from fuze_bench.pipeline.number_type import NumberType, in_a_fork, known_beforehand, measured

NORTH, NEARLY_NORTH, NORTH_EAST = ([0.0, 1.0], [0.0141, 0.9999], [0.7071, 0.7071])


class Model:
    """Embeds two texts, and takes as many rounds of arithmetic for it as it is told; another way after `convert`."""

    def __init__(self, rounds: int, rounds_then: int, vector_then: list[float]) -> None:
        self.rounds, self.vector = rounds, NORTH
        self._then = rounds_then, vector_then

    def convert(self) -> None:
        self.rounds, self.vector = self._then

    def embed(self) -> NDArray[np.float32]:
        for number in range(self.rounds):
            _ = number * number
        return np.array([NORTH, self.vector], dtype=np.float32)


@pytest.mark.parametrize(
    ("rounds_then", "vector_then", "name", "why"),
    [
        (20_000, NEARLY_NORTH, "bfloat16", "times as fast as float32, cosine 0.9999"),
        (2_000_000, NEARLY_NORTH, "float32", "bfloat16 takes "),
        (20_000, NORTH_EAST, "float32", "bfloat16 has a cosine of 0.7071 to it"),
    ],
    ids=["faster and alike", "slower", "faster and unlike"],
)
def test_the_better_one_is_taken(rounds_then: int, vector_then: list[float], name: str, why: str) -> None:
    model = Model(200_000, rounds_then, vector_then)
    found = measured(model.embed, model.convert)
    assert found.name == name
    assert why in found.why


@pytest.mark.parametrize(
    ("processor", "is_known"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile\n", False),
        ("processor : 0\nFeatures\t: fp asimd bf16 sve\n", False),
        ("flags\t\t: fpu avx512f avx512_vbmi\nmodel name : an amx_bf16 emulator\n", True),
        (None, True),
    ],
)
def test_a_processor_without_bfloat16_is_not_tried(
    processor: str | None, is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    if processor is not None:
        told.write_text(processor)
    monkeypatch.setattr(number_type, "_PROCESSOR", told)
    expected = NumberType("float32", "this processor has no bfloat16") if is_known else None
    assert known_beforehand("auto") == expected
    assert known_beforehand("bfloat16") == NumberType("bfloat16", "set by FUZE_EMBEDDING_DTYPE")


def _fails() -> NumberType:
    raise RuntimeError("an illegal instruction\nat all")


def _is_killed() -> NumberType:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize(
    ("measure", "found"),
    [
        (lambda: NumberType("bfloat16", "fast"), NumberType("bfloat16", "fast")),
        (
            _fails,
            NumberType("float32", "bfloat16 could not be tried: RuntimeError: an illegal instruction at all"),
        ),
        (_is_killed, NumberType("float32", "bfloat16 could not be tried: no answer")),
    ],
    ids=["well", "fails", "dies"],
)
def test_a_fork_measures_and_is_gone(measure: Callable[[], NumberType], found: NumberType) -> None:
    before = psutil.Process().children()
    assert in_a_fork(measure) == found
    assert psutil.Process().children() == before


def test_a_fork_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_type, "_FORK_TAKES_AT_MOST_S", 0.1)
    before = psutil.Process().children()
    found = in_a_fork(lambda: signal.pause() or NumberType("bfloat16", "late"))
    assert found == NumberType("float32", "bfloat16 could not be tried: no answer")
    assert psutil.Process().children() == before
