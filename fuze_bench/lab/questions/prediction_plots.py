"""The plot of a prediction: the waits that were measured, within the band of those that were predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuze_bench.lab.judgement.block_resampling import LEVEL
from fuze_bench.lab.questions.plots import LOOKS, Plot, dress, legend_below, nothing_to_draw
from fuze_bench.lab.questions.prediction import Forecast, checked, measured_waits
from fuze_bench.lab.queueing.replay import Floats
from fuze_bench.lab.runs.results import Run

_POINTS = 200
#: A target beyond so many times the longest wait is left out: it would squeeze everything else.
_FAR = 4


def waits(forecast: Sequence[Forecast], run: Run) -> Plot:
    """A panel a number of workers: the share of jobs that wait no longer than so many seconds, a line a block."""
    if run.good_trials().empty:
        return nothing_to_draw()
    figure = Figure(figsize=(5.4, 4.2 * len(forecast)), layout="constrained")
    for number, each in enumerate(forecast, start=1):
        axes = figure.add_subplot(len(forecast), 1, number)
        measured = measured_waits(run, each.label)
        longest_s = max(float(np.quantile(each.waits_s, 0.995)), *(float(w.max()) for w in measured), 1e-3)
        if each.target_s is not None and longest_s < each.target_s < _FAR * longest_s:
            longest_s = 1.05 * each.target_s
        at_s = np.linspace(0, longest_s, _POINTS)
        predicted = np.array([_shares(waits_s, at_s) for waits_s in each.waits_s])
        low, high = np.quantile(predicted, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        colour, _, _ = LOOKS[0]
        axes.fill_between(
            at_s,
            low,
            high,
            color=colour,
            alpha=0.25,
            label=f"predicted ({LEVEL:.0%} of replays): lines belong in here",
        )
        for block, waits_s in enumerate(measured):
            axes.plot(
                at_s, _shares(waits_s, at_s), color=LOOKS[1][0], linewidth=1.6,
                label="measured (a line a block)" if block == 0 else None,
            )  # fmt: skip
        if each.target_s is not None and each.target_s <= longest_s:
            _mark_target(axes, each.target_s)
        kind = "more jobs than they can do" if each.grows else "they keep up"
        dress(axes, "wait, seconds", "share of jobs that wait no longer", f"{each.label}: {kind}")
        axes.set_ylim(0, 1.03)
        axes.set_xlim(0, 1.02 * longest_s)
    legend_below(figure)
    words = "; ".join(
        f"{c.label}: {c.figure} {c.measured}, predicted {c.predicted}" for c in checked(forecast, run)
    )
    return Plot(figure, f"Waits measured, within the band of those predicted. {words}.")


def _mark_target(axes: Axes, target_s: float) -> None:
    """The point that a line has to pass above."""
    axes.plot(
        [target_s], [0.95], marker="X", markersize=11, color="black", linestyle="",
        label="the target: above this cross is good",
    )  # fmt: skip


def _shares(waits_s: Floats, at_s: Floats) -> Floats:
    found: Floats = np.searchsorted(np.sort(waits_s), at_s, side="right") / len(waits_s)
    return found
