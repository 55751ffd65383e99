"""Statistics against figures worked out by hand or printed in a textbook."""

import math

import pandas as pd
import pytest

from fuze_bench.lab.spec import Configuration
from fuze_bench.lab.stats import quantile, ratio_within_blocks, spread, throughput_table, times_table


def test_a_quantile_is_the_nearest_rank():
    hundred = list(range(100, 0, -1))
    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.9) == 90
    assert quantile(hundred, 0.25) == 25


def test_a_quantile_needs_ten_samples_beyond_it():
    assert quantile(range(1, 101), 0.9) == 90  # exactly 10 lie above
    assert quantile(range(1, 101), 0.91) is None
    assert quantile(range(1, 100), 0.9) is None  # rank 90 of 99: 9 above
    assert quantile(range(1, 101), 0.11) == 11
    assert quantile(range(1, 101), 0.1) is None  # 9 below
    assert quantile(range(1, 20), 0.5) is None
    assert quantile(range(1, 21), 0.5) == 10
    assert quantile([], 0.5) is None


@pytest.mark.parametrize("q", [0, 1, -0.5, math.nan])
def test_a_quantile_lies_between_nought_and_one(q):
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1.0], q)


def test_a_spread_is_median_and_range():
    found = spread([3.0, 1.0, 2.0, 8.0])
    assert found is not None
    assert (found.median, found.lowest, found.highest, found.repeats) == (2.5, 1.0, 8.0, 4)
    assert spread([]) is None


def test_the_interval_is_students_on_log_ratios():
    # Logarithms of the ratios: 0, 1, 2. Mean 1, s = 1, t(0.975, 2) = 4.3027 (any table): half width 4.3027 / √3.
    ratio = ratio_within_blocks(
        {1: 1.0, 2: 2 * math.e, 3: 3 * math.e**2, 4: 7.0}, {1: 1.0, 2: 2.0, 3: 3.0, 9: 1.0}
    )
    assert ratio is not None
    assert ratio.blocks == 3
    assert ratio.mean == pytest.approx(math.e)
    assert math.log(ratio.low) == pytest.approx(1 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert math.log(ratio.high) == pytest.approx(1 + 4.3027 / math.sqrt(3), abs=1e-4)
    assert ratio.is_exploratory
    assert not ratio.is_clear


def test_what_slows_both_of_a_block_cancels():
    ratio = ratio_within_blocks({1: 4.0, 2: 2.0, 3: 1.0}, {1: 2.0, 2: 1.0, 3: 0.5})
    assert ratio is not None
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.is_clear


def test_one_block_has_no_interval_and_none_no_ratio():
    ratio = ratio_within_blocks({1: 6.0}, {1: 2.0})
    assert ratio is not None
    assert (ratio.low, ratio.high, ratio.is_clear) == (None, None, False)
    assert ratio.mean == pytest.approx(3.0)
    assert ratio_within_blocks({1: 6.0}, {2: 2.0}) is None


def test_six_blocks_are_no_longer_exploratory():
    values = {block: 2.0 + block / 100 for block in range(1, 7)}
    ratio = ratio_within_blocks(values, dict.fromkeys(values, 1.0))
    assert ratio is not None
    assert not ratio.is_exploratory


def test_the_throughput_table_compares_with_the_baseline():
    one, two = Configuration("fork", 1), Configuration("fork", 2)
    trials = pd.DataFrame(
        [
            {"kind": "fork", "workers": workers, "block": block, "throughput_per_s": figure}
            for workers, block, figure in [(1, 1, 1.0), (1, 2, 3.0), (2, 1, 2.0), (2, 2, 6.0)]
        ]
    )
    table = throughput_table(trials, [one, two], one)
    assert list(table.index) == ["1 fork worker", "2 fork workers"]
    assert table.loc["2 fork workers", "median, bookmarks/s"] == 4.0
    assert table.loc["2 fork workers", "times 1 fork worker"] == pytest.approx(2.0)
    assert pd.isna(table.loc["1 fork worker", "times 1 fork worker"])


def test_the_times_table_leaves_out_what_is_too_few():
    events = pd.DataFrame(
        [
            {"kind": "fork", "workers": 1, "wait_ms": 1000.0 * n, "service_ms": 500.0, "total_ms": 1500.0}
            for n in range(1, 25)
        ]
    )
    row = times_table(events, [Configuration("fork", 1)]).loc["1 fork worker"]
    assert row["wait median, s"] == 12.5
    assert row["wait 75 %, s"] is None or math.isnan(row["wait 75 %, s"])
