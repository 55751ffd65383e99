"""Plots of queues with priorities: their waits beside Cobham's, and their depth over time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuze_bench.lab.judgement.tables import GROWS, cell
from fuze_bench.lab.questions.plots import LOOKS, Plot, dress, legend_below, nothing_to_draw
from fuze_bench.lab.questions.priorities import by_trial, depths, has_no_wait, plain
from fuze_bench.lab.runs.results import Run

_PANEL = (5.4, 4.4)
_CLOSE = 0.18


def waits(run: Run, capacity: float) -> Plot:
    """A panel a utilisation below 1: each queue's mean wait by strategy, a marker a trial, and Cobham's for strict."""
    table = by_trial(run, capacity)
    table = table[~table["copy"] & (table["utilisation"] < 1)]
    if table.empty:
        return nothing_to_draw()
    wanted, strategies = sorted(table["utilisation"].unique()), list(dict.fromkeys(table["strategy"]))
    figure = Figure(figsize=(_PANEL[0], _PANEL[1] * len(wanted)), layout="constrained")
    words = []
    for number, utilisation in enumerate(wanted, start=1):
        axes = figure.add_subplot(len(wanted), 1, number)
        words += _draw_waits(axes, table[table["utilisation"] == utilisation], strategies)
        title = f"{utilisation:.0%} of capacity: lower is better"
        dress(axes, "queue, the first one first", "mean wait, ms", title)
    legend_below(figure)
    return Plot(figure, f"Mean wait of each queue, ms: {'; '.join(words)}.")


def _draw_waits(axes: Axes, table: pd.DataFrame, strategies: Sequence[str]) -> list[str]:
    queues = list(dict.fromkeys(table["queue"]))
    words = []
    for number, strategy in enumerate(strategies):
        colour, marker, shape = LOOKS[number % len(LOOKS)]
        shift = (number - (len(strategies) - 1) / 2) * _CLOSE
        name = plain(strategy)
        label: str | None = f"{name} (line: mean, {shape}: a trial)"
        for place, queue in enumerate(queues):
            rows = table[(table["strategy"] == strategy) & (table["queue"] == queue)]
            rows = rows.dropna(subset=["mean_wait_s"])
            if rows.empty:
                continue
            if has_no_wait(rows):
                axes.text(place + shift, 0, f" {GROWS}", rotation=90, ha="center", color=colour)
                continue
            waits_ms = 1e3 * rows["mean_wait_s"].astype(float)
            at = place + shift
            axes.plot([at] * len(rows), waits_ms, linestyle="", marker=marker, color=colour, alpha=0.5)
            axes.plot(
                [at], [waits_ms.mean()], marker="_", markersize=16, color=colour, linewidth=2, label=label
            )
            label = None
            words.append(f"{rows['utilisation'].iloc[0]:.0%} {name} {queue} {cell(float(waits_ms.mean()))}")
            if rows["cobham_s"].notna().any():
                _draw_cobham(
                    axes, at, 1e3 * float(rows["cobham_s"].astype(float).mean()), is_first=place == 0
                )
    axes.set_xticks(range(len(queues)), queues)
    return words


def _draw_cobham(axes: Axes, at: float, wait_ms: float, *, is_first: bool) -> None:
    half = _CLOSE / 2
    label = "Cobham's prediction for strict" if is_first else None
    axes.plot([at - half, at + half], [wait_ms] * 2, color="#000000", linestyle=":", linewidth=3, label=label)


def depth_over_time(run: Run, capacity: float) -> Plot:
    """A panel a strategy, at the highest utilisation: the jobs that wait in each queue, in the first block."""
    table = by_trial(run, capacity)
    table = table[~table["copy"]]
    if table.empty:
        return nothing_to_draw()
    table = table[table["utilisation"] == table["utilisation"].max()]
    firsts = table.sort_values("block", kind="stable").drop_duplicates(["strategy", "queue"]).sort_index()
    strategies = list(dict.fromkeys(firsts["strategy"]))
    size = (_PANEL[0], 0.75 * _PANEL[1] * len(strategies))
    figure = Figure(figsize=size, layout="constrained")
    words, most = [], 1
    for number, strategy in enumerate(strategies, start=1):
        axes = figure.add_subplot(len(strategies), 1, number)
        rows = firsts[firsts["strategy"] == strategy]
        trial = run.trials[run.trials["trial"] == rows["trial"].iloc[0]].iloc[0]
        waiting = depths(run.events[run.events["trial"] == trial["trial"]], float(trial["window_s"]))
        for place, queue in enumerate(rows["queue"]):
            if queue in waiting:
                style = ("-", "--", ":")[place % 3]
                axes.plot(
                    waiting.index, waiting[queue], style, color=LOOKS[place][0], linewidth=2, label=queue
                )
                most = max(most, int(waiting[queue].max()))
                words.append(f"{strategy} {queue} {int(waiting[queue].iloc[-1])}")
        name = plain(strategy)
        title = f"{name.capitalize()} at {rows['utilisation'].iloc[0]:.0%}: the queue that rises starves"
        dress(axes, "seconds", "jobs waiting", title)
        axes.margins(x=0.02)
    for axes in figure.axes:
        axes.set_ylim(top=1.05 * most)  # the strategies are to be compared
    legend_below(figure)
    return Plot(figure, f"Jobs waiting over time; at the end: {', '.join(words)}.")
