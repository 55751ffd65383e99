"""Tables of a run's figures, from DataFrames alone: a figure a trial, comparisons over blocks, quantiles over windows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from fuze_bench.lab.judgement.comparison import Comparison, compare
from fuze_bench.lab.judgement.stats import LEVEL, quantile, spread
from fuze_bench.lab.judgement.tables import GROWS
from fuze_bench.lab.judgement.verdict_tables import DOUBTS, doubts_beside, told_below

if TYPE_CHECKING:
    from fuze_bench.lab.runs.results import Run

TIMES = {"ack_ms": "answer", "wait_ms": "wait", "service_ms": "service", "total_ms": "end to end"}
STAGES = ("fetch_ms", "extract_ms", "embed_ms", "analyse_ms")
#: Figures of one trial, with their meaning and unit.
FIGURES = {
    "throughput_per_s": "jobs done per second",
    "drain_s": "time until all was done, s",
    "ack_p50_ms": "median time to the answer, ms",
    "ack_p95_ms": "95th percentile of the time to the answer, ms",
    "wait_p50_s": "median wait, s",
    "wait_p95_s": "95th percentile of the wait, s",
    "total_p50_s": "median time from intended to done, s",
    "cpu_s_per_1000": "processor seconds of the workers per 1,000 jobs",
    "peak_pss_mib": "most memory of the workers together, MiB",
}
#: Those of FIGURES that grow as long as a queue does.
OF_WAITING = ("wait_p50_s", "wait_p95_s", "total_p50_s")


def figures(run: Run) -> pd.DataFrame:
    """A row a trial that counts: trial, block, label, copy, the factors, and FIGURES; missing where there are too few
    samples, and OF_WAITING of a configuration that is `growing`: they say nothing but how long the trial was. One that a verdict makes invalid (see `trial_verdicts.INVALIDATING`) counts in no figure and no ratio.
    """
    trials = run.good_trials()
    quantiles = run.good_events().groupby("trial").apply(_quantiles, include_groups=False)
    table = (
        trials.merge(quantiles, left_on="trial", right_index=True, how="left") if len(quantiles) else trials
    )
    for name in FIGURES:
        if name not in table:
            table[name] = pd.Series(pd.NA, index=table.index, dtype="Float64")
    table.loc[table["label"].isin(growing(run)), list(OF_WAITING)] = pd.NA
    done = table["processed"] + table["failed"]
    table["cpu_s_per_1000"] = (1000 * table["cpu_s"] / done.where(done > 0)).astype("Float64")
    table["peak_pss_mib"] = (table["peak_pss_bytes"] / 2**20).astype("Float64")
    return table


def growing(run: Run) -> set[str]:
    """The configurations whose queue grew in most of their trials, by label.

    All trials of a configuration are treated alike: to leave out those alone whose queue happened to grow would leave
    the lucky ones.
    """
    trials = run.good_trials()
    shares = trials["trial"].isin(run.growing).groupby(trials["label"]).mean()
    return set(shares[shares > 0.5].index)


def _quantiles(events: pd.DataFrame) -> pd.Series:
    wait_s, total_s = events["wait_ms"].dropna() / 1e3, events["total_ms"].dropna() / 1e3
    ack_ms = events["ack_ms"].dropna()
    found = {
        "ack_p50_ms": _median(ack_ms),
        "ack_p95_ms": quantile(list(ack_ms), 0.95),
        "wait_p50_s": _median(wait_s),
        "wait_p95_s": quantile(list(wait_s), 0.95),
        "total_p50_s": _median(total_s),
    }
    return pd.Series(found, dtype="Float64")


def by_block(
    table: pd.DataFrame, label: str, figure: str = "throughput_per_s", *, copy: bool = False
) -> dict[int, float]:
    """A figure of one configuration's trials, by block. `table` is `figures`, or the good trials of a run."""
    chosen = table[(table["label"] == label) & (table["copy"] == copy)].dropna(subset=[figure])
    return {int(block): float(value) for block, value in zip(chosen["block"], chosen[figure], strict=True)}


def primary_figure(run: Run) -> str:
    """What configurations are compared by: throughput where all jobs come at once, else the time to done."""
    is_backlog = run.experiment.baseline.arrivals == "backlog"
    return "throughput_per_s" if is_backlog else "total_p50_s"


def comparisons(run: Run, figure: str | None = None) -> list[Comparison]:
    """Every configuration against the baseline, in order; the baseline's copy against it as well, as noise floor."""
    figure = figure or primary_figure(run)
    table, labels = figures(run), list(run.experiment.labels.values())
    reference = by_block(table, labels[0], figure)
    copy = by_block(table, labels[0], figure, copy=True)
    early = run.ended_early
    return [
        compare(
            label,
            by_block(table, label, figure),
            labels[0],
            reference,
            copy_by_block=copy,
            stopped_early=early,
        )
        for label in labels[1:]
    ] + ([compare(f"{labels[0]} again", copy, labels[0], reference, stopped_early=early)] if copy else [])


def comparison_table(run: Run, figure: str | None = None) -> pd.DataFrame:
    """A row a configuration: trials, median, lowest and highest of a figure, the ratio to the baseline, and DOUBTS."""
    figure = figure or primary_figure(run)
    table, labels = figures(run), list(run.experiment.labels.values())
    ratios = {c.name: c.ratio for c in comparisons(run, figure)}
    rows = []
    for label in labels:
        values = list(by_block(table, label, figure).values())
        found, ratio = spread(values), ratios.get(label)
        rows.append(
            {
                "configuration": label,
                "trials": len(values),
                f"median: {FIGURES[figure]}": found.median if found else None,
                "lowest": found.lowest if found else None,
                "highest": found.highest if found else None,
                f"times {labels[0]}": ratio.mean if ratio else None,
                f"{LEVEL:.0%} from": ratio.low if ratio else None,
                f"{LEVEL:.0%} to": ratio.high if ratio else None,
                DOUBTS: doubts_beside(run, label),
            }
        )
    return told_below(pd.DataFrame(rows).set_index("configuration"), run)


def times_table(run: Run) -> pd.DataFrame:
    """A row a configuration: median and 95th percentile over the jobs of all its trials, in seconds, how many, and DOUBTS.

    Of these pooled jobs there is no interval: they are not independent. Where a queue grew, GROWS stands for the times
    that grow with it.
    """
    events, growing_ones, rows = run.good_events(), growing(run), []
    for label in run.experiment.labels.values():
        chosen = events[(events["label"] == label) & ~events["copy"]]
        row: dict[str, object] = {"configuration": label, "jobs": len(chosen)}
        grows = label in growing_ones
        for column, name in TIMES.items():
            values = [float(value) / 1e3 for value in chosen[column].dropna()]
            has_none = grows and column in ("wait_ms", "total_ms")
            row[f"{name} median, s"] = GROWS if has_none else statistics.median(values) if values else None
            row[f"{name} p95, s"] = GROWS if has_none else quantile(values, 0.95)
        rows.append({**row, DOUBTS: doubts_beside(run, label)})
    return told_below(pd.DataFrame(rows).set_index("configuration"), run)


def stages_table(run: Run) -> pd.DataFrame:
    """A row a configuration: the median of each stage, and of the service time, in milliseconds."""
    events, rows = run.good_events(), []
    for label in run.experiment.labels.values():
        chosen = events[(events["label"] == label) & ~events["copy"]]
        medians = {
            f"{column.removesuffix('_ms')}, ms": _median(chosen[column]) for column in (*STAGES, "service_ms")
        }
        rows.append({"configuration": label, **medians})
    return pd.DataFrame(rows).set_index("configuration")


def resources_table(run: Run) -> pd.DataFrame:
    """A row a configuration: medians over its trials of processor time, memory and Redis commands."""
    table, rows = figures(run), []
    for label in run.experiment.labels.values():
        chosen = table[(table["label"] == label) & ~table["copy"]]
        done = chosen["processed"] + chosen["failed"]
        rows.append(
            {
                "configuration": label,
                "processor s per 1,000 jobs": _median(chosen["cpu_s_per_1000"].dropna()),
                "memory of the workers, MiB": _median(chosen["peak_pss_mib"].dropna()),
                "Redis commands a job": _median((chosen["redis_commands"] / done.where(done > 0)).dropna()),
            }
        )
    return pd.DataFrame(rows).set_index("configuration")


def window_quantiles(events: pd.DataFrame, column: str, q: float, window_s: float) -> pd.DataFrame:
    """A row a window of the jobs' intended times: its jobs, and the quantile `q` of their `column` (milliseconds).

    The columns say that a figure is of its window alone. The run's own quantile comes from all its samples: the
    worst window's is another thing, and so is a mean of windows.
    """
    known = events.dropna(subset=["intended_ns", column])
    label = f"p{100 * q:g} of this window, ms"
    if known.empty:
        return pd.DataFrame(columns=["window from, s", "jobs in this window", label])
    stamps_ns = known["intended_ns"].astype("int64")
    number = (stamps_ns - stamps_ns.min()) // round(window_s * 1e9)
    rows = [
        {
            "window from, s": int(window) * window_s,
            "jobs in this window": len(values),
            label: quantile([float(value) for value in values], q),
        }
        for window, values in known[column].groupby(number)
    ]
    return pd.DataFrame(rows)


def _median(column: Sequence[float] | pd.Series) -> float | None:
    values = [float(value) for value in column if not pd.isna(value)]
    return statistics.median(values) if values else None
