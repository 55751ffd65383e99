"""The plots of quick-save under load: latency and goodput against the offered rate, with each way's knee."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fuze_bench.lab.judgement.tables import GROWS, cell
from fuze_bench.lab.questions.plots import LOOKS, Plot, dress, legend_below
from fuze_bench.lab.questions.quick_save import WAYS, Search, attempts_table, knees
from fuze_bench.lab.runs.results import Run

#: Over more decades, there is no room for labels between the powers of ten.
_FEW_DECADES = 2.5


def latency(run: Run) -> Plot:
    """Time to the answer against the offered rate, on logarithmic axes; the knee's interval is shaded."""
    table, target_ms = attempts_table(run), Search.of(run).target_ms
    figure = Figure(figsize=(5.8, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for number, way in enumerate(_ways(table)):
        colour, marker, _ = LOOKS[number]
        own = table.loc[[way]].copy()
        for name in ("median, ms", "p95, ms"):  # what grows is no place on an axis
            own[name] = pd.to_numeric(own[name].replace(GROWS, None)).astype(float)
        of_rate = own.groupby("offered /s")
        axes.plot(
            own["offered /s"], own["median, ms"], color=colour, marker=marker, linestyle="", alpha=0.5, markersize=7
        )  # fmt: skip
        axes.plot(
            of_rate["median, ms"].median(), color=colour, linewidth=2, label=f"{way}: median (a mark a trial)"
        )
        known = own.dropna(subset=["p95, ms"])
        if len(known):
            axes.plot(
                known["offered /s"], known["p95, ms"], color=colour, marker=marker, fillstyle="none", linestyle="",
                label=f"{way}: p95, where stated",
            )  # fmt: skip
    axes.axhline(
        target_ms, color="black", linewidth=1, linestyle="--", label="within this: 95 % of the answers"
    )
    _shade_knees(axes, run)
    _finish(axes, "intended to answered, ms", "Quick-save: lower is better")
    axes.set_yscale("log")
    axes.autoscale(axis="y")  # of a logarithm there is no 0
    _plain_numbers(axes.yaxis)
    legend_below(figure)
    words = "; ".join(f"{WAYS[mode]}: {knee.sentence}" for mode, knee in knees(run).items())
    return Plot(figure, f"Time to quick-save's answer against the offered rate. {words}.")


def goodput(run: Run) -> Plot:
    """Answers in time, and pages stored meanwhile, per second, against the offered rate."""
    table = attempts_table(run)
    figure = Figure(figsize=(5.8, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for number, way in enumerate(_ways(table)):
        colour, marker, _ = LOOKS[number]
        own = table.loc[[way]].astype({"answered in time /s": float, "stored meanwhile /s": float})
        for column, style, what in (
            ("answered in time /s", "-", "answered in time"),
            ("stored meanwhile /s", ":", "processed meanwhile"),
        ):
            known = own.dropna(subset=[column])
            mean = known.groupby("offered /s")[column].mean()
            fill = "full" if style == "-" else "none"
            axes.plot(
                mean, color=colour, marker=marker, linestyle=style, fillstyle=fill, label=f"{way}: {what}"
            )
    ends = [float(table["offered /s"].min()), float(table["offered /s"].max())]
    axes.plot(ends, ends, color="black", linewidth=1, linestyle="--", label="all that is offered")
    _shade_knees(axes, run)
    _finish(axes, "per second", "Goodput: on the dashed line is best")
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    legend_below(figure)
    best = table["answered in time /s"].astype(float).groupby(level=0).max()
    words = "; ".join(f"{way}: at most {cell(float(best[way]))} /s" for way in _ways(table))
    return Plot(figure, f"Answers in time per second against the offered rate. {words}.")


def _ways(table: pd.DataFrame) -> list[str]:
    return [way for way in WAYS.values() if way in table.index]


def _shade_knees(axes: Axes, run: Run) -> None:
    for mode, knee in knees(run).items():
        if knee.low_per_s is not None and knee.high_per_s is not None:
            number = _ways(attempts_table(run)).index(WAYS[mode])
            axes.axvspan(knee.low_per_s, knee.high_per_s, color=LOOKS[number][0], alpha=0.2, linewidth=0)


def _finish(axes: Axes, y_label: str, title: str) -> None:
    dress(axes, "saves offered per second", y_label, f"{title} (shaded: the knee)")
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)


def _plain_numbers(axis: Axis) -> None:
    """A logarithmic axis without powers of ten; one of few decades is also labelled at 2 and 5 times each."""

    def between(value: float, _: object) -> str:
        low, high = sorted(axis.get_view_interval())
        is_labelled = high / low < 10**_FEW_DECADES and f"{value:e}"[0] in "25"
        return f"{value:,.10g}" if is_labelled else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(FuncFormatter(between))
