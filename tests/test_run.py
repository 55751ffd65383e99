"""A run: stopped and gone on with, ended when it knows enough or the time is spent, recorded without secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from run_folders import event_row, new_run, trial_row

from fuze_bench.cli import main
from fuze_bench.errors import LabError
from fuze_bench.lab.experiments import run
from fuze_bench.lab.experiments.run import recorded_settings, run_experiment
from fuze_bench.lab.experiments.spec import Experiment, PlannedTrial
from fuze_bench.lab.parts.machine import describe_machine
from fuze_bench.lab.parts.worker_host import WorkerHost
from fuze_bench.lab.runs.results import RunWriter, load_run
from fuze_bench.pipeline.settings import Settings

SLEEPS = """
workload: {kind: synthetic, mean_ms: 5}
factors: {workers: [1]}
jobs: 4
blocks: 2
"""


def own_environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FUZE_", "REDIS_"))}
    return kept | {
        "FUZE_EMBEDDING_MODEL": "off",
        "FUZE_DATA_DIR": str(tmp_path),
        "FUZE_FETCH_ALLOW": "my.intranet",
        "FUZE_API_HOSTS": "my.intranet",
        "FUZE_HOST_UNLIMITED": "my.intranet",
        "REDIS_PASSWORD": "p@ss/word",
    }


def test_ctrl_c_keeps_what_was_measured_and_resume_goes_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SLEEPS)
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "fuze_bench.cli", "run", str(tmp_path / "small.yaml"), "--out", str(out)]
    before = set(psutil.Process().children(recursive=True))
    with subprocess.Popen(
        argv, env=own_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 2/4"):
                break
        started = set(psutil.Process().children(recursive=True)) - before
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode not in (0, None)
    assert "stopped; what was measured so far is in" in rest
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    stopped = load_run(out)
    assert stopped.ended is None
    assert set(stopped.trials["status"]) == {"ok"}
    assert stopped.planned_trials == 4
    assert len(stopped.trials) < 4
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for secret in (b"my.intranet", b"p@ss/word", b"p%40ss%2Fword"):
        assert secret not in written

    small = Experiment.from_yaml(tmp_path / "small.yaml")
    with pytest.raises(LabError, match="holds a run already"):
        run_experiment(small, Settings(), out=out)
    with pytest.raises(LabError, match="of another experiment"):
        run_experiment(replace(small, jobs=5), Settings(), out=out, resume=True)
    with pytest.raises(LabError, match="no run to go on with"):
        run_experiment(small, Settings(), out=tmp_path / "nothing", resume=True)

    # With no time left it stops at once, with all that was there.
    gone_on = run_experiment(small, Settings(), out=out, resume=True, budget_s=1e-9)
    assert list(gone_on.trials["trial"]) == list(stopped.trials["trial"])
    assert list(gone_on.events["done_ns"]) == list(stopped.events["done_ns"])
    assert "is spent" in (gone_on.ended or "")

    # Begun again and stopped, it has not ended.
    run._writer(small, Settings(), out, resume=True)
    assert load_run(out).ended is None

    # With time it makes the trials that lack, and no other again.
    whole = run_experiment(small, Settings(data_dir=tmp_path), out=out, resume=True)
    assert list(whole.trials["trial"]) == list(range(1, 5))
    assert whole.ended == "all 2 blocks done"
    kept = whole.events[whole.events["trial"].isin(stopped.trials["trial"])]
    assert list(kept["done_ns"]) == list(stopped.events["done_ns"])


def test_a_run_goes_on_under_the_same_conditions_only(tmp_path: Path) -> None:
    _, experiment = new_run(tmp_path)
    asked = Settings(lease_s=7.0)
    (tmp_path / "machine.json").write_text(json.dumps(describe_machine() | {"usable_cores": 999}))
    with pytest.raises(
        LabError, match=r"begun on another machine \(usable_cores 999, here \d+\): begin anew"
    ):
        run_experiment(experiment, asked, out=tmp_path, resume=True)
    (tmp_path / "machine.json").write_text(json.dumps(describe_machine()))
    with pytest.raises(LabError, match=r"begun with FUZE_LEASE_S=15, and now it is '7\.0': set it as it was"):
        run_experiment(experiment, asked, out=tmp_path, resume=True)


def test_a_model_host_that_is_killed_fails_the_trial_in_hand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run._one

    def killed_before_the_second(planned: PlannedTrial, *others: Any) -> None:
        [host] = [each for each in others if isinstance(each, WorkerHost)]
        if planned.number == 2:
            host._process.kill()
            host._process.wait()
        one(planned, *others)

    monkeypatch.setattr(run, "_one", killed_before_the_second)
    experiment = Experiment(fixed={"workers": 1}, jobs=1, warm_up=0, blocks=3, baseline_copy=False)
    made = run_experiment(experiment, Settings(data_dir=tmp_path, embedding_model="off"))
    assert list(made.trials["status"]) == ["ok", "failed", "ok"]
    assert "the process that holds the model has ended" in made.trials["problem"].iloc[1]


def test_a_run_to_its_end_leaves_its_record_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SLEEPS)
    small = Experiment.from_yaml(tmp_path / "small.yaml")
    first = run_experiment(small, Settings(data_dir=tmp_path), budget_s=600, out=tmp_path / "out")
    table = first.trials
    assert list(table["trial"]) == [1, 2, 3, 4]
    assert first.ended == "all 2 blocks done"
    assert (tmp_path / "out" / "verdict.json").is_file()
    assert not list((tmp_path / "out" / "trials").iterdir()), "good trials leave no files behind"


def test_it_ends_when_every_ratio_is_known_well_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that are made in no time: what they measured, the run cannot tell from what they would have."""

    def recorded(planned: PlannedTrial, experiment: Experiment, *others: Any) -> None:
        [writer] = [each for each in others if isinstance(each, RunWriter)]
        # Two copies of the baseline that differ by 1 % in each block, to either side.
        throughput_per_s = 100.0 + (planned.copy if planned.block % 2 else -planned.copy)
        writer.add(planned, trial_row(planned, throughput_per_s=throughput_per_s), [event_row(planned)])

    monkeypatch.setattr(run, "_one", recorded)
    (tmp_path / "small.yaml").write_text(SLEEPS)
    small = replace(Experiment.from_yaml(tmp_path / "small.yaml"), blocks=6)
    known = run_experiment(small, Settings(data_dir=tmp_path), precision=0.05)
    assert known.ended == "known to 5% after 8 blocks", "six blocks, and narrow three times in a row"
    assert known.ended_early


def test_no_block_is_begun_that_would_end_after_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 4 s in 10 s: a third one would end after 12. What is measured before the first counts as well, and
    takes no run its first block."""
    writer, experiment = new_run(tmp_path, factors={"workers": [1]}, blocks=10)
    now_s = [0.0]
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    for ceiling_s, made_in_time in ((0.0, 2), (2.5, 1), (11.0, 1)):
        blocks = run._Blocks(experiment, writer, 10.0, None)
        now_s[0] += ceiling_s
        made = []
        for planned in blocks:
            made.append(planned.block)
            now_s[0] += 2.0
        assert made == [1, 1, 2, 2][: 2 * made_in_time]
        assert blocks.why.startswith(f"the time of 10 s is spent after {made_in_time} block")


def test_a_precision_that_is_never_reached_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not before the blocks that were planned."""
    monkeypatch.setattr(run, "_MOST_BLOCKS", 3)
    for planned, most in ((2, 3), (5, 5)):
        writer, experiment = new_run(tmp_path / str(planned), factors={"workers": [1]}, blocks=planned)
        blocks = run._Blocks(experiment, writer, None, 0.05)
        assert max(each.block for each in blocks) == most
        assert blocks.why == f"not known to 5% after {most} blocks: the machine is too noisy"


def test_what_is_recorded_is_what_the_trials_ran_with_and_no_place_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    asked = Settings(
        data_dir=tmp_path,
        host_fetches=2,
        lease_s=7.0,
        embedding_model=str(tmp_path / "model"),
        redis_url="redis://:very-secret@h/0",
        api_tokens=tmp_path / "tokens",
    )
    recorded = recorded_settings(asked)
    assert (recorded["FUZE_HOST_FETCHES"], recorded["FUZE_HOST_INTERVAL_S"]) == ("0", "0.0")
    assert (recorded["FUZE_LEASE_S"], recorded["FUZE_EMBEDDING_MODEL"]) == ("7.0", "model")
    assert not any(str(tmp_path) in value or "very-secret" in value for value in recorded.values())
    assert recorded_settings(replace(asked, embedding_model="org/name"))["FUZE_EMBEDDING_MODEL"] == "org/name"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "8"], "write it as 90s, 8m or 1h"),
        (["--budget", "0m"], "write it as 90s, 8m or 1h"),
        (["--precision", "5"], "write it as 5%"),
        (["--resume"], "no run to go on with: name its folder with --out"),
    ],
)
def test_a_wrong_option_is_one_line_and_measures_nothing(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "small.yaml").write_text(SLEEPS)
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.cli", "run", "small.yaml", *arguments],
        cwd=tmp_path,
        env=own_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if arguments == ["--resume"] else 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_of_which_no_trial_counts_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FUZE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "jobs.jsonl").write_text("{}\n")
    (tmp_path / "deadly.yaml").write_text(
        f"workload: {{kind: yours, function: 'their_jobs:end_the_process', jobs: {tmp_path}/jobs.jsonl}}\n"
        "jobs: 1\nblocks: 1\nbaseline_copy: false\n"
    )
    assert main(["run", str(tmp_path / "deadly.yaml"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "doubt: Trial 1" in said.out
    assert "no trial counts" in said.err
    assert list(load_run(tmp_path / "out").trials["status"]) == ["failed"]


def test_a_dry_run_lists_the_trials_and_measures_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SLEEPS)
    argv = [sys.executable, "-m", "fuze_bench.cli", "run", "small.yaml", "--dry-run"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=own_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 5
    assert done.stdout.splitlines()[-1].startswith("4 trials, about ")
    (tmp_path / "small.yaml").write_text(f"fixed: {{pages: {tmp_path}/nowhere}}\n")
    done = subprocess.run(
        argv, cwd=tmp_path, env=own_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a folder: name one that holds *.html files" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_locust_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "by-locust.yaml").write_text(
        "fixed: {sender: locust, arrivals: constant, rate_per_s: 5}\nduration_s: 1\nblocks: 1\n"
    )
    # As if the package had been installed without [lab].
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['locust'] = None\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "fuze_bench.cli", "run", "by-locust.yaml"],
        cwd=tmp_path,
        env=own_environment(tmp_path) | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.endswith("Locust is not installed: install the package with [lab], or use sender: lean")
