"""Statistics over recorded runs: quantiles, spreads, and ratios within blocks with their intervals; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from fuze_bench.lab.spec import Configuration

#: A quantile with fewer samples than this beyond it is not stated.
SAMPLES_BEYOND = 10
#: With fewer blocks than this an interval is shown and the result called exploratory.
BLOCKS_TO_CONCLUDE = 6
LEVEL = 0.95
TIMES = {"wait_ms": "wait", "service_ms": "service", "total_ms": "end to end"}
STAGES = ("fetch_ms", "extract_ms", "embed_ms", "analyse_ms")


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest sample that at least the share `q` of all samples does not exceed (nearest rank, inverse of the
    empirical distribution; type 1 of Hyndman and Fan 1996): a value that was seen, never one in between.

    None where fewer than SAMPLES_BEYOND samples lie beyond it, on the shorter side: too few to say.
    """
    if not 0 < q < 1:
        raise ValueError(f"q={q}: a quantile lies between 0 and 1")
    ordered = sorted(values)
    # Rounded first, so that 0.9 times 100 samples is rank 90 and not 91.
    rank = max(1, math.ceil(round(q * len(ordered), 9)))
    if min(len(ordered) - rank, rank - 1 if q < 0.5 else math.inf) < SAMPLES_BEYOND:
        return None
    return ordered[rank - 1]


@dataclass(frozen=True)
class Spread:
    """A figure's repeats: their median, lowest, highest, and how many there were."""

    median: float
    lowest: float
    highest: float
    repeats: int


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None where there is no value."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True)
class Ratio:
    """How many times the baseline's figure: geometric mean over the blocks, and its interval.

    `low` and `high` bound it at LEVEL; None with a single block, which has no spread.
    """

    mean: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1, that is: whether these blocks tell the two apart."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    @property
    def is_exploratory(self) -> bool:
        return self.blocks < BLOCKS_TO_CONCLUDE


def ratio_within_blocks(
    by_block: Mapping[int, float], baseline_by_block: Mapping[int, float]
) -> Ratio | None:
    """Ratio to the baseline over the blocks that have both, or None if there is none.

    Student's t interval on the logarithms of the ratios: mean ± t(0.975, n-1) · s / √n, then exponentiated. What a
    slow minute does to both of a block cancels.
    """
    logs = [
        math.log(value / baseline_by_block[block])
        for block, value in sorted(by_block.items())
        if block in baseline_by_block
    ]
    if not logs:
        return None
    mean = statistics.fmean(logs)
    if len(logs) == 1:
        return Ratio(math.exp(mean), None, None, 1)
    # stdtrit is the quantile of Student's t; scipy.stats has it, too, and takes seconds to import.
    t = float(stdtrit(len(logs) - 1, (1 + LEVEL) / 2))
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))


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


def _median(column: pd.Series) -> float | None:
    values = [float(value) for value in column.dropna()]
    return statistics.median(values) if values else None


def _of(table: pd.DataFrame, configuration: Configuration) -> pd.DataFrame:
    return table[(table["kind"] == configuration.kind) & (table["workers"] == configuration.workers)]
