"""What is new in each trial: everything, or everything but the process that has loaded the model; and that both agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from rq import Queue
from sqlalchemy import create_engine, text

from fuze_bench.errors import LabError
from fuze_bench.lab.experiments.run import run_experiment
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.experiments.trial import Trial
from fuze_bench.lab.judgement import checks
from fuze_bench.lab.judgement.stats import BLOCKS_TO_CONCLUDE
from fuze_bench.lab.judgement.summaries import comparisons
from fuze_bench.lab.judgement.verdicts import Answer
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.results import Run, load_run
from fuze_bench.pipeline.redis_server import connect
from fuze_bench.pipeline.settings import QUEUES, Settings

RECORDED = Path(__file__).parents[1] / "data" / "fresh-run"
SPEC = Path(__file__).parents[1] / "data" / "experiments" / "fresh.yaml"


@dataclass
class Seen:
    """What a trial begins with."""

    fresh: str
    workers: list[psutil.Process] = field(default_factory=list)
    host: psutil.Process | None = None
    jobs: int = 0
    bookmarks: int = 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Each trial as it is when its workers are ready, looked at from outside and otherwise left alone."""
    found: list[Seen] = []
    wait_ready = Trial.wait_ready

    def look(trial: Trial) -> None:
        wait_ready(trial)
        found.append(_look_at(trial))

    monkeypatch.setattr(Trial, "wait_ready", look)
    return found


def _look_at(trial: Trial) -> Seen:
    folder = trial._folder
    now = Seen(trial.planned.configuration.fresh)
    now.workers = [psutil.Process(pid) for pid in trial._load._workers.pids]  # type: ignore[attr-defined]
    parents = {worker.ppid() for worker in now.workers}
    hosts = [psutil.Process(pid) for pid in parents if pid != psutil.Process().pid]
    now.host = hosts[0] if hosts else None
    with connect(trial._load._redis.url) as client:  # type: ignore[attr-defined]
        now.jobs = sum(Queue(name, connection=client).count for name in QUEUES) + len(client.keys("rq:job:*"))
    if (folder / "bookmarks.sqlite").exists():
        engine = create_engine(f"sqlite:///{folder}/bookmarks.sqlite")
        with engine.connect() as database:
            now.bookmarks = database.execute(text("SELECT count(*) FROM fuze_bookmarks")).scalar_one()
        engine.dispose()
    return now


def test_processes_starts_all_anew_and_data_keeps_what_has_loaded_the_model(
    tmp_path: Path, seen: list[Seen]
) -> None:
    experiment = Experiment(
        factors={"fresh": ["data", "processes"]}, fixed={"workers": 1}, jobs=3, blocks=2, baseline_copy=False
    )
    run = run_experiment(experiment, Settings(data_dir=tmp_path, embedding_model="off"), out=tmp_path / "run")
    assert list(run.trials["status"]) == ["ok"] * 4
    assert list(run.trials["processed"]) == [3] * 4
    assert sorted(run.trials["fresh"]) == ["data"] * 2 + ["processes"] * 2
    # A process is told by its number and when it began: a number may be used again.
    assert len({worker for trial in seen for worker in trial.workers}) == 4, "workers are new in every trial"
    hosts = {fresh: [trial.host for trial in seen if trial.fresh == fresh] for fresh in ("data", "processes")}
    assert None not in hosts["data"] + hosts["processes"]
    assert len(set(hosts["data"])) == 1
    assert len(set(hosts["processes"])) == 2
    assert not set(hosts["data"]) & set(hosts["processes"])
    assert [(trial.jobs, trial.bookmarks) for trial in seen] == [(0, 0)] * 4, "left by the trial before"


def test_stock_workers_are_new_in_every_trial(tmp_path: Path, seen: list[Seen]) -> None:
    """They hold nothing that took long to load: there is nothing to keep."""
    for fresh in ("data", "processes"):
        experiment = Experiment.from_mapping(
            {"workload": {"kind": "synthetic", "mean_ms": 1}, "fresh": fresh, "fixed": {"workers": 1}}
            | {"jobs": 2, "blocks": 1}
        )
        run = run_experiment(experiment, Settings(data_dir=tmp_path), out=tmp_path / fresh)
        assert list(run.trials["processed"]) == [2, 2]
    assert [trial.fresh for trial in seen] == ["data"] * 2 + ["processes"] * 2
    assert len({worker for trial in seen for worker in trial.workers}) == 4
    assert [(trial.host, trial.jobs) for trial in seen] == [(None, 0)] * 4


def test_no_process_loads_the_model_that_no_trial_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all is new in each trial, what would be kept is not started either."""
    started: list[Path] = []
    begin = WorkerHost.__init__

    def note(host: WorkerHost, settings: Settings, log_path: Path) -> None:
        started.append(log_path)
        begin(host, settings, log_path)

    monkeypatch.setattr(WorkerHost, "__init__", note)
    experiment = Experiment(fresh="processes", fixed={"workers": 1}, jobs=1, blocks=1, warm_up=0)
    run_experiment(experiment, Settings(data_dir=tmp_path, embedding_model="off"), out=tmp_path / "run")
    assert [path.parent.name for path in started] == ["001", "002"]


def test_it_is_a_factor_or_said_once() -> None:
    said = Experiment.from_mapping({"fresh": "processes", "factors": {"workers": [1, 2]}})
    assert {c.fresh for c in said.configurations} == {"processes"}
    assert Experiment.from_mapping(said.to_mapping()).configurations == said.configurations
    assert list(Experiment(factors={"fresh": ["data", "processes"]}).labels.values()) == [
        "2 workers",
        "2 workers, fresh processes",
    ]
    with pytest.raises(LabError, match="fresh is given twice"):
        Experiment(fresh="data", factors={"fresh": ["data", "processes"]})
    with pytest.raises(LabError, match="always new: leave it out"):
        Experiment.from_mapping(
            {"workload": {"kind": "synthetic", "mean_ms": 1}, "factors": {"fresh": ["data", "processes"]}}
        )


@pytest.fixture(scope="module")
def recorded() -> Run:
    return load_run(RECORDED)


def test_the_recorded_run_is_the_example(recorded: Run) -> None:
    experiment = Experiment.from_yaml(SPEC)
    assert recorded.experiment.configurations == experiment.configurations
    assert recorded.ended == f"all {experiment.blocks} blocks done"
    assert sum(path.stat().st_size for path in RECORDED.iterdir()) < 200_000


def test_a_recorded_run_shows_that_both_agree(recorded: Run) -> None:
    """With enough blocks, and an interval that holds 1 and is narrow."""
    assert len(recorded.good_trials()) == recorded.planned_trials
    assert recorded.good_trials()["block"].nunique() >= BLOCKS_TO_CONCLUDE
    found, again = comparisons(recorded)
    assert found.differs is Answer.NO, found.sentence
    assert found.ratio is not None
    assert again.ratio is not None
    low, high = found.ratio.low, found.ratio.high
    assert low is not None
    assert high is not None
    assert 0.85 < low <= 1 <= high < 1.18, "narrow enough to say so: within a sixth or so"
    assert "no difference seen between 2 workers, fresh processes and 2 workers" in str(found)
    verdicts = checks.verdicts_on(recorded)
    assert not [v for v in verdicts.that_are(Answer.YES) if v.name in ("lost", "duplicated", "not drained")]
