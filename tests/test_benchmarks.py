"""`fuze-bench bench`: contenders in turn, honest ratios, JSON that machines can rely on."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest
from click.testing import CliRunner

from fuze_bench.cli import app
from fuze_bench.lab.benchmarks import empty_jobs, extraction, side_by_side
from fuze_bench.lab.benchmarks.side_by_side import Agreement, Target


def test_every_block_measures_each_contender_once_in_an_order_of_its_own() -> None:
    calls: list[str] = []

    def contender(name: str) -> side_by_side.Measure:
        return lambda: calls.append(name) or float(len(calls))  # type: ignore[func-returns-value]

    said: list[str] = []
    names = ["one", "two", "three"]
    figures = side_by_side.measure_in_turn({n: contender(n) for n in names}, 8, 3, said.append)
    blocks = [calls[first : first + 3] for first in range(0, len(calls), 3)]
    assert [sorted(block) for block in blocks] == [sorted(names)] * 8
    assert len({tuple(block) for block in blocks}) > 1
    assert figures["two"] == {n: 3.0 * n + block.index("two") + 1 for n, block in enumerate(blocks)}
    assert len(said) == 24
    assert "block 8 of 8" in said[-1]


def test_each_measurement_says_how_long_the_rest_will_take() -> None:
    now_s = 0.0

    def contender(takes_s: float) -> side_by_side.Measure:
        def measure() -> float:
            nonlocal now_s
            now_s += takes_s
            return 1.0

        return measure

    said: list[str] = []
    side_by_side.measure_in_turn(
        {"quick": contender(10), "slow": contender(30)}, 2, 1, said.append, lambda: now_s
    )
    first_s = 30 if "slow" in said[0] else 10
    assert said[0].endswith(f"; about {3 * first_s} s left")
    assert said[1].endswith("; about 40 s left")
    assert said[2].endswith(f"; about {30 if 'quick' in said[2] else 10} s left")
    assert "left" not in said[3]


def test_an_agreement_is_a_row_without_an_interval() -> None:
    found = [
        Agreement("lowest cosine", "encode", 0.99951, 0.999),
        Agreement("same title", "theirs", 0.97, 0.98),
    ]
    text = side_by_side.in_words({}, [], "pages/s", found)
    assert text.splitlines() == [
        "lowest cosine against encode: 0.99951, target 0.999: holds",
        "same title against theirs: 0.97, target 0.98: missed",
    ]
    row = side_by_side.as_plain("one", {}, [], found)["ratios"][1]
    assert row == {
        "what": "same title",
        "against": "theirs",
        "ratio": 0.97,
        "low": None,
        "high": None,
        "target": 0.98,
        "holds": False,
    }


def test_words_overlap_as_often_as_they_stand_there() -> None:
    assert extraction.word_overlap("a b b c", "b, a\nb d") == pytest.approx(6 / 8)
    assert extraction.word_overlap("same words", "words same") == 1
    assert extraction.word_overlap("", "word") == 0


def test_ratios_are_taken_within_blocks() -> None:
    """A machine that is ten times slower in one block changes nothing."""
    figures = {"ours": {0: 400.0, 1: 40.0, 2: 440.0}, "theirs": {0: 100.0, 1: 10.0, 2: 100.0}}
    reached, missed, shown = side_by_side.ratios(
        figures, [Target("ours", "theirs", 4), Target("ours", "theirs", 5), Target("theirs", "ours")]
    )
    assert reached.ratio == pytest.approx((4 * 4 * 4.4) ** (1 / 3))
    assert reached.low is not None
    assert reached.low < reached.ratio
    assert (reached.holds, missed.holds, shown.holds) == (True, False, None)
    text = side_by_side.in_words(figures, [reached, missed, shown], "pages/s")
    assert "ours: 400 pages/s" in text
    assert "target 4: holds" in text
    assert "target 5: missed" in text


def measured(name: str, scale: float) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """What one block of the benchmark gives as JSON, by what is compared, and what it said meanwhile."""
    done = CliRunner().invoke(app, ["bench", name, "--blocks", "1", "--scale", str(scale), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["benchmark"] == name
    assert report["machine"]["cores"]
    return {(each["what"], each["against"]): each for each in report["ratios"]}, done.stderr


@pytest.mark.xdist_group("model")
def test_embedding_for_real() -> None:
    found, said = measured("embedding", 0.1)
    assert set(found) == {("pipeline", "encode"), ("lowest cosine", "encode")}
    cosine = found["lowest cosine", "encode"]
    assert (cosine["target"], cosine["holds"], cosine["low"]) == (0.999, True, None)
    assert cosine["ratio"] <= 1.00001
    assert "block 1 of 1: encode" in said


def test_extraction_for_real() -> None:
    found, said = measured("extraction", 0.1)
    agreements = {"same title", "same date", "word overlap"}
    assert set(found) == {(what, "bare_extraction") for what in {"pipeline", *agreements}}
    for what in agreements:
        assert found[what, "bare_extraction"]["holds"], found[what, "bare_extraction"]
    assert "block 1 of 1: pipeline" in said


def test_empty_jobs_for_real() -> None:
    by_pair, said = measured("empty-jobs", 0.02)
    assert set(by_pair) == {(target.what, target.against) for target in empty_jobs.TARGETS}
    assert set(by_pair["batch", "rq worker"]) == {
        "what",
        "against",
        "ratio",
        "low",
        "high",
        "target",
        "holds",
    }
    assert by_pair["batch", "rq worker"]["ratio"] > 1
    assert "block 1 of 1: batch" in said


@pytest.mark.parametrize(("name", "scale"), [("quick-save", "0.1"), ("backlog", "0.02")])
def test_a_benchmark_has_the_figures_that_it_asks_for(name: str, scale: str) -> None:
    done = CliRunner().invoke(app, ["bench", name, "--blocks", "1", "--scale", scale, "--json"])
    assert done.exit_code == 0, done.output
    module = import_module(f"fuze_bench.lab.benchmarks.{name.replace('-', '_')}")
    found = {(each["what"], each["against"]): each["ratio"] for each in json.loads(done.stdout)["ratios"]}
    # A p99 wants a thousand answers, which take longer.
    expected = {(target.what, target.against) for target in module.TARGETS if "p99" not in target.what}
    assert expected <= set(found)
    assert all(ratio > 0 for ratio in found.values())


def test_a_target_may_be_a_least_or_a_most() -> None:
    least, most, none = Target("a", "b", at_least=2), Target("a", "b", at_most=2), Target("a", "b")
    assert [least.holds(ratio) for ratio in (1.9, 2.0)] == [False, True]
    assert [most.holds(ratio) for ratio in (2.0, 2.1)] == [True, False]
    assert none.holds(1.0) is None


def test_the_replay_of_200_000_jobs_takes_well_under_a_second() -> None:
    done = CliRunner().invoke(app, ["bench", "replay", "--blocks", "2", "--scale", "0.1", "--json"])
    assert done.exit_code == 0, done.output
    found = {each["what"]: each for each in json.loads(done.stdout)["ratios"]}
    assert {name: each["target"] for name, each in found.items()} == {
        "one queue": 2,
        "three queues, strict": 2,
        "three queues, random": None,
    }
    # Beside other tests: the benchmark by itself finds several times as much.
    assert all(each["ratio"] > 1 for each in found.values()), found
