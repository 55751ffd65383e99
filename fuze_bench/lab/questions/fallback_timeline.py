"""What the threading fallback costs and how it takes over: saves and bookmarks done, second by second, and the moments
of an outage of Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fuze_bench.lab.experiments.factors import LEAN
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.judgement import checks, stats, summaries
from fuze_bench.lab.judgement.checks import Conclusion
from fuze_bench.lab.judgement.comparison import bounds_in_words, not_shown
from fuze_bench.lab.judgement.tables import cell
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_beside, told_below
from fuze_bench.lab.questions.plots import LOOKS, Plot, legend_below, nothing_to_draw
from fuze_bench.lab.runs.records import REFUSED
from fuze_bench.lab.runs.results import Run

_MODES = {"rq": "handed to RQ", "thread": "handed to a thread", "deferred": "left for later"}
_FONT_SIZE = 12


def with_and_without_redis(
    *,
    rate_per_s: float,
    duration_s: float,
    outage_s: float,
    workers: int,
    threads: int,
    origin_latency_ms: float,
    blocks: int,
    seed: int,
    sender: str = LEAN,
    kind: str = "simple",
) -> Experiment:
    """The same saves with RQ's workers, with threads of the API from the start, and with Redis away in the middle."""
    return Experiment(
        name="threading_fallback",
        fixed={
            "workers": workers,
            "kind": kind,
            "fallback_threads": threads,
            "arrivals": "constant",
            "rate_per_s": rate_per_s,
            "sender": sender,
            "origin_latency_ms": origin_latency_ms,
        },
        configurations=({"mode": "rq"}, {"mode": "thread"}, {"mode": "rq", "redis_outage_s": outage_s}),  # type: ignore[arg-type]
        duration_s=duration_s,
        blocks=blocks,
        seed=seed,
        baseline_copy=blocks > 1,
    )


def names(experiment: Experiment) -> dict[str, str]:
    """What the configurations are called here, by their labels."""
    found = {}
    for configuration, label in experiment.labels.items():
        if configuration.mode != "rq":
            found[label] = "Threads of the API from the start"
        elif configuration.redis_outage_s:
            found[label] = f"RQ's workers, Redis away for {configuration.redis_outage_s:g} s"
        else:
            found[label] = "RQ's workers"
    return found


@dataclass(frozen=True)
class Outage:
    """When Redis stopped and had started again, seconds from the first intended save."""

    stopped_s: float
    started_s: float


def outage_of(faults: object) -> Outage | None:
    """The outage in a trial's column `faults`; None where there was none, or it did not end."""
    if not isinstance(faults, str):
        return None
    at_s = {fault["what"]: float(fault["t_s"]) for fault in json.loads(faults)}
    if not {"Redis stopped", "Redis started"} <= set(at_s):
        return None
    return Outage(at_s["Redis stopped"], at_s["Redis started"])


def in_seconds(events: pd.DataFrame) -> pd.DataFrame:
    """One trial's saves with their stamps as seconds from the first intended one: intended_s, acknowledged_s (missing
    for a refused one), done_s, beside mode, status and ack_ms."""
    start_ns = events["intended_ns"].min()
    table = events[["mode", "status", "ack_ms"]].copy()
    for name in ("intended", "acknowledged", "done"):
        table[f"{name}_s"] = ((events[f"{name}_ns"] - start_ns) / 1e9).astype("Float64")
    table.loc[table["status"] == REFUSED, ["acknowledged_s", "done_s"]] = pd.NA
    return table


def per_second(saves: pd.DataFrame) -> pd.DataFrame:
    """How many of the saves (see `in_seconds`) were acknowledged, and done, in each second; the index is its begin."""
    stamps = {name: saves[f"{name}_s"].dropna().astype(float) for name in ("acknowledged", "done")}
    last_s = max((values.max() for values in stamps.values() if len(values)), default=0.0)
    seconds = range(int(last_s) + 1)
    counts = {
        name: np.bincount(values.astype(int), minlength=len(seconds)) for name, values in stamps.items()
    }
    return pd.DataFrame(counts, index=list(seconds))


@dataclass(frozen=True)
class Moments:
    """Of an outage, in seconds; None for what did not happen.

    `to_fall_back_s`: from the stop of Redis until a save was acknowledged that a thread had in hand. `to_first_done_s`:
    from there until the first such bookmark was done, which takes loading the model into the API's process.
    `to_come_back_s`: from the start of Redis until a save was acknowledged that RQ had in hand. `to_all_done_s`: from
    the start of Redis until everything was done.
    """

    to_fall_back_s: float | None
    to_first_done_s: float | None
    to_come_back_s: float | None
    to_all_done_s: float | None


def moments(saves: pd.DataFrame, outage: Outage) -> Moments:
    """When the saves (see `in_seconds`) of one trial went to threads and back. No finer than they follow each other."""
    by_thread = saves[(saves["mode"] == "thread") & (saves["acknowledged_s"] >= outage.stopped_s)]
    by_rq = saves[(saves["mode"] == "rq") & (saves["acknowledged_s"] >= outage.started_s)]
    fell_back_s, first_done_s = _least(by_thread["acknowledged_s"]), _least(by_thread["done_s"])
    came_back_s = _least(by_rq["acknowledged_s"])
    ended = saves["done_s"].dropna()
    return Moments(
        None if fell_back_s is None else fell_back_s - outage.stopped_s,
        None if first_done_s is None or fell_back_s is None else first_done_s - fell_back_s,
        None if came_back_s is None else came_back_s - outage.started_s,
        None if ended.empty else max(0.0, float(ended.max()) - outage.started_s),
    )


def _least(values: pd.Series) -> float | None:
    known = values.dropna()
    return None if known.empty else float(known.min())


def outages_table(run: Run) -> pd.DataFrame:
    """A row for each trial with an outage: how long Redis was away, the four spans of Moments, and how long saves took
    to be acknowledged while it was away."""
    rows = []
    for _, trial in run.good_trials().iterrows():
        outage = outage_of(trial["faults"])
        if outage is None:
            continue
        saves = in_seconds(run.events[run.events["trial"] == trial["trial"]])
        found = moments(saves, outage)
        during = saves[(saves["intended_s"] >= outage.stopped_s) & (saves["intended_s"] < outage.started_s)]
        rows.append(
            {
                "trial": int(trial["trial"]),
                "Redis away, s": outage.started_s - outage.stopped_s,
                "until a thread took a save, s": found.to_fall_back_s,
                "from there until one was done, s": found.to_first_done_s,
                "Redis back until RQ took a save, s": found.to_come_back_s,
                "Redis back until all was done, s": found.to_all_done_s,
                "longest answer while away, ms": _most_ms(during["ack_ms"]),
            }
        )
    names = ["trial", "Redis away, s"] if not rows else list(rows[0])
    return pd.DataFrame(rows, columns=names).set_index("trial")


def saves_table(run: Run) -> pd.DataFrame:
    """A row a configuration: what was offered, answered, done, lost and duplicated, how long answers took, and DOUBTS."""
    trials, events = run.good_trials(), run.good_events()
    rows = []
    for label, name in names(run.experiment).items():
        mine = trials[(trials["label"] == label) & ~trials["copy"]]
        answers_ms = events[(events["label"] == label) & ~events["copy"]]["ack_ms"].dropna().astype(float)
        p95 = stats.quantile(answers_ms.tolist(), 0.95)
        rows.append(
            {
                "configuration": name,
                "saves": int(mine["offered"].sum()),
                "answered": int(mine["acknowledged"].sum()),
                # Of trials that drained; None where none did.
                "lost": None if mine["lost"].isna().all() else int(mine["lost"].sum()),
                "duplicated": int(mine["duplicated"].sum()),
                "done per second": _median(mine["throughput_per_s"]),
                "first save to last done, s": _median(mine["drain_s"]),
                "answer median, ms": _median(answers_ms),
                "answer p95, ms": p95,
                "longest answer, ms": _most_ms(answers_ms),
                DOUBTS: doubts_beside(run, label),
            }
        )
    return told_below(pd.DataFrame(rows).set_index("configuration"), run)


def _median(values: pd.Series) -> float | None:
    known = values.dropna()
    return None if known.empty else float(known.astype(float).median())


def _most_ms(values: pd.Series) -> float | None:
    known = values.dropna()
    return None if known.empty else float(known.max())


def timeline(run: Run) -> Plot:
    """For each configuration's first trial: saves acknowledged and done in each second above, and below how long each
    save's answer took, by who took it in hand. The outage is shaded."""
    good = run.good_trials()
    firsts = good[~good["copy"]].sort_values("block").drop_duplicates("label")
    order = {label: name for label, name in names(run.experiment).items() if label in set(firsts["label"])}
    if not order:
        return nothing_to_draw()
    figure = Figure(figsize=(5.8, 5.2 * len(order)), layout="constrained")
    panels = figure.subplots(2 * len(order), 1, squeeze=False)[:, 0]
    words, last_s, slowest_ms, most = [], 1.0, 1.0, 1
    for place, (label, name) in enumerate(order.items()):
        trial = firsts[firsts["label"] == label].iloc[0]
        saves = in_seconds(run.events[run.events["trial"] == trial["trial"]])
        counts, outage = per_second(saves), outage_of(trial["faults"])
        above, below = panels[2 * place], panels[2 * place + 1]
        _draw_counts(above, counts, name)
        _draw_answers(below, saves)
        if outage is not None:
            for axes in (above, below):
                axes.axvspan(
                    outage.stopped_s, outage.started_s, color="#000000", alpha=0.12, label="Redis away"
                )
        last_s = max(last_s, float(counts.index[-1]) + 1)
        slowest_ms = max(slowest_ms, _most_ms(saves["ack_ms"]) or 0.0)
        most = max(most, int(counts.max().max()))
        away = f", Redis away from {cell(outage.stopped_s)} to {cell(outage.started_s)} s" if outage else ""
        words.append(f"{name}: all done after {cell(_most_ms(saves['done_s']))} s{away}")
    for number, axes in enumerate(panels):
        axes.set_xlim(0, last_s)
        axes.set_ylim(0, 1.1 * (slowest_ms if number % 2 else most))
    legend_below(figure, columns=2)
    return Plot(figure, f"Saves acknowledged and bookmarks done, second by second. {'; '.join(words)}.")


def _draw_counts(axes: Axes, counts: pd.DataFrame, title: str) -> None:
    edges = [*counts.index, counts.index[-1] + 1]
    for number, (name, words) in enumerate(
        {"acknowledged": "saves answered", "done": "bookmarks done"}.items()
    ):
        style = ("-", "--")[number]
        axes.stairs(
            counts[name],
            edges,
            color=LOOKS[number][0],
            linestyle=style,
            linewidth=2,
            label=words,
            baseline=None,
        )
    _dress(axes, "", "per second", title)


def _draw_answers(axes: Axes, saves: pd.DataFrame) -> None:
    for number, (mode, words) in enumerate(_MODES.items(), start=2):
        mine = saves[saves["mode"] == mode].dropna(subset=["ack_ms"])
        if len(mine):
            colour, marker, _ = LOOKS[number]
            at_s, took_ms = mine["intended_s"].astype(float), mine["ack_ms"].astype(float)
            axes.plot(at_s, took_ms, linestyle="", marker=marker, color=colour, markersize=5, label=words)
    _dress(axes, "seconds from the first save", "answer took, ms", "")


def _dress(axes: Axes, x_label: str, y_label: str, title: str) -> None:
    axes.set_xlabel(x_label, fontsize=_FONT_SIZE)
    axes.set_ylabel(y_label, fontsize=_FONT_SIZE)
    axes.set_title(title, fontsize=_FONT_SIZE)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def what_the_fallback_costs(run: Run) -> Conclusion:
    """Whether anything was lost or done twice, how long the change took, and threads against workers;
    `checks.nothing_counts` if no trial counts."""
    if none := checks.nothing_counts(run, "what the fallback costs"):
        return none
    sentences = [*_kept(run), *_changes(outages_table(run)), *_threads_against_workers(run)]
    blocks = int(run.good_trials()["block"].nunique())
    exploratory = "" if blocks >= stats.BLOCKS_TO_CONCLUDE else "Exploratory: "
    return Conclusion(exploratory + " ".join(sentences), checks.doubts(run))


def _kept(run: Run) -> list[str]:
    trials = run.good_trials()
    refused, lost, twice = (int(trials[name].sum()) for name in ("refused", "lost", "duplicated"))
    saves = int(trials["acknowledged"].sum())
    if cut_off := int(trials["lost"].isna().sum()):
        return [
            f"Of {saves} saves answered, {lost} were lost in the trials that drained and {twice} done twice;"
            f" {refused} were refused. In {cut_off} of {len(trials)} trials some were still open when the time was"
            " up: whether those are lost is not known."
        ]
    if not (lost or twice or refused):
        return [f"Of {saves} saves, none was refused, lost or done twice."]
    return [f"Of {saves} saves answered, {lost} were lost and {twice} done twice; {refused} were refused."]


def _changes(outages: pd.DataFrame) -> list[str]:
    """Of several trials the longest: what somebody has to expect."""
    if outages.empty:
        return []
    spans = {
        "until a thread took a save, s": "a thread had the next save in hand {} after Redis stopped",
        "from there until one was done, s": "the first one was done {} later",
        "Redis back until RQ took a save, s": "RQ had one {} after Redis was back",
        "Redis back until all was done, s": "all was done {} after that",
    }
    said = []
    for column, words in spans.items():
        known, trials = outages[column].dropna(), len(outages)
        never = f" (but never in {trials - len(known)} of {trials} trials)" if len(known) < trials else ""
        said.append(
            words.format("never" if known.empty else f"{cell(float(known.max()))} s")
            + ("" if known.empty else never)
        )
    several = f" (the longest of {len(outages)} trials)" if len(outages) > 1 else ""
    return [f"{'; '.join(said)}{several}."[0].upper() + f"{'; '.join(said)}{several}."[1:]]


def _threads_against_workers(run: Run) -> list[str]:
    modes = {label: (c.mode, c.redis_outage_s) for c, label in run.experiment.labels.items()}
    workers = next((label for label, found in modes.items() if found == ("rq", 0.0)), None)
    threads = next((label for label, found in modes.items() if found[0] == "thread"), None)
    if workers is None or threads is None:
        return []
    table, sentences = summaries.figures(run), []
    for figure, words in (
        ("throughput_per_s", "bookmarks done per second"),
        ("ack_p50_ms", "the median answer"),
    ):
        mine, theirs = (summaries.by_block(table, label, figure) for label in (threads, workers))
        ratio = stats.ratio_within_blocks(mine, theirs, stopped_early=run.ended_early)
        if ratio is not None:
            times = f"{cell(ratio.mean)} times{bounds_in_words(ratio)}"
            sentences.append(f"{words} {times} that of RQ's workers{not_shown(ratio)}")
    return [f"With threads from the start: {'; '.join(sentences)}."] if sentences else []
