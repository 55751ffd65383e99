"""How long a run takes still, as it is said after each trial; by a clock that the test turns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from run_folders import trial_row

from fuze_bench.lab.experiments.progress import _PlainReporter, _TerminalReporter, _TimeLeft
from fuze_bench.lab.experiments.spec import Experiment


@pytest.mark.parametrize(
    ("done", "budget_s", "said"),
    [
        # 10, 30 and 20 s: what is left is as long as those so far were on average.
        (0, None, ["about 30 s left", "about 40 s left", "about 20 s left", "done in 80 s"]),
        # The time is spent before that.
        (0, 45.0, ["about 30 s left", "about 5 s left", "about 0 s left", "done in 80 s"]),
        # Two trials were made before, nobody knows how fast.
        (2, None, ["about 10 s left", "done in 40 s"]),
    ],
)
def test_the_time_left_is_said_after_every_trial(
    capsys: pytest.CaptureFixture[str], done: int, budget_s: float | None, said: list[str]
) -> None:
    plan = Experiment(blocks=4, baseline_copy=False).plan()[done:]
    now_s = [1000.0]
    left = _TimeLeft(4, done, budget_s, lambda: now_s[0])
    with _PlainReporter(left) as shown:
        for planned, took_s in zip(plan, [10.0, 30.0, 20.0, 20.0], strict=False):
            shown.begins(planned)
            now_s[0] += took_s
            shown.ended(planned, trial_row(planned))
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "4 trials; the time left is known after the first"
    assert [line.rpartition(" · ")[2] for line in lines] == said


def test_where_a_precision_is_asked_for_the_last_planned_trial_is_not_the_end() -> None:
    left = _TimeLeft(2, 0, 60.0, iter([0.0, 5.0, 9.0, 12.0]).__next__, may_go_on=True)
    said = [left.ended(number) for number in (1, 2, 3)]
    assert said == ["about 5 s left", *(f"{s} s so far, until every ratio is known" for s in (9, 12))]


def test_it_stands_beside_the_bar_in_a_terminal() -> None:
    [first, *_] = Experiment(blocks=4, baseline_copy=False).plan()
    now_s = [0.0]
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with _TerminalReporter(_TimeLeft(4, 0, None, lambda: now_s[0]), console) as shown:
        shown.begins(first)
        now_s[0] += 100.0
        shown.ended(first, trial_row(first))
    assert "about 5.0 min left" in screen.getvalue()
