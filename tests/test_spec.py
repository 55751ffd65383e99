"""An experiment is checked whole, and its trials are balanced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.estimate import plan_in_words, trial_s
from fuze_bench.lab.experiments.factors import Configuration
from fuze_bench.lab.experiments.progress import duration
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.pipeline.settings import Settings

SPECS = sorted((Path(__file__).parents[1] / "data" / "experiments").glob("*.yaml"))
GRID = {"workers": [1, 2, 4], "kind": ["fork", "simple"]}


def test_every_block_holds_every_configuration_once_and_the_baseline_twice() -> None:
    experiment = Experiment(factors=GRID, blocks=5, seed=3)
    plan = experiment.plan()
    assert [planned.number for planned in plan] == list(range(1, 36))
    for block in range(1, 6):
        of_block = [planned for planned in plan if planned.block == block]
        assert Counter(p.configuration for p in of_block if not p.copy) == Counter(experiment.configurations)
        assert [p.configuration for p in of_block if p.copy] == [experiment.baseline]


def test_the_second_block_of_two_runs_in_reverse_order() -> None:
    """What changes steadily with time then hits every configuration alike."""
    experiment = Experiment(factors=GRID, blocks=6)
    blocks = [[(p.configuration, p.copy) for p in experiment.block(block)] for block in range(1, 7)]
    assert [blocks[n + 1] == blocks[n][::-1] for n in (0, 2, 4)] == [True] * 3
    assert len({tuple(block) for block in blocks}) > 2, "every two blocks have the same order"


def test_without_a_copy_a_block_is_the_configurations_alone() -> None:
    experiment = Experiment(factors=GRID, blocks=2, baseline_copy=False)
    plan = experiment.plan()
    assert experiment.trials_per_block == 6
    assert [planned.number for planned in plan] == list(range(1, 13))
    assert not any(planned.copy for planned in plan)


def test_chance_is_the_same_within_a_block_and_another_in_the_next() -> None:
    """The first block's is the seed itself: what a run of one block did is repeated by it."""
    experiment = Experiment(
        factors={"workers": [1, 2]}, fixed={"arrivals": "poisson", "rate_per_s": 9}, seed=5, blocks=3
    )
    times = {
        block: {
            tuple(experiment.arrivals_of(each).times(experiment.seed_of(block)))
            for each in experiment.configurations
        }
        for block in (1, 2, 3)
    }
    assert [len(of_block) for of_block in times.values()] == [1, 1, 1]
    assert len(set.union(*times.values())) == 3
    assert experiment.seed_of(1) == 5


def test_a_backlog_has_as_many_jobs_as_are_said() -> None:
    experiment = Experiment(jobs=7)
    assert experiment.arrivals_of(experiment.baseline).times(1) == [0.0] * 7


def test_shares_are_of_the_whole() -> None:
    assert Configuration(queues="low:3,high:1").shares == {"high": 0.25, "low": 0.75}


def test_the_time_it_takes_is_the_window_or_the_work_and_what_is_started_first() -> None:
    """In a long window little work is done; of much work in a short one, the work counts, and less with more workers."""

    def seconds(jobs: int, **fixed: Any) -> float:
        workload = {"kind": "synthetic", "mean_ms": 1000}
        experiment = Experiment.from_mapping(
            {"workload": workload, "fixed": fixed, "duration_s": 60, "jobs": jobs}
        )
        return trial_s(experiment, experiment.baseline)

    assert seconds(1, workers=1, arrivals="constant", rate_per_s=0.1) == pytest.approx(60, abs=10)
    assert seconds(100, workers=1) == pytest.approx(100, abs=10)
    assert seconds(100, workers=4) == pytest.approx(25, abs=10)
    data, anew = (Experiment(fresh=fresh, blocks=4) for fresh in ("data", "processes"))
    assert trial_s(anew, anew.baseline) - trial_s(data, data.baseline) > 5, "it loads the model"
    total_s = sum(trial_s(data, planned.configuration) for planned in data.plan())
    said = plan_in_words(data).splitlines()[-1]
    assert (
        said
        == f"8 trials, about {duration(total_s + trial_s(anew, anew.baseline) - trial_s(data, data.baseline))}"
    )


def test_the_seed_decides_the_order() -> None:
    assert Experiment(factors=GRID, seed=1).plan() == Experiment(factors=GRID, seed=1).plan()
    assert Experiment(factors=GRID, seed=1).plan() != Experiment(factors=GRID, seed=2).plan()


def test_the_baseline_is_the_first_and_labels_say_what_differs() -> None:
    experiment = Experiment(factors={"origin_latency_ms": [0, 300], "kind": ["simple"], "workers": [4, 2]})
    assert (experiment.baseline.workers, experiment.baseline.origin_latency_ms) == (4, 0)
    assert list(experiment.labels.values()) == [
        "4 simple workers",
        "2 simple workers",
        "4 simple workers, origin latency 300 ms",
        "2 simple workers, origin latency 300 ms",
    ]
    modes = [{"mode": "thread"}, {"workers": 1}, {"redis_outage_s": 2}]
    assert list(Experiment(configurations=modes).labels.values()) == [  # type: ignore[arg-type]
        "thread",
        "1 simple worker, rq",
        "2 simple workers, rq, redis outage 2 s",
    ]


def test_a_saved_experiment_comes_back_the_same() -> None:
    for workload in ("bookmarks", {"kind": "synthetic", "law": "lognormal", "mean_ms": 20, "cv": 2}):
        given = {"workload": workload, "factors": {"workers": [1, 2]}, "fixed": {"queues": "low:1,high:3"}}
        experiment = Experiment.from_mapping(given)
        again = Experiment.from_mapping(experiment.to_mapping())
        assert again.plan() == experiment.plan()
        assert again.workload == experiment.workload
        assert again.baseline.queues == "high:3,low:1"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_examples_can_be_read_and_planned(path: Path) -> None:
    experiment = Experiment.from_yaml(path)
    assert experiment.name == path.stem
    assert f"{len(experiment.plan())} trials, about " in plan_in_words(experiment)


def test_every_notebook_has_an_example_of_its_name() -> None:
    notebooks = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
    assert notebooks
    assert notebooks <= {path.stem for path in SPECS}


def test_the_time_counts_no_model_for_other_jobs_and_no_wait_beyond_the_limit() -> None:
    [start_here] = [path for path in SPECS if path.stem == "start_here"]
    assert plan_in_words(Experiment.from_yaml(start_here)).endswith("18 trials, about 30 s")
    rushed: dict[str, Any] = {"fixed": {"arrivals": "constant", "rate_per_s": 100}, "duration_s": 10}
    patient, hasty = (Experiment(**rushed, drain_limit_s=limit_s) for limit_s in (None, 2))
    assert trial_s(patient, patient.baseline) > 60
    assert 12 <= trial_s(hasty, hasty.baseline) < 20


def test_a_mode_without_workers_has_a_name_of_its_own() -> None:
    alone = Experiment(factors={"mode": ["inline"]})
    assert list(alone.labels.values()) == ["inline"]
    listed = [{"mode": "rq", "workers": 1}, {"mode": "rq", "workers": 2}, {"mode": "inline"}]
    assert list(Experiment(configurations=listed).labels.values()) == [
        "1 simple worker, rq",
        "2 simple workers, rq",
        "inline",
    ]


def test_a_setting_of_the_pipeline_is_a_factor_in_one_line() -> None:
    assert Configuration(fallback_threads=7).applied_to(Settings()).fallback_threads == 7


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worker": 4}, ["no 'worker'"]),
        ({"factor": {}}, ["no 'factor'", "did you mean 'factors'?"]),
        ({"factors": {"worker": [1]}}, ["no factor 'worker'", "did you mean 'workers'?"]),
        ({"fixed": {"origin_latency": 1}}, ["'origin_latency'", "did you mean 'origin_latency_ms'?"]),
        ({"factors": {"workers": "[1, 2]"}}, ["workers is '[1, 2]'", "not a list"]),
        ({"factors": {"workers": 4}}, ["workers is 4", "write it as [4]"]),
        ({"factors": {"workers": []}}, ["workers is empty"]),
        ({"factors": {"workers": [1, 0]}}, ["workers=0", "1 to"]),
        ({"factors": {"workers": [1, 2.5]}}, ["workers", "2.5", "whole number"]),
        ({"factors": {"workers": [True]}}, ["workers", "True"]),
        ({"factors": {"workers": [2, 2]}}, ["holds 2 twice"]),
        ({"factors": {"workers": [2]}, "fixed": {"workers": 2}}, ["workers is in factors and in fixed"]),
        ({"factors": {"kind": ["frok"]}}, ["'frok'", "did you mean 'fork'?"]),
        ({"factors": {"kind": [["fork"]]}}, ["kind", "['fork']"]),
        ({"factors": {"strategy": ["rondom"]}}, ["'rondom'", "did you mean 'random'?"]),
        ({"fixed": {"queues": "hihg:1"}}, ["'hihg'", "did you mean 'high'?"]),
        ({"fixed": {"queues": "high:many"}}, ["'high:many'", "high:1,default:3"]),
        ({"fixed": {"queues": {"high": 0}}}, ["the share of high is 0"]),
        ({"fixed": {"arrivals": "poison"}}, ["'poison'", "did you mean 'poisson'?"]),
        ({"fixed": {"arrivals": "poisson"}}, ["poisson arrivals need rate_per_s"]),
        ({"fixed": {"arrivals": "step"}}, ["step arrivals need steps"]),
        ({"arrivals": {"step": 1}}, ["no 'step'", "did you mean 'steps'?"]),
        (
            {
                "factors": {"rate_per_s": [1, 2]},
                "fixed": {"arrivals": "poisson"},
                "arrivals": {"rate_per_s": 5},
            },
            ["arrivals hold rate_per_s", "a factor"],
        ),
        (
            {"fixed": {"arrivals": "constant", "rate_per_s": 1}, "arrivals": {"duration_s": 5}},
            ["arrivals hold duration_s", "beside arrivals"],
        ),
        (
            {"fixed": {"arrivals": "constant", "rate_per_s": 1}, "arrivals": {"burst_size": 5}},
            ["arrivals hold burst_size", "constant arrivals do not take"],
        ),
        ({"factors": {"rate_per_s": [1, 2]}}, ["rate_per_s makes no difference", "backlog"]),
        ({"fixed": {"mode": "thread", "redis_outage_s": 1}}, ["mode=thread has no Redis"]),
        (
            {"factors": {"mode": ["rq", "inline"], "workers": [1, 2]}},
            ["workers made no difference with mode inline", "configurations instead of factors"],
        ),
        (
            {"configurations": ({"mode": "thread"}, {"mode": "inline"}, {"mode": "inline", "kind": "fork"})},
            ["kind made no difference with mode inline"],
        ),
        (
            {"factors": {"mode": ["thread", "rq"], "fallback_threads": [1, 2]}},
            ["fallback_threads made no difference with mode rq"],
        ),
        ({"workload": "bookmark"}, ["'bookmark'", "did you mean 'bookmarks'?"]),
        ({"workload": "synthetic"}, ["synthetic lacks mean_ms"]),
        ({"workload": {"kind": "synthetic", "mean": 3}}, ["no 'mean'", "did you mean 'mean_ms'?"]),
        ({"workload": {"kind": "yours", "function": "f", "jobs": "x"}}, ["'f'", "package.module:name"]),
        ({"workload": {"kind": "synthetic", "mean_ms": 1}, "fixed": {"mode": "thread"}}, ["mode=thread"]),
        ({"jobs": "24"}, ["jobs", "'24'"]),
        ({"jobs": 0}, ["jobs=0", "1 to"]),
        ({"blocks": -1}, ["blocks=-1"]),
        ({"fixed": {"origin_latency_ms": float("nan")}}, ["origin_latency_ms=nan"]),
        ({"fixed": {"origin_latency_ms": None}}, ["origin_latency_ms holds None"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"fresh": "all"}, ["'all'", "data"]),
        ({"name": "../x"}, ["'../x'", "letters"]),
        ({"factors": {"workers": [1]}, "configurations": [{"workers": 2}]}, ["give one of them"]),
        ({"configurations": [{"workers": 2}, {}]}, ["the same"]),
        ({"configurations": [{"worker": 2}]}, ["'worker'", "did you mean 'workers'?"]),
        ({"factors": {"workers": list(range(1, 202))}}, ["201 configurations"]),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy_in_one_line(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(LabError) as caught:
        Experiment.from_mapping(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fixed": {"pages": "no/such/folder"}}, ["'no/such/folder'", "not a folder"]),
        ({"fixed": {"arrivals": "trace"}, "arrivals": {"trace": "no.csv"}}, ["cannot read the trace no.csv"]),
        (
            {"workload": {"kind": "yours", "function": "a:b", "jobs": "no.jsonl"}},
            ["'no.jsonl'", "not a file"],
        ),
    ],
)
def test_a_file_that_is_not_there_is_an_error_before_anything_runs(
    values: dict[str, Any], words: list[str]
) -> None:
    experiment = Experiment.from_mapping(values)  # as recorded on another machine, where it was there
    with pytest.raises(LabError) as caught:
        experiment.check_files()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "names with values"),
        ("a: [", "cannot be read as YAML"),
        ("jobs: 3\nfixed: {workers: 1}\njobs: 4", "'jobs' is given twice"),
        ("fixed: {workers: 1, workers: 2}", "'workers' is given twice"),
    ],
)
def test_a_file_that_is_no_experiment_says_so(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(LabError, match=words):
        Experiment.from_yaml(tmp_path / "x.yaml")
