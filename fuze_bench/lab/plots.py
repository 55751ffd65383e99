"""Figures of recorded runs that need no explanation beside them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuze_bench.lab import stats, summaries
from fuze_bench.lab.results import Run

#: Colours that people with any colour vision tell apart (Okabe and Ito 2008), each with a marker of its own.
_LOOKS = {"fork": ("#0072B2", "o"), "simple": ("#D55E00", "s"), "spawn": ("#009E73", "^")}
_DOTS_PER_INCH = 180
_FONT_SIZE = 13


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows, in words. Shows itself in a notebook."""

    figure: Figure
    description: str

    def png(self) -> bytes:
        """The figure as a PNG image."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def __repr__(self) -> str:
        return self.description


def throughput_plot(run: Run) -> Plot:
    """Throughput against the number of workers, a line a kind through the medians, a dot a repeat."""
    trials = run.good_trials().dropna(subset=["throughput_per_s"])
    figure = Figure(figsize=(5.0, 4.6), layout="constrained")
    axes = figure.subplots()
    _lines(axes, trials, "throughput_per_s", run.experiment.kinds)
    _label(axes, "bookmarks done per second")
    axes.set_title("Throughput: higher is better", fontsize=_FONT_SIZE)
    _legend(figure)
    return Plot(
        figure,
        f"Throughput in bookmarks per second against the number of workers. {_data_in_words(run, trials)}",
    )


def times_plot(run: Run) -> Plot:
    """Median wait, service and end-to-end time against the number of workers; a dot a repeat."""
    medians = summaries.time_medians(run.good_events())
    figure = Figure(figsize=(5.0, 10.5), layout="constrained")
    titles = {
        "wait_ms": "Wait: saved until a worker takes it up",
        "service_ms": "Service: taken up until stored",
        "total_ms": "End to end: saved until stored",
    }
    for axes, (column, title) in zip(figure.subplots(3, 1), titles.items(), strict=True):
        in_seconds = medians.assign(value_s=medians[column] / 1e3)
        _lines(axes, in_seconds, "value_s", run.experiment.kinds)
        _label(axes, "median, seconds")
        axes.set_title(title, fontsize=_FONT_SIZE)
    _legend(figure)
    return Plot(
        figure,
        "Median wait, service and end-to-end time in seconds against the number of workers; the tables"
        " hold the figures.",
    )


def _lines(axes: Axes, table: pd.DataFrame, column: str, kinds: Sequence[str]) -> None:
    # Dots of two kinds at the same number of workers stand side by side.
    for place, kind in enumerate(kinds):
        chosen = table[table["kind"] == kind]
        if chosen.empty:
            continue
        colour, marker = _LOOKS[kind]
        positions = _positions(table)
        offset = (place - (len(kinds) - 1) / 2) * 0.12
        at = [positions[int(workers)] + offset for workers in chosen["workers"]]
        values = [float(value) for value in chosen[column]]
        axes.plot(at, values, linestyle="", marker=marker, color=colour, alpha=0.55, markersize=7)
        medians = chosen.groupby("workers")[column].median()
        axes.plot(
            [positions[int(workers)] + offset for workers in medians.index],
            [float(value) for value in medians],
            color=colour,
            marker="_",
            markersize=16,
            linewidth=2,
            label=f"{kind} (line: median, {_marker_name(marker)}: a repeat)",
        )
    positions = _positions(table)
    axes.set_xticks(list(positions.values()), [str(workers) for workers in positions])


def _legend(figure: Figure) -> None:
    """Below the axes, where it hides nothing."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=12, frameon=False)


def _marker_name(marker: str) -> str:
    """A marker's shape in words."""
    return {"o": "dot", "s": "square", "^": "triangle"}[marker]


def _positions(table: pd.DataFrame) -> dict[int, int]:
    """Evenly spaced places for the numbers of workers that were measured."""
    return {int(workers): place for place, workers in enumerate(sorted(table["workers"].unique()))}


def _label(axes: Axes, y_label: str) -> None:
    axes.set_xlabel("number of workers", fontsize=_FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=_FONT_SIZE)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _data_in_words(run: Run, trials: pd.DataFrame) -> str:
    parts = []
    for configuration in run.experiment.configurations:
        found = stats.spread(list(summaries.throughput_by_block(trials, configuration).values()))
        if found:
            parts.append(f"{configuration.label}: {found.median:.3g}")
    return f"Medians: {', '.join(parts)}."
