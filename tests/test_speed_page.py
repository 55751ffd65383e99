"""The page on speed: what is recorded and nothing else, with each target drawn as the limit that it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_results import found
from click.testing import CliRunner

from fuze_bench.cli import app
from fuze_bench.errors import LabError
from fuze_bench.lab.benchmarks import result
from fuze_bench.lab.benchmarks.known import BENCHMARKS
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio
from fuze_bench.lab.report import build, speed_page, speed_plots
from fuze_bench.lab.report.findings import Findings

HOLDS = BenchmarkRatio("batch", "rq worker", 120.0, 110.0, 131.0, 100.0, True)
MISSED = BenchmarkRatio("ours, p99", "empty, p99", 7.0, 6.5, 7.5, 4.0, False)
SHOWN = BenchmarkRatio("batch", "simple", 12.5, 11.0, 14.0, None, None)
ALIKE = BenchmarkRatio("lowest cosine", "encode", 0.99951, None, None, 0.999, True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FUZE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "benchmarks"


def speed(folder: Path) -> tuple[str, str]:
    """What the command says, and the page without its styles and pictures."""
    done = CliRunner().invoke(app, ["speed", "--out", str(folder.parent / "out")])
    assert done.exit_code == 0, done.output
    page = (folder.parent / "out" / "speed.html").read_text()
    return done.stdout, re.sub(r"<style>.*?</style>|data:image/png;base64,[^\"]*", "", page, flags=re.DOTALL)


def test_where_nothing_is_recorded_it_says_which_commands_to_run(folder: Path) -> None:
    said, page = speed(folder)
    assert "No benchmark has been recorded yet." in said
    assert "<img" not in page
    assert "index.html" not in page  # which is not there
    for name in (*BENCHMARKS, "all"):
        assert f"fuze-bench bench {name}<" in page


def test_it_shows_what_is_recorded_and_asks_for_the_rest(folder: Path) -> None:
    made = [
        found(HOLDS, SHOWN, benchmark="empty-jobs"),
        found(MISSED, ALIKE, benchmark="quick-save", blocks=2),
    ]
    for each in made:
        result.record(each, folder)
    (folder / "start.json").write_text("{")
    said, page = speed(folder)
    only_a_look = "1 of them only in a first look, which shows no target to hold"
    assert f"2 of {len(BENCHMARKS)} benchmarks are recorded; {only_a_look}; 1 of 1 targets hold." in said
    assert page.count("<img") == 2
    assert "The target holds." in page
    assert "Exploratory: 1 of 2 targets hold." in page
    assert "ours, p99 against empty, p99: 7 (95 % 6.5 to 7.5), target 4: missed" in page
    for text in ("at least 100", "at most 4", "at least 0.999", "110 to 131", "0.99951"):
        assert f"<td>{text}</td>" in page, text
    assert page.count("A first look") == 1
    assert "start.json is no benchmark&#39;s result" in page
    assert "fuze-bench bench start<" in page
    assert "fuze-bench bench quick-save<" not in page
    kept = json.loads((folder.parent / "out" / "speed.json").read_text())
    assert kept == [each.as_plain() for each in made]


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    with pytest.raises(
        LabError, match=r"index\.html cannot be written \(.*: choose another folder with --out"
    ):
        build.write_pages(Findings((), None, "nothing was measured"), tmp_path, "tiny", None)


def test_what_has_no_target_is_recorded_all_the_same(folder: Path) -> None:
    result.record(found(SHOWN, benchmark="redis-cost"), folder)
    assert speed(folder)[0].endswith(f": 1 of {len(BENCHMARKS)} benchmarks is recorded.\n")


def test_a_target_is_a_limit_on_one_side() -> None:
    assert [speed_plots.is_least(each) for each in (HOLDS, MISSED, ALIKE, SHOWN)] == [
        True,
        False,
        True,
        False,
    ]
    plot = speed_plots.ratios(found(HOLDS, MISSED, SHOWN))
    assert len(plot.figure.axes) == 2  # what has no target is in the table alone
    for axes, ratio, beyond in zip(plot.figure.axes, (HOLDS, MISSED), ("left", "right"), strict=True):
        assert ratio.target is not None
        limits = [line for line in axes.get_lines() if list(line.get_xdata()) == [ratio.target] * 2]
        assert len(limits) == 1
        [shaded] = [patch for patch in axes.patches if patch.get_alpha() == 0.1]
        ends = shaded.get_extents().transformed(axes.transData.inverted())
        assert (ends.x1 if beyond == "left" else ends.x0) == pytest.approx(ratio.target)
        low, high = axes.get_xlim()
        assert low < min(ratio.ratio, ratio.target)
        assert max(ratio.ratio, ratio.target) < high
    assert "batch against rq worker: 120 (at least 100 is wanted)" in plot.description


def test_an_axis_over_decades_is_logarithmic_and_ends_near_what_it_is_about() -> None:
    wide = BenchmarkRatio("batch", "rq worker", 5.0, 0.001, 25_000.0, 100.0, False)
    [axes] = speed_plots.ratios(found(wide)).figure.axes
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert 0.5 < low < 5 < 100 < high < 1_000
    [narrow] = speed_plots.ratios(found(ALIKE)).figure.axes
    assert narrow.get_xscale() == "linear"
    [without] = speed_plots.ratios(found(SHOWN)).figure.axes
    assert without.get_xlim()[0] < 1 < 12.5 < without.get_xlim()[1]


def test_results_of_benchmarks_that_are_gone_are_left_out(folder: Path) -> None:
    result.record(found(HOLDS, benchmark="gone"), folder)
    assert speed_page.read(folder).results == ()
