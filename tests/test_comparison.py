"""A claim is made where the blocks support it, and otherwise not; each sentence carries its interval and its n."""

import json
import math

import numpy as np
import pytest

from fuze_bench.lab.judgement.comparison import compare
from fuze_bench.lab.judgement.verdicts import Answer

SPREAD = [-0.06, -0.02, 0.01, 0.02, 0.04, 0.05, -0.05, 0.01]
ONES = dict.fromkeys(range(8), 1.0)


def rival(ratio, spread=SPREAD):
    values = np.asarray(spread) - np.mean(spread)
    return dict(enumerate(np.exp(math.log(ratio) + values)))


def test_a_difference_is_claimed_with_interval_and_blocks():
    found = compare("B", rival(1.23), "A", ONES)
    assert found.differs is Answer.YES
    # s of the logarithms is 0.04, t(0.975, 7) = 2.365: 1.23 times e^±0.0334.
    assert found.sentence == "B is 1.23 times A (95 % 1.19 to 1.27), 8 blocks"


def test_no_difference_says_what_could_have_been_seen():
    found = compare("B", rival(1.01), "A", ONES)
    assert found.differs is Answer.NO
    # The effect of a paired t test with 8 blocks and 80 % power is 1.1560 s: e^(1.1560 · 0.04) = 1.0473.
    assert found.ratio.detectable == pytest.approx(1.0473, abs=1e-4)
    assert found.sentence == (
        "no difference seen between B and A (95 % 0.977 to 1.04, 8 blocks); this run could have seen 1.05 times"
        " or more"
    )


@pytest.mark.parametrize("blocks", [1, 5])
def test_fewer_than_six_blocks_are_exploratory_and_claim_nothing(blocks):
    found = compare("B", dict(list(rival(9.0).items())[:blocks]), "A", ONES)
    assert found.differs is Answer.UNKNOWN
    assert found.sentence.startswith("exploratory: B was ")
    assert f"in {blocks} block" in found.sentence
    assert "6 or more are needed" in found.sentence


def test_no_common_block_is_exploratory():
    found = compare("B", {1: 2.0}, "A", {2: 2.0})
    assert found.differs is Answer.UNKNOWN
    assert found.sentence == "exploratory: no block has a figure of both B and A"
    assert found.as_json()["ratio"] is None


def test_what_the_baseline_does_to_itself_is_no_difference_of_another():
    copy = rival(1.10)
    found = compare("B", rival(1.08), "A", ONES, copy_by_block=copy)
    assert found.floor.mean == pytest.approx(1.10)
    assert found.differs is Answer.UNKNOWN
    assert "no more than A differed from its own second copy" in found.sentence
    beyond = compare("B", rival(1.2), "A", ONES, copy_by_block=copy)
    assert beyond.differs is Answer.YES
    assert beyond.sentence.endswith("; A against itself: 1.1 times")
    # A copy that is not clearly different takes nothing away.
    assert compare("B", rival(1.08), "A", ONES, copy_by_block=rival(1.02)).differs is Answer.YES


def test_a_bound_beside_one_does_not_read_as_one():
    found = compare("B", rival(1.0354), "A", ONES)
    assert found.ratio.is_clear
    assert "95 % 1.0" in found.sentence
    assert "95 % 1 to" not in found.sentence


def test_a_comparison_shows_itself_and_goes_into_json():
    found = compare("<B>", rival(1.23), "A", ONES, copy_by_block=ONES)
    assert "&lt;B&gt; is 1.23 times A" in found._repr_html_()
    written = json.loads(json.dumps(found.as_json()))
    assert (written["differs"], written["blocks"], written["noise_floor"]) == ("yes", 8, 1.0)
    assert written["low"] < written["ratio"] < written["high"]
