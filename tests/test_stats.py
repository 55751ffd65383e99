"""Statistics against figures worked out by hand or printed in a textbook."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fuze_bench.lab.judgement.comparison import compare
from fuze_bench.lab.judgement.stats import nearest_rank, quantile, ratio_within_blocks, spread
from fuze_bench.lab.judgement.verdicts import Answer

CASES = Path(__file__).parent / "cases"


def test_a_quantile_is_the_nearest_rank():
    hundred = list(range(100, 0, -1))
    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.9) == 90
    assert quantile(hundred, 0.25) == 25
    assert quantile(hundred, 0.55) == 55, "though 0.55 * 100 is a little more than 55"


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


def samples_of(counts: dict[str, int]) -> list[float]:
    return [float(value) for value, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize("case", json.loads((CASES / "S01.json").read_text()))
def test_one_convention_gives_every_quantile(case):
    samples = samples_of(case["samples"])
    for name, expected in case.items():
        if name.startswith("p"):
            found = nearest_rank(samples, int(name[1:]) / 100)
            assert found == (None if expected == "too few" else expected), name


def test_a_p99_of_a_hundred_samples_is_the_last_but_one():
    assert nearest_rank([1.0] * 99 + [1e7], 0.99) == 1
    assert nearest_rank([1.0] * 98 + [1e7] * 2, 0.99) == 1e7


def test_a_p99_of_few_samples_is_not_the_maximum_renamed():
    given = {n: nearest_rank(range(1, n + 1), 0.99) for n in (6, 30, 99, 100, 1000)}
    assert given == {6: None, 30: None, 99: None, 100: 99, 1000: 990}
    assert [quantile(range(1, n + 1), 0.99) for n in (6, 100, 999, 1000)] == [None, None, None, 990]


def test_pooled_requests_would_invent_a_difference_and_blocks_do_not():
    case = json.loads((CASES / "S05.json").read_text())
    rng = np.random.default_rng(5)
    by_arm: dict[str, dict[int, float]] = {"A": {}, "B": {}}
    pooled: dict[str, list[float]] = {"A": [], "B": []}
    for trial in case["trials"]:
        requests_ms = rng.normal(trial["mean_ms"], trial["sd_ms"], trial["n"])
        by_arm[trial["arm"]][trial["block"]] = float(np.median(requests_ms))
        pooled[trial["arm"]].extend(requests_ms)
    trap = np.mean(pooled["B"]) - np.mean(pooled["A"])
    error = math.sqrt(sum(np.var(pooled[arm]) / len(pooled[arm]) for arm in "AB"))
    assert trap > 10 * 1.96 * error, "the trap must be one"

    found = compare("B", by_arm["B"], "A", by_arm["A"])
    assert found.ratio.low < 1 < found.ratio.high
    assert (found.ratio.high - found.ratio.low) / 2 == pytest.approx(0.05, abs=0.005)
    assert found.differs is Answer.UNKNOWN, "five blocks are no claim either"
    # With a sixth block like the first, there are enough to say that there is none.
    six = compare("B", by_arm["B"] | {5: by_arm["B"][0]}, "A", by_arm["A"] | {5: by_arm["A"][0]})
    assert six.differs is Answer.NO
    assert six.sentence.startswith("no difference seen between B and A")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_without_a_logarithm_has_no_ratio(bad):
    ratio = ratio_within_blocks({1: bad, 2: 4.0, 3: 2.0}, {1: 1.0, 2: 2.0, 3: bad})
    assert (ratio.blocks, ratio.mean) == (1, pytest.approx(2.0))


@pytest.mark.parametrize(("effect", "pairs"), [(1.0, 10), (0.8, 15), (0.5, 34), (0.2, 199)])
def test_what_a_run_could_have_seen_is_the_paired_t_tests_effect(effect, pairs):
    # The pairs needed for a standardised effect at 5 %, two-sided, with 80 % power (Cohen 1988; G*Power).
    for blocks, is_seen in [(pairs, True), (pairs - 1, False)]:
        values = np.arange(blocks) - (blocks - 1) / 2
        logs = 0.07 * values / values.std(ddof=1)
        ratio = ratio_within_blocks(dict(enumerate(np.exp(logs))), dict.fromkeys(range(blocks), 1.0))
        assert (math.log(ratio.detectable) <= 0.07 * effect) is is_seen


def test_a_run_stopped_early_has_the_wider_interval():
    figures, ones = {n: 2.0 + n / 10 for n in range(8)}, dict.fromkeys(range(8), 1.0)
    plain = ratio_within_blocks(figures, ones)
    early = ratio_within_blocks(figures, ones, stopped_early=True)
    # t(0.9775, 7) = 2.4363 against t(0.975, 7) = 2.3646.
    widths = [math.log(r.high / r.mean) for r in (early, plain)]
    assert widths[0] / widths[1] == pytest.approx(2.4363 / 2.3646, abs=1e-4)
