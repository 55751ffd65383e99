"""An experiment is checked whole, and its trials are balanced."""

from collections import Counter

import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.spec import Configuration, Experiment


def test_every_block_holds_every_configuration_once():
    experiment = Experiment(worker_counts=(1, 2, 4), kinds=("fork", "simple"), repeats=5, seed=3)
    plan = experiment.plan()
    assert [planned.number for planned in plan] == list(range(1, 31))
    for block in range(1, 6):
        of_block = [planned.configuration for planned in plan if planned.block == block]
        assert Counter(of_block) == Counter(experiment.configurations)


def test_the_seed_decides_the_order():
    assert Experiment(seed=1).plan() == Experiment(seed=1).plan()
    assert Experiment(seed=1).plan() != Experiment(seed=2).plan()
    orders = {
        tuple(planned.configuration for planned in Experiment(repeats=6).plan() if planned.block == block)
        for block in range(1, 7)
    }
    assert len(orders) > 1, "every block has the same order"


def test_the_baseline_is_the_fewest_workers_of_the_first_kind():
    assert Experiment(worker_counts=(4, 2), kinds=("simple", "fork")).baseline == Configuration("simple", 2)


def test_a_notebooks_lists_and_a_saved_experiment_come_back_the_same():
    experiment = Experiment(worker_counts=[2, 1], kinds=["simple"], origin_latency_ms=50)  # type: ignore[arg-type]
    assert experiment.worker_counts == (2, 1)
    assert Experiment.from_mapping(experiment.to_mapping()) == experiment


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worker_counts": "[1, 2]"}, ["worker_counts", "'[1, 2]'", "-y '{worker_counts: [1, 2]}'"]),
        ({"kinds": "fork"}, ["kinds", "'fork'", "-y '{kinds: [fork, simple]}'"]),
        ({"worker_counts": 4}, ["worker_counts is 4", "-y"]),
        ({"worker_counts": []}, ["worker_counts is empty"]),
        ({"worker_counts": [1, 0]}, ["worker_counts=0", "1 to"]),
        ({"worker_counts": [1, 2.5]}, ["worker_counts", "2.5", "whole number"]),
        ({"worker_counts": [True]}, ["worker_counts", "True"]),
        ({"worker_counts": [2, 2]}, ["holds 2 twice"]),
        ({"kinds": ["frok"]}, ["'frok'", "did you mean 'fork'?"]),
        ({"kinds": [["fork"]]}, ["kinds", "['fork']"]),
        ({"bookmarks": "24"}, ["bookmarks", "'24'"]),
        ({"bookmarks": 0}, ["bookmarks=0", "1 to"]),
        ({"repeats": -1}, ["repeats=-1"]),
        ({"origin_latency_ms": float("nan")}, ["origin_latency_ms=nan"]),
        ({"origin_latency_ms": None}, ["origin_latency_ms is None"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"pages": "no/such/folder"}, ["'no/such/folder'", "not a folder"]),
        ({"worker_count": [1]}, ["'worker_count'", "did you mean 'worker_counts'?"]),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy_in_one_line(values, words):
    with pytest.raises(LabError) as caught:
        Experiment.from_mapping(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
