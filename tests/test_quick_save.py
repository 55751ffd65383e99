"""What quick-save takes, from searches recorded by hand: which rates held, why not, the knees, the answer, the plots."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from notebook_runs import run_notebook
from quick_save_runs import SEARCH, Save, searched_run, some_late, steps_at, tried, write_run

from fuze_bench.errors import LabError
from fuze_bench.lab.judgement.tables import GROWS, TOO_FEW, show
from fuze_bench.lab.questions.plots import LOOKS
from fuze_bench.lab.questions.quick_save import (
    WAYS,
    Search,
    attempts_table,
    how_much_it_takes,
    knees,
    knees_table,
    windows_table,
)
from fuze_bench.lab.questions.quick_save_plots import goodput, latency
from fuze_bench.lab.questions.quick_save_search import search_knees
from fuze_bench.lab.runs.results import Run, load_run
from fuze_bench.pipeline.settings import Settings

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quick_save_load.ipynb"

#: The rate that each way holds in `three_ways`.
KNEES_PER_S = {"inline": 5.0, "thread": 30.0, "rq": 75.0}
LATE = {"late_ms": 300.0}


@pytest.fixture(scope="module")
def three_ways(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search of each way, to its end."""
    answers = {mode: steps_at(mode, knee_per_s) for mode, knee_per_s in KNEES_PER_S.items()}
    return searched_run(tmp_path_factory.mktemp("searched") / "run", answers)


@pytest.mark.parametrize(
    ("saves", "row", "held", "why"),
    [
        (some_late(200, 10), {}, "yes", ""),
        (some_late(200, 11), {}, "no", "94.5 % of the answers came in time"),
        ([Save()] * 198 + [Save(ack_ms=None)] * 2, {}, "yes", ""),
        ([Save()] * 197 + [Save(ack_ms=None)] * 3, {}, "no", "197 of 200 saves were acknowledged"),
        ([Save()] * 197 + [Save(refused=True)] * 3, {}, "no", "197 of 200 saves were acknowledged"),
        # All in time, but 9 ms longer each second: by the window's end a third of the target.
        ([Save(ack_ms=20 + 0.45 * n) for n in range(200)], {}, "no", "answers took longer by 9 ms each second"),
        ([Save(ack_ms=20 + 0.25 * n) for n in range(200)], {}, "yes", ""),
        ([Save(ack_ms=240 - 0.45 * n) for n in range(200)], {}, "yes", ""),
        # The generator was late, and that alone made the answers so.
        ([Save(ack_ms=320, **LATE)] * 200, {}, "unknown", "load generator late: 100 % of 200 sends came more"),
        # It was late, and the server too slow all the same.
        ([Save(ack_ms=600, **LATE)] * 200, {}, "no", "0 % of the answers came in time"),
        # It was late, and the answers were in time nevertheless.
        ([Save(ack_ms=120, late_ms=100)] * 200, {}, "yes", ""),
        ([Save()] * 200, {"sender_ceiling_per_s": 33.0}, "unknown", "load generator saturated: it sent 20 /s, 60.6"),
        ([Save()] * 200, {"sender_ceiling_per_s": 34.0}, "yes", ""),
        ([Save()] * 200, {"status": "failed", "problem": "no Redis"}, "unknown", "the trial failed: no Redis"),
        ([], {}, "unknown", "nothing was offered"),
    ],
    ids=[
        "95 % in time", "fewer in time", "99 % acknowledged", "fewer acknowledged", "refused", "longer and longer",
        "a little longer", "shorter and shorter", "late generator", "late generator and slow server",
        "late generator that does no harm", "saturated generator", "generator below its ceiling", "failed", "nothing",
    ],
)  # fmt: skip
def test_a_rate_holds_or_does_not_or_cannot_be_told_and_why(tmp_path: Path, saves, row, held, why) -> None:
    [found] = attempts_table(write_run(tmp_path / "run", [tried("rq", 20, saves, **row)])).to_dict("records")
    assert found["held"] == held
    assert found["why not"].startswith(why)
    assert bool(found["why not"]) == bool(why)


def test_goodput_stands_beside_throughput_and_what_is_processed_meanwhile(tmp_path: Path) -> None:
    """20 /s for 10 s: a quarter answered too late, the last of them too; half of the pages done before the end."""
    saves = [
        Save(ack_ms=1_050.0 if n % 4 == 3 else 30.0, done_ms=2_000.0 if n < 100 else 60_000.0) for n in range(200)
    ]  # fmt: skip
    few = tried("inline", 5, [Save()] * 49 + [Save(ack_ms=None)])
    table = attempts_table(write_run(tmp_path / "run", [tried("rq", 20, saves), few]))
    found = table.loc["by RQ"]
    assert found["offered /s"] == 20
    assert found["saves"] == 200
    assert found["answered in time /s"] == 15.0
    assert found["answered /s"] == pytest.approx(200 / (199 / 20 + 1.05))
    assert found["stored meanwhile /s"] == 10.0
    assert (found["median, ms"], found["p95, ms"]) == (30.0, 1050.0)
    # 49 answers say nothing of their p95; their number is of those that were to come.
    fewer = table.loc["within the request"]
    assert (fewer["saves"], fewer["median, ms"]) == (50, 20.0)
    assert fewer["answered in time /s"] == 4.9
    assert f"{TOO_FEW}: 200 needed" in show(table).to_html()
    assert list(table["p95, ms"].isna()) == [True, False]


def test_the_knee_of_each_way_is_an_interval_confirmed_at_both_sides(three_ways: Run) -> None:
    found = knees(three_ways)
    assert list(found) == ["inline", "thread", "rq"]
    for mode, knee in found.items():
        assert knee.low_per_s is not None
        assert knee.high_per_s is not None
        assert knee.low_per_s <= KNEES_PER_S[mode] < knee.high_per_s <= 1.09 * knee.low_per_s
        assert knee.is_confirmed
        assert knee.goodput_per_s == pytest.approx(knee.low_per_s, rel=0.02)
        held = {round(each.rate_per_s / (knee.rate_per_s or 0), 6): each.held for each in knee.attempts}
        assert (held[0.9], held[1.1]) == (True, False)
    table = knees_table(three_ways)
    assert list(table["confirmed"]) == ["yes"] * 3
    assert list(table["trials"]) == [len(knee.attempts) for knee in found.values()]
    assert table["trials"].sum() == len(three_ways.trials)
    assert list(table["held up to /s"]) == [knee.low_per_s for knee in found.values()]


def test_the_answer_states_each_knee_and_how_many_times_the_request_itself(three_ways: Run) -> None:
    found, answer = knees(three_ways), how_much_it_takes(three_ways)
    assert answer.sentence.startswith(
        "Exploratory, one search a way; wanted are 95 % of the answers within 250 ms"
    )
    for way, mode in (("within the request", "inline"), ("by threads of the API", "thread"), ("by RQ", "rq")):
        assert f"Processed {way}: the knee lies between " in answer.sentence
        assert f"Processed {way}: {found[mode].sentence}." in answer.sentence
    [threads, rq] = (float(times) for times in re.findall(r"held at least ([\d.]+) times", answer.sentence))
    # From the low end of the one to the high end of the other: no less than that.
    assert 30 / 5 / 1.2 < threads < 30 / 5
    assert 75 / 5 / 1.2 < rq < 75 / 5
    doubts = " ".join(answer.doubts)
    assert "Each rate was held for 10 s" in doubts
    assert "The embedding model was off" in doubts
    assert "not drained" not in doubts.lower(), "nobody waits for that here"


def test_of_a_late_trial_that_the_answer_counts_it_does_not_say_that_it_does_not(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [tried("rq", 8, [Save(ack_ms=120, late_ms=100)] * 80)])
    answer = how_much_it_takes(run)
    assert "Processed by RQ: held up to 8 /s" in answer.sentence
    assert "The load generator was late in trial 1: answers seem slower than they were" in " ".join(
        answer.doubts
    )
    assert "not count" not in " ".join(answer.doubts)


def test_with_the_model_on_that_is_no_doubt(tmp_path: Path) -> None:
    run = searched_run(tmp_path / "run", {"rq": steps_at("rq", 10)}, model="bundled")
    answer = how_much_it_takes(run)
    assert "embedding" not in " ".join(answer.doubts)
    assert "times the rate" not in answer.sentence, "of a way that was not measured nothing is said"


def test_a_search_that_was_cut_short_confirms_nothing(tmp_path: Path) -> None:
    whole = [(8.0, True), (16.0, False), (11.3137085, True)]
    trials = [tried("rq", rate, None if held else some_late(160, 16)) for rate, held in whole]
    knee = knees(write_run(tmp_path / "run", trials))["rq"]
    assert (knee.low_per_s, knee.high_per_s) == (pytest.approx(11.3137085), 16.0)
    assert not knee.is_confirmed
    assert "stopped after 3 trials, as the time was spent" in knee.sentence
    assert "not confirmed at 0.9 and 1.1 times" in knee.sentence


def test_a_knee_that_a_second_look_does_not_bear_out_is_looked_for_again(tmp_path: Path) -> None:
    """The first trial at 8 /s held by chance; 0.9 times the knee shows it, and the search goes on below."""
    asked: list[float] = []

    def answer(rate_per_s: float):
        asked.append(rate_per_s)
        return steps_at("rq", 9.0 if len(asked) < 5 else 6.0)(rate_per_s)

    knee = knees(searched_run(tmp_path / "run", {"rq": answer}))["rq"]
    assert knee.low_per_s is not None
    assert knee.high_per_s is not None
    assert knee.low_per_s <= 6.0 < knee.high_per_s
    assert knee.is_confirmed
    assert min(asked) < 6.0


def test_where_no_trial_counts_nothing_is_said_of_a_knee(tmp_path: Path) -> None:
    def answer(rate_per_s: float):
        return tried("rq", rate_per_s, status="failed", problem="no Redis", holds=None)

    run = searched_run(tmp_path / "run", {"rq": answer})
    [row] = knees_table(run).to_dict("records")
    assert row["confirmed"] == "no"
    assert show(knees_table(run)).to_html().count("–") == 3
    sentence = how_much_it_takes(run).sentence
    assert "Processed by RQ: no rate held" in sentence
    assert "no trial at 8 /s counted" in sentence
    assert set(attempts_table(run)["held"]) == {"unknown"}
    for plot in (latency(run), goodput(run)):
        assert plot.png().startswith(b"\x89PNG")


def test_answers_that_took_longer_and_longer_have_no_quantile(tmp_path: Path) -> None:
    """In the table of a rate that was not held because of that, also where most came too late; and in the plot."""
    growing, steady = ([Save(ack_ms=20 + slope * n) for n in range(400)] for slope in (2.0, 0.0))
    made = [tried("rq", 40, growing), tried("rq", 20, steady)]
    search = replace(SEARCH, start_per_s={"rq": 40.0}, most_trials=2, within=0.09)
    run = write_run(tmp_path / "run", made, search=search)
    table = attempts_table(run).set_index("offered /s")
    assert list(table.loc[40.0, ["held", "median, ms", "p95, ms"]]) == ["no", GROWS, GROWS]
    assert list(table.loc[20.0, ["held", "median, ms", "p95, ms"]]) == ["yes", 20.0, 20.0]
    assert latency(run).png().startswith(b"\x89PNG")


def test_the_quarters_of_a_window_show_whether_answers_took_longer(three_ways: Run, tmp_path: Path) -> None:
    """Of the highest rate that held and the lowest that did not; the worst quarter's median is not the trial's."""
    made = [tried("rq", 20, [Save()] * 200), tried("rq", 40, [Save(ack_ms=20 + 2 * n) for n in range(400)])]
    search = replace(SEARCH, start_per_s={"rq": 20.0}, most_trials=2, within=0.09)
    table = windows_table(write_run(tmp_path / "run", made, search=search))
    quarters = [f"p50 of quarter {n} alone, ms" for n in (1, 2, 3, 4)]
    assert list(table["offered /s"]) == [20.0, 40.0]
    assert list(table["held"]) == ["yes", "no"]
    assert list(table["p50 of all, ms"]) == [20.0, GROWS]
    assert list(table[quarters].iloc[0]) == [20.0] * 4
    # Of a hundred saves the 50th: 20 + 2 × 49, and 200 ms more with each quarter.
    assert list(table[quarters].iloc[1]) == [118.0, 318.0, 518.0, 718.0]
    table = windows_table(three_ways)
    assert list(table.index) == [way for way in WAYS.values() for _ in range(2)]
    # Five saves a second for ten seconds: twelve or thirteen in a quarter.
    assert f"{TOO_FEW}: 20 needed" in show(table).to_html()
    assert table.loc["by RQ", quarters].notna().all(axis=None)


def test_a_save_that_was_lost_is_a_doubt(tmp_path: Path) -> None:
    """Unlike one that was not processed yet when the trial ended, which nobody waits for."""
    at_most = replace(SEARCH, cap_per_s=8.0)
    answers = {"rq": lambda rate: tried("rq", rate, lost=1, drained=True, holds=True)}
    lost = searched_run(tmp_path / "run", answers, at_most)
    assert any(doubt.startswith("Lost (trial") for doubt in how_much_it_takes(lost).doubts)


def test_what_holds_up_to_the_cap_has_no_upper_end(tmp_path: Path) -> None:
    search = replace(SEARCH, cap_per_s=20.0)
    run = searched_run(tmp_path / "run", {"rq": steps_at("rq", 1_000)}, search)
    assert "Processed by RQ: held up to 20 /s, the knee lies above" in how_much_it_takes(run).sentence
    assert _shaded(latency(run).figure.axes[0]) == {}


def test_a_run_that_was_judged_by_other_rules_is_refused(tmp_path: Path, three_ways: Run) -> None:
    run = write_run(tmp_path / "run", [tried("rq", 8), tried("rq", 12)])
    with pytest.raises(LabError, match=r"asks for 16 /s where 12 /s was recorded: .* measure again"):
        knees(run)
    assert Search.of(three_ways) == SEARCH


def test_a_run_without_a_finished_search_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [tried("rq", 8)], search=None)
    with pytest.raises(LabError, match=r"run holds no finished search for a knee \(.*\): measure again$"):
        attempts_table(run)


def test_latency_is_drawn_against_the_rate_with_target_and_knees(three_ways: Run) -> None:
    plot, table = latency(three_ways), attempts_table(three_ways)
    [axes] = plot.figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert list(_line(axes, "within this").get_ydata()) == [250.0, 250.0]
    for way in set(table.index):
        median = _line(axes, f"{way}: median")
        drawn = dict(zip(median.get_xdata(), median.get_ydata(), strict=True))
        assert drawn == table.loc[[way]].groupby("offered /s")["median, ms"].median().to_dict()
    marks = [tuple(line.get_ydata()) for line in axes.lines if str(line.get_label()).startswith("_")]
    assert marks == [tuple(table.loc[way, "median, ms"]) for way in WAYS.values()]
    stated = table.loc["by RQ"].dropna(subset=["p95, ms"])
    assert 0 < len(stated) < len(table.loc["by RQ"])
    assert list(_line(axes, "by RQ: p95").get_ydata()) == list(stated["p95, ms"])
    assert not [line for line in axes.lines if str(line.get_label()).startswith("within the request: p95")]
    _check_knees(axes, three_ways)
    assert plot.description.count("the knee lies between") == 3
    plot.figure.draw_without_rendering()
    for axis in (axes.xaxis, axes.yaxis):
        shown = {label.get_text() for label in axis.get_ticklabels(which="both")} - {""}
        assert {"20", "50", "100"} <= shown, "between 10 and 1,000 it says too little"
        assert all(re.fullmatch(r"[\d,.]+", text) for text in shown), shown
    assert plot.png().startswith(b"\x89PNG")


def test_goodput_is_drawn_beside_what_was_offered_and_processed(three_ways: Run) -> None:
    plot, table = goodput(three_ways), attempts_table(three_ways)
    [axes] = plot.figure.axes
    ends = _line(axes, "all that is offered")
    assert (
        list(ends.get_xdata())
        == list(ends.get_ydata())
        == [table["offered /s"].min(), table["offered /s"].max()]
    )
    for what, column in (
        ("answered in time", "answered in time /s"),
        ("processed meanwhile", "stored meanwhile /s"),
    ):
        for way in set(table.index):
            line = _line(axes, f"{way}: {what}")
            drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
            assert drawn == table.loc[[way]].groupby("offered /s")[column].mean().to_dict()
    _check_knees(axes, three_ways)
    assert "by RQ: at most " in plot.description
    assert plot.png().startswith(b"\x89PNG")


def test_an_unknown_mode_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no mode 'inlin': did you mean 'inline'"):
        search_knees(SEARCH, modes=["inlin"], out=tmp_path / "run")
    with pytest.raises(LabError, match=r"start_per_s=.* has no rate for rq"):
        search_knees(replace(SEARCH, start_per_s={"inline": 8.0}), modes=["rq"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_real_search_records_what_it_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One trial of half a second, with the real API, where less can be offered than the search was to begin with; it is
    made although the sender's ceiling has taken all the time there was."""
    run = search_knees(
        replace(SEARCH, most_trials=1, cap_per_s=6.0),
        modes=["thread"],
        window_s=0.5,
        budget_s=1e-9,
        settings=Settings(data_dir=tmp_path, embedding_model="off"),
        out=tmp_path / "run",
    )
    knee = knees(run)["thread"]
    assert [attempt.rate_per_s for attempt in knee.attempts] == [6.0]
    assert "held up to 6 /s, the knee lies above" in knee.sentence
    assert f"by threads of the API: {knee.sentence}\n" in capsys.readouterr().out
    assert Search.of(run).cap_per_s <= SEARCH.cap_per_s
    [trial] = run.trials.to_dict("records")
    assert (trial["status"], trial["offered"], trial["sender_ceiling_per_s"] > 0) == ("ok", 3, True)
    assert not list((tmp_path / "run" / "trials").iterdir()), "good trials leave no files behind"
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"trials"}


@pytest.mark.xdist_group("report")
def test_the_notebook_searches_and_says_what_it_found(tmp_path: Path) -> None:
    """A trial of half a second for two of the three ways, up to a rate that is far below the knee."""
    tiny = "{modes: [inline, rq], cap_per_s: 6, most_trials: 1, window_s: 0.5, budget_s: null}"
    text = run_notebook(NOTEBOOK, tmp_path, tiny)
    for way in ("within the request", "by RQ"):
        assert f"Processed {way}: held up to 6 /s, the knee lies above" in text
    assert "The embedding model was off" in text
    (folder,) = (tmp_path / "data" / "runs").iterdir()
    run = load_run(folder)
    assert list(run.trials["mode"]) == ["inline", "rq"]
    assert list(run.events["status"].isin(["refused", "gone"])) == [False] * 6
    assert how_much_it_takes(run).sentence in text


def _line(axes: Axes, start: str):
    [found] = [line for line in axes.lines if str(line.get_label()).startswith(start)]
    return found


def _shaded(axes: Axes) -> dict[str, tuple[float, float]]:
    """The shaded rates, from and to, by colour."""
    return {
        to_hex(patch.get_facecolor()).upper(): (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
    }


def _check_knees(axes: Axes, run: Run) -> None:
    """Each way's interval is shaded in its colour."""
    expected = {
        LOOKS[number][0]: pytest.approx((knee.low_per_s, knee.high_per_s))
        for number, knee in enumerate(knees(run).values())
    }
    assert _shaded(axes) == expected
