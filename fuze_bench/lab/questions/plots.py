"""Figures of recorded runs that need no explanation beside them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuze_bench.lab.judgement import stats, summaries
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.runs.results import Run

#: Colours that people with any colour vision tell apart (Okabe and Ito 2008), each with a marker of its own.
LOOKS = (
    ("#0072B2", "o", "dot"),
    ("#D55E00", "s", "square"),
    ("#009E73", "^", "triangle"),
    ("#CC79A7", "D", "diamond"),
    ("#56B4E9", "v", "triangle pointing down"),
    ("#E69F00", "P", "plus"),
    ("#000000", "X", "cross"),
    ("#7F7F7F", "*", "star"),
)
_DOTS_PER_INCH = 144
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


@dataclass(frozen=True)
class Panel:
    """One pair of axes: a figure of `summaries.FIGURES` against a factor, and a title that says how to read it."""

    figure: str
    title: str
    y_label: str


#: What a number of workers changes.
OF_WORKERS = (
    Panel("throughput_per_s", "Throughput: higher is better", "jobs done per second"),
    Panel("wait_p50_s", "Wait: queued until a worker takes it up", "median, seconds"),
    Panel("total_p50_s", "End to end: intended until stored", "median, seconds"),
    Panel("cpu_s_per_1000", "Processor: lower is better", "seconds per 1,000 jobs"),
    Panel("peak_pss_mib", "Memory of all workers together", "MiB"),
)


def nothing_to_draw() -> Plot:
    """In place of a plot of a run in which no trial counts."""
    words = "Nothing to draw: no trial counts."
    figure = Figure(figsize=(5.4, 1.2))
    figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=_FONT_SIZE)
    return Plot(figure, words)


def against(run: Run, x: str, panels: Sequence[Panel]) -> Plot:
    """A panel a figure against the factor `x`: a line a series through the medians, a marker a trial.

    A series is what else differs between configurations. The baseline's second copies are left out.
    """
    table = summaries.figures(run)
    table = table[~table["copy"]]
    if table.empty:
        return nothing_to_draw()
    series = series_of(run, x)
    figure = Figure(figsize=(5.4, 4.4 * len(panels)), layout="constrained")
    places = _places(table[x])
    for axes, panel in zip(_all_axes(figure, len(panels)), panels, strict=True):
        for number, (name, labels) in enumerate(series.items()):
            chosen = table[table["label"].isin(labels)].dropna(subset=[panel.figure])
            offset = (number - (len(series) - 1) / 2) * 0.1
            _draw(axes, chosen, x, panel.figure, {k: v + offset for k, v in places.items()}, number, name)
        axes.set_xticks(list(places.values()), [f"{value:g}" for value in places])
        dress(axes, _x_label(x), panel.y_label, panel.title)
    legend_below(figure, title="A line joins the medians, a sign is a trial.")
    return Plot(
        figure,
        f"{'; '.join(p.title for p in panels)}, against {_x_label(x)}. {_in_words(run, panels[0].figure)}",
    )


def series_of(run: Run, x: str) -> dict[str, list[str]]:
    """The configurations' labels, grouped by what differs beside the factor `x`, under a name for each group."""
    others = [name for name in run.experiment.varying if name != x]
    found: dict[str, list[str]] = {}
    for configuration, label in run.experiment.labels.items():
        name = ", ".join(_value_in_words(other, getattr(configuration, other)) for other in others)
        found.setdefault(name or "measured", []).append(label)
    return found


def _draw(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    figure: str,
    places: Mapping[float, float],
    number: int,
    name: str,
) -> None:
    if table.empty:
        return
    colour, marker, shape = LOOKS[number % len(LOOKS)]
    at = [places[float(value)] for value in table[x]]
    axes.plot(
        at, table[figure].astype(float), linestyle="", marker=marker, color=colour, alpha=0.5, markersize=7
    )
    medians = table.groupby(x)[figure].median()
    axes.plot(
        [places[float(value)] for value in medians.index],
        medians.astype(float),
        color=colour,
        linestyle="-" if number < len(LOOKS) / 2 else "--",
        marker="_",
        markersize=16,
        linewidth=2,
        label=f"{name} ({shape})",
    )


def dress(axes: Axes, x_label: str, y_label: str, title: str) -> None:
    """Labels, a grid that helps reading, and an axis that begins at 0."""
    axes.set_xlabel(x_label, fontsize=_FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=_FONT_SIZE)
    axes.set_title(title, fontsize=_FONT_SIZE)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=12)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, columns: int = 1, title: str | None = None) -> None:
    """Below the axes, where it hides nothing: one entry a name, in however many axes it is drawn."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(str(label), handle)
    handles, labels = list(found.values()), list(found)
    figure.legend(
        handles=handles,
        labels=labels,
        title=title,
        title_fontsize=11,
        loc="outside lower center",
        fontsize=11,
        frameon=False,
        ncols=columns,
    )


def _all_axes(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(count, 1, number) for number in range(1, count + 1)]


def _places(values: pd.Series) -> dict[float, float]:
    """Evenly spaced places for the values that were measured."""
    return {float(value): float(place) for place, value in enumerate(sorted(values.dropna().unique()))}


def _x_label(x: str) -> str:
    return {"workers": "number of workers", "rate_per_s": "jobs offered per second"}.get(
        x, x.replace("_", " ")
    )


def _value_in_words(name: str, value: object) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
    if name in ("kind", "strategy", "mode", "arrivals"):
        return shown
    unit = (
        " ms" if name.endswith("_ms") else " s" if name.endswith("_s") and not name.endswith("_per_s") else ""
    )
    words = name.removesuffix("_per_s").removesuffix("_ms").removesuffix("_s").replace("_", " ")
    return f"{words} {shown}{unit}"


def _in_words(run: Run, figure: str) -> str:
    table = summaries.figures(run)
    parts = []
    for label in run.experiment.labels.values():
        found = stats.spread(list(summaries.by_block(table, label, figure).values()))
        if found:
            parts.append(f"{label}: {cell(found.median)}")
    return f"Medians of {summaries.FIGURES[figure]}: {', '.join(parts)}."
