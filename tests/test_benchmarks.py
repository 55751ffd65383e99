"""`fuze-bench bench`: contenders in turn, honest ratios, JSON that machines can rely on."""

from __future__ import annotations

import json
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from benchmark_results import found
from click.testing import CliRunner

from fuze_bench.cli import app
from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks import (
    empty_jobs,
    extraction,
    peer_queues,
    redis_cost,
    result,
    running,
    side_by_side,
    start,
)
from fuze_bench.lab.benchmarks.known import BENCHMARKS, blocks_of
from fuze_bench.lab.benchmarks.result import BenchmarkResult
from fuze_bench.lab.benchmarks.side_by_side import Agreement, BenchmarkRatio, Target
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE


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
    agreements = [
        Agreement("lowest cosine", "encode", 0.99951, 0.999),
        Agreement("same title", "theirs", 0.97, 0.98),
    ]
    made = found(*(each.as_ratio() for each in agreements))
    assert made.in_words().splitlines() == [
        "ours: 400 pages/s",
        "lowest cosine against encode: 0.99951, target 0.999: holds",
        "same title against theirs: 0.97, target 0.98: missed",
        "Said.",
    ]
    row = made.as_plain()["ratios"][1]
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
    text = found(reached, missed, shown).in_words()
    assert "target 4: holds" in text
    assert "target 5: missed" in text


def test_a_limit_of_which_nothing_can_be_said_is_named() -> None:
    targets = [Target("ours", "theirs", 2), Target("ours", "absent", at_most=3), Target("ours", "unseen")]
    found = side_by_side.ratios({"ours": {0: 4.0}, "theirs": {0: 1.0}}, targets)
    assert side_by_side.not_judged(found, targets) == [
        "Not judged, for want of a figure: ours against absent."
    ]
    assert side_by_side.not_judged(found, targets[:1]) == []
    below = side_by_side.ratios({"ours": {0: -4.0}, "theirs": {0: 1.0}}, targets)
    assert "ours against theirs" in side_by_side.not_judged(below, targets)[0]


@pytest.fixture(autouse=True)
def results_in_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZE_DATA_DIR", str(tmp_path / "data"))


def measured(name: str, scale: float) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """What one block of the benchmark gives as JSON, by what is compared, and what it said meanwhile."""
    done = CliRunner().invoke(app, ["bench", name, "--blocks", "1", "--scale", str(scale), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["benchmark"] == name
    assert report["machine"]["cores"]
    [kept], problems = result.recorded(running.results_folder())
    assert (kept.as_plain(), problems) == (report, [])
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


def test_what_fails_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over before anything that works."""
    with pytest.raises(LabError, match=r"`python -m no_such_module` ended with code 1: run it by itself"):
        start._took_s(["-m", "no_such_module"])
    monkeypatch.setattr(start, "_LIMIT_S", 0)
    with pytest.raises(LabError, match=r"the first bookmark was not processed \(failed: 0, .* limit: 0 s\)"):
        start._first_s()
    broken = peer_queues.Peer("no_such_queue", (), 1, "key")
    with pytest.raises(
        LabError, match=r"no_such_queue cannot be given its jobs \(ModuleNotFoundError: .*no_jobs"
    ):
        peer_queues._send(broken, 1, "warm", dict(os.environ))


def test_the_fastest_of_the_others_is_one_of_them_in_every_block() -> None:
    figures = {"batch": {0: 1.0}, "Huey": {0: 5.0, 1: 2.0, 2: 6.0}, "Taskiq": {0: 4.0, 1: 4.0, 2: 4.0}}
    assert empty_jobs.derived(figures) == {empty_jobs.FASTEST: figures["Huey"]}
    assert empty_jobs.derived({"batch": {0: 1.0}}) == {}
    assert empty_jobs.sentences(figures) == ["Not installed, so not compared with: Dramatiq, Celery."]


def test_what_a_job_costs_redis_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = redis_cost.contenders(0.05)
    del chosen["SimpleWorker"]  # as `rq worker` but for the forks
    monkeypatch.setattr(redis_cost, "contenders", lambda _scale: chosen)
    by_pair, said = measured("redis-cost", 0.05)
    pairs = {(target.what, target.against) for target in redis_cost.TARGETS}
    assert set(by_pair) == {pair for pair in pairs if not pair[1].startswith("SimpleWorker")}
    # The same keys are left behind, by a fraction of the commands and bytes.
    for state in ("waiting", "finished", "failed"):
        of_ours = by_pair[f"batch: memory of a {state} job", f"rq worker: memory of a {state} job"]
        assert of_ours["ratio"] == pytest.approx(1, abs=0.1), state
    of_bookmark = by_pair["bookmark, batch: memory of a waiting job", "batch: memory of a waiting job"]
    assert of_bookmark["ratio"] > 1.1
    for what in ("commands", "bytes to Redis", "bytes from Redis"):
        assert by_pair[f"batch: {what} a job", f"rq worker: {what} a job"]["ratio"] < 0.6, what
    [[report], _] = result.recorded(running.results_folder())
    figures = {each.what: each for each in report.figures}
    assert 40 < figures["rq worker: commands a job"].median < 90
    waiting, finished = (
        figures[f"rq worker: memory of a {state} job"].median for state in ("waiting", "finished")
    )
    assert 500 < waiting < finished < 20_000
    held = re.search(
        r"256 MB Redis holds ([\d,]+) waiting, .* empty jobs \(rq worker", "\n".join(report.sentences)
    )
    assert held is not None
    assert int(held[1].replace(",", "")) == pytest.approx(2**28 / waiting, rel=0.1)
    assert "block 1 of 1: batch" in said


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


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    ratio = BenchmarkRatio("ours", "theirs", 2.0, 1.9, 2.1, 1.5, True)
    kept = [found(ratio, benchmark="backlog"), found(ratio, ratio, scale=0.1)]
    for each in kept:
        result.record(each, tmp_path / "kept")
    assert result.recorded(tmp_path / "kept") == (kept, [])
    assert [each.is_first_look for each in kept] == [False, True]
    assert result.recorded(tmp_path / "none") == ([], [])
    for blocks, is_first in ((1, True), (2, False)):  # it counts, and does not time
        assert found(benchmark="redis-cost", blocks=blocks).is_first_look == is_first
    assert blocks_of("backlog") == BLOCKS_TO_CONCLUDE


def test_a_first_look_replaces_no_whole_measurement(tmp_path: Path) -> None:
    ratio = BenchmarkRatio("ours", "theirs", 2.0, 1.9, 2.1, 1.5, True)
    first, whole = found(ratio, blocks=2, scale=0.05), found(ratio)
    second = found(ratio, took_s=70.0)
    path = tmp_path / "replay.json"
    for each, kept in ((first, first), (whole, whole), (first, whole), (second, second)):
        said = result.record(each, tmp_path)
        assert result.recorded(tmp_path) == ([kept], [])
        is_kept = each is kept
        assert said == f"recorded in {path}" or not is_kept
        assert is_kept or said.startswith(
            "not recorded: a first look does not replace the measurement of 2026-01-02"
        )
    path.write_text("{")
    result.record(first, tmp_path)
    assert result.recorded(tmp_path) == ([first], [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 99}'])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "start.json").write_text(text)
    results, [problem] = result.recorded(tmp_path)
    assert results == []
    assert re.search(r"^start\.json .*run `fuze-bench bench start` again", problem)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"machine": None}, "machine is None"),
        ({"ratios": [{}]}, "what"),
        ({"figures": [{"what": 1}]}, "what is 1"),
    ],
)
def test_what_no_page_can_be_made_of_is_named(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    (tmp_path / "start.json").write_text(json.dumps({**found(benchmark="start").as_plain(), **changed}))
    results, [problem] = result.recorded(tmp_path)
    assert results == []
    assert re.search(
        rf"^start\.json is no benchmark's result \(.*{named}.*run `fuze-bench bench start`", problem
    )


def test_several_in_turn_keep_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails is said and not kept, the others are; Ctrl-C keeps those before; the next time tells how long."""
    calls: list[str] = []

    def run_benchmark(name: str, **_given: Any) -> BenchmarkResult:
        calls.append(name)
        if name == "memory":
            raise LabError("no memory today")
        if name == "start" and calls.count("start") == 2:
            raise KeyboardInterrupt
        return found(benchmark=name)

    monkeypatch.setattr(running, "run_benchmark", run_benchmark)
    folder = running.results_folder()

    def invoke(*names: str) -> Any:
        return CliRunner().invoke(app, ["bench", *names, "--json"])

    first = invoke("backlog", "memory", "start")
    assert [each["benchmark"] for each in json.loads(first.stdout)] == ["backlog", "start"]
    assert "benchmark 2 of 3: memory" in first.stderr
    assert "memory failed: no memory today" in first.stderr
    assert isinstance(first.exception, LabError)
    assert str(first.exception).startswith("memory could not be measured")
    assert [each.benchmark for each in result.recorded(folder)[0]] == ["backlog", "start"]
    for path in folder.iterdir():
        path.unlink()
    second = invoke("backlog", "start")
    assert second.exit_code == 1
    assert [each.benchmark for each in result.recorded(folder)[0]] == ["backlog"]
    result.record(
        found(benchmark="quick-save", blocks=1, took_s=6_000.0), folder
    )  # six blocks take longer than one
    third = invoke("all")
    assert calls[5:] == sorted(BENCHMARKS)
    assert f"benchmark 1 of {len(BENCHMARKS)}: backlog; about {len(BENCHMARKS)} min left" in third.stderr


@pytest.mark.parametrize(("name", "scale"), [("quick-save", "0.1"), ("backlog", "0.02")])
def test_a_benchmark_has_the_figures_that_it_asks_for(name: str, scale: str) -> None:
    done = CliRunner().invoke(app, ["bench", name, "--blocks", "1", "--scale", scale, "--json"])
    assert done.exit_code == 0, done.output
    module = import_module(f"fuze_bench.lab.benchmarks.{name.replace('-', '_')}")
    found = {(each["what"], each["against"]): each["ratio"] for each in json.loads(done.stdout)["ratios"]}
    # A p99 wants a thousand answers, which take longer.
    expected = {(target.what, target.against) for target in module.TARGETS if "p99" not in target.what}
    assert expected <= set(found)
    left_out = {f"{each.what} against {each.against}" for each in module.TARGETS} - {
        " against ".join(each) for each in found
    }
    said = " ".join(json.loads(done.stdout)["sentences"])
    assert all(each in said for each in left_out)
    assert ("Not judged" in said) == bool(left_out)
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
