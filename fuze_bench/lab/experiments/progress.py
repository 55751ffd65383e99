"""How far a run is, and how long it takes still: a bar in terminals and notebooks, lines in logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fuze_bench.lab.experiments.spec import PlannedTrial
from fuze_bench.lab.runs.records import TrialRow

#: A log of more lines than this is no log.
_MOST_LINES = 100
_SHORTEST_UPDATE_S = 0.2


class Reporter(Protocol):
    """Shows how far a run is; a context manager."""

    def begins(self, planned: PlannedTrial) -> None: ...

    def progressed(self, done: int, total: int) -> None:
        """`done` of `total` jobs of the present trial are done."""

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None: ...

    def say(self, line: str) -> None: ...

    def __enter__(self) -> Reporter: ...

    def __exit__(self, *exc_info: object) -> None: ...


def reporter(
    total: int, *, done: int = 0, budget_s: float | None = None, may_go_on: bool = False
) -> Reporter:
    """The reporter for where this runs. `total`: trials planned; `done`: of them, before; `may_go_on`: beyond them, until
    every ratio is known."""
    left = _TimeLeft(total, done, budget_s, may_go_on=may_go_on)
    console = Console()
    # rich takes a notebook for a terminal; there its bar would be one output a frame.
    if console.is_jupyter:
        return _NotebookReporter(left)
    return _TerminalReporter(left, console) if console.is_terminal else _PlainReporter(left)


class _TimeLeft:
    """Time left, from how long trials have taken so far; never more than is left of the budget."""

    def __init__(
        self,
        total: int,
        done: int,
        budget_s: float | None,
        clock_s: Callable[[], float] = time.monotonic,
        *,
        may_go_on: bool = False,
    ) -> None:
        self.total = max(total, 1)
        self.before = done
        self.finished = done
        self._budget_s = budget_s
        self._may_go_on = may_go_on
        self._clock_s = clock_s
        self._start_s = clock_s()

    def ended(self, number: int) -> str:
        self.finished += 1
        self.total = max(self.total, number)
        spent_s = self._clock_s() - self._start_s
        if self.finished >= self.total:
            # Where a precision is asked for nobody knows the total.
            so_far = f"{duration(spent_s)} so far, until every ratio is known"
            return so_far if self._may_go_on else f"done in {duration(spent_s)}"
        left_s = spent_s / (self.finished - self.before) * (self.total - self.finished)
        if self._budget_s is not None:
            left_s = min(left_s, max(0.0, self._budget_s - spent_s))
        return f"about {duration(left_s)} left"

    def is_said(self, number: int) -> bool:
        """Whether a trial gets a line of its own."""
        every = -(-self.total // _MOST_LINES)
        return number % every == 0 or number == self.total


class _PlainReporter:
    """One line a trial."""

    def __init__(self, left: _TimeLeft) -> None:
        self._left = left

    def begins(self, planned: PlannedTrial) -> None:
        if self._left.finished == self._left.before:
            self.say(f"{self._left.total} trials; the time left is known after the first")

    def progressed(self, done: int, total: int) -> None:
        pass

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None:
        left = self._left.ended(planned.number)
        if self._left.is_said(planned.number) or row.problem:
            self.say(f"{_line(planned, row, self._left.total)} · {left}")

    def say(self, line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def __enter__(self) -> _PlainReporter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class _NotebookReporter(_PlainReporter):
    """A bar that is one output, redrawn, beside the lines."""

    def __init__(self, left: _TimeLeft) -> None:
        super().__init__(left)
        self._handle: Any = None
        self._drawn_s = 0.0
        self._words = "starting"
        self._part = 0.0

    def begins(self, planned: PlannedTrial) -> None:
        super().begins(planned)
        self._words, self._part = f"{planned.label}: starting", 0.0
        self._draw()

    def progressed(self, done: int, total: int) -> None:
        self._words, self._part = f"{done} of {total} jobs", done / max(total, 1)
        if time.monotonic() - self._drawn_s > _SHORTEST_UPDATE_S:
            self._draw()

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None:
        super().ended(planned, row)
        self._part, self._words = 0.0, f"trial {planned.number} ended"
        self._draw()

    def __enter__(self) -> _NotebookReporter:
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._words = "done" if exc_info[0] is None else "stopped"
        if exc_info[0] is None:
            self._left.total = max(self._left.finished, 1)
        self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML

        self._drawn_s = time.monotonic()
        if self._handle is not None:
            self._handle.update(HTML(self._html()))  # type: ignore[no-untyped-call]

    def _html(self) -> str:
        value, total = self._left.finished + self._part, self._left.total
        return (
            f"<div class='fuze-progress'><progress value='{value:.3f}' max='{total}' style='width:60%'></progress>"
            f" {self._left.finished} of {total} trials · {escape(self._words)}</div>"
        )


class _TerminalReporter:
    """A bar over the whole run, moved by every job, and a line for every trial above it."""

    def __init__(self, left: _TimeLeft, console: Console) -> None:
        self._left = left
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=left.total, completed=left.finished, left="")

    def begins(self, planned: PlannedTrial) -> None:
        self._bar.update(self._task, description=f"{planned.label}: starting")

    def progressed(self, done: int, total: int) -> None:
        completed = self._left.finished + done / max(total, 1)
        self._bar.update(self._task, completed=completed, description=f"{done} of {total} jobs")

    def ended(self, planned: PlannedTrial, row: TrialRow) -> None:
        words = self._left.ended(planned.number)
        self._bar.update(self._task, completed=self._left.finished, total=self._left.total, left=words)
        self.say(_line(planned, row, self._left.total))

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)

    def __enter__(self) -> _TerminalReporter:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()


def _line(planned: PlannedTrial, row: TrialRow, total: int) -> str:
    outcome = f"failed: {row.problem}" if row.problem else f"{row.throughput_per_s or 0:.2f} jobs/s"
    again = " (again)" if planned.copy else ""
    return f"trial {planned.number}/{total} · block {planned.block} · {planned.label}{again} · {outcome}"


def duration(seconds: float) -> str:
    """«42 s» or «3.5 min», for people."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
