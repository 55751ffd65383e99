"""The plot of a benchmark: each ratio with its interval, and the target as the limit that it is to reach or to stay below."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fuze_bench.lab.benchmarks.result import BenchmarkResult, times
from fuze_bench.lab.benchmarks.side_by_side import BenchmarkRatio
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.questions.plots import LOOKS, Plot

_WIDTH = 5.4
_ROW = 1.25
_NEXT = 0.75
#: An axis whose ends lie this far apart is logarithmic.
_DECADE = 10.0
#: How many times beyond its estimate and its limit an interval is drawn.
_FAR = 3.0
_HOLDS, _MISSED = LOOKS[0], LOOKS[1]
_LIMIT = "#b3261e"


def ratios(result: BenchmarkResult) -> Plot:
    """A strip each for the ratios that have a target, on a scale of its own; where none has one, all on one scale."""
    judged = [each for each in result.ratios if each.target is not None]
    strips = [[each] for each in judged] if judged else [list(result.ratios)]
    heights = [_ROW + _NEXT * (len(strip) - 1) for strip in strips]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.3), layout="constrained")
    all_axes = figure.subplots(len(strips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, strip in zip(all_axes, strips, strict=True):
        _draw(axes, strip)
    all_axes[-1].set_xlabel(_legend(judged), fontsize=11)
    return Plot(
        figure, f"Ratios with their 95 % intervals. {'; '.join(map(_in_words, judged or result.ratios))}."
    )


def _draw(axes: Axes, strip: Sequence[BenchmarkRatio]) -> None:
    for place, each in enumerate(strip):
        colour, marker, _ = _MISSED if each.holds is False else _HOLDS
        if each.low is not None and each.high is not None:
            axes.plot([each.low, each.high], [-place] * 2, color=colour, linewidth=3, alpha=0.5)
        axes.plot(each.ratio, -place, marker=marker, color=colour, markersize=9)
        label = axes.annotate(
            f"{each.what}: {times(each.ratio)}\nagainst {each.against}",
            (0, -place), (2, 9), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=10.5,
        )  # fmt: skip
        label.set_in_layout(False)
        if each.target is not None:
            _draw_limit(axes, each, each.target)
    _scale(axes, strip)
    axes.set_ylim(-len(strip) + 0.6, 0.95)
    axes.set_yticks([])
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(labelsize=10)
    axes.grid(axis="x", alpha=0.3)


def _draw_limit(axes: Axes, ratio: BenchmarkRatio, target: float) -> None:
    """The line, with the side that misses it shaded."""
    axes.axvline(target, color=_LIMIT, linewidth=2)
    low, high = _ends([ratio])
    axes.axvspan(
        *((low, target) if is_least(ratio) else (target, high)), color=_LIMIT, alpha=0.1, linewidth=0
    )


def is_least(ratio: BenchmarkRatio) -> bool:
    """Whether its target is the least that it is to be, not the most: the one of them that its verdict agrees with."""
    return ratio.target is not None and (ratio.ratio >= ratio.target) == ratio.holds


def _scale(axes: Axes, strip: Sequence[BenchmarkRatio]) -> None:
    low, high = _ends(strip)
    if high / low > _DECADE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _tick(float(value))))
    axes.set_xlim(low, high)


def _tick(value: float) -> str:
    return cell(value) if abs(value) >= 1_000 else f"{value:g}"


def _ends(strip: Sequence[BenchmarkRatio]) -> tuple[float, float]:
    """What the axis shows: estimates, limits and intervals, with room on both sides.

    The interval of a few blocks may go on for decades: what lies far beyond estimate and limit is cut off.
    """
    shown = [value for each in strip for value in (each.ratio, each.target) if value is not None]
    if all(each.target is None for each in strip):
        shown.append(1.0)
    intervals = [value for each in strip for value in (each.low, each.high) if value is not None]
    low = max(min([*shown, *intervals]), min(shown) / _FAR)
    high = min(max([*shown, *intervals]), max(shown) * _FAR)
    if high / low > _DECADE:
        return low / 1.6, high * 1.6
    room = max(0.15 * (high - low), 0.002 * high)
    return low - room, high + room


def _legend(judged: Sequence[BenchmarkRatio]) -> str:
    if not judged:
        return "ratio and its 95 % interval"
    words = ["line: the target, shaded: beyond it"]
    for holds, (_, _, shape) in ((True, _HOLDS), (False, _MISSED)):
        if any(each.holds is holds for each in judged):
            words.append(f"{shape}: {'holds' if holds else 'missed'}")
    return "\n".join(["ratio and its 95 % interval", "; ".join(words)])


def _in_words(ratio: BenchmarkRatio) -> str:
    target = ""
    if ratio.target is not None:
        which = "at least" if is_least(ratio) else "at most"
        target = f" ({which} {ratio.target:g} is wanted)"
    return f"{ratio.what} against {ratio.against}: {times(ratio.ratio)}{target}"
