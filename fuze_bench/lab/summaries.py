"""Tables of a run's figures: throughput, times, stages, and quantiles over windows of time; from DataFrames alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pandas as pd

from fuze_bench.lab.spec import Configuration
from fuze_bench.lab.stats import LEVEL, quantile, ratio_within_blocks, spread

TIMES = {"wait_ms": "wait", "service_ms": "service", "total_ms": "end to end"}
STAGES = ("fetch_ms", "extract_ms", "embed_ms", "analyse_ms")


def throughput_by_block(trials: pd.DataFrame, configuration: Configuration) -> dict[int, float]:
    """Throughput (bookmarks/s) of a configuration's trials, by block. `trials` are good ones."""
    chosen = _of(trials, configuration).dropna(subset=["throughput_per_s"])
    return {
        int(block): float(value)
        for block, value in zip(chosen["block"], chosen["throughput_per_s"], strict=True)
    }


def throughput_table(
    trials: pd.DataFrame, configurations: Sequence[Configuration], baseline: Configuration
) -> pd.DataFrame:
    """A row a configuration: median, lowest and highest throughput (bookmarks/s), and the ratio to the baseline."""
    reference = throughput_by_block(trials, baseline)
    rows = []
    for configuration in configurations:
        values = throughput_by_block(trials, configuration)
        found = spread(list(values.values()))
        ratio = ratio_within_blocks(values, reference) if configuration != baseline else None
        rows.append(
            {
                "configuration": configuration.label,
                "repeats": len(values),
                "median, bookmarks/s": found.median if found else None,
                "lowest": found.lowest if found else None,
                "highest": found.highest if found else None,
                f"times {baseline.label}": ratio.mean if ratio else None,
                f"{LEVEL:.0%} from": ratio.low if ratio else None,
                f"{LEVEL:.0%} to": ratio.high if ratio else None,
            }
        )
    return pd.DataFrame(rows).set_index("configuration")


def time_medians(events: pd.DataFrame) -> pd.DataFrame:
    """A row a trial: the median wait, service and end-to-end time of its bookmarks, in milliseconds."""
    keys = ["kind", "workers", "block"]
    return events.dropna(subset=list(TIMES)).groupby(keys)[list(TIMES)].median().reset_index()


def times_table(events: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    """A row a configuration: median and 75th percentile over the bookmarks of all its trials, in seconds."""
    rows = []
    for configuration in configurations:
        chosen = _of(events, configuration)
        row: dict[str, object] = {"configuration": configuration.label, "bookmarks": len(chosen)}
        for column, name in TIMES.items():
            values = [float(value) / 1e3 for value in chosen[column].dropna()]
            row[f"{name} median, s"] = statistics.median(values) if values else None
            row[f"{name} 75 %, s"] = quantile(values, 0.75)
        rows.append(row)
    return pd.DataFrame(rows).set_index("configuration")


def stages_table(events: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    """A row a configuration: the median of each stage, and of the service time, in milliseconds."""
    rows = []
    for configuration in configurations:
        chosen = _of(events, configuration)
        medians = {
            f"{column.removesuffix('_ms')}, ms": _median(chosen[column]) for column in (*STAGES, "service_ms")
        }
        rows.append({"configuration": configuration.label, **medians})
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


def _median(column: pd.Series) -> float | None:
    values = [float(value) for value in column.dropna()]
    return statistics.median(values) if values else None


def _of(table: pd.DataFrame, configuration: Configuration) -> pd.DataFrame:
    return table[(table["kind"] == configuration.kind) & (table["workers"] == configuration.workers)]
