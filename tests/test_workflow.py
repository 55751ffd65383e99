"""The workflow for users: it is one, it is harmless, and the commands of its steps work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_runs import SYNTHETIC, environment, write_notebook

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "bench.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    # YAML 1.1 reads the key `on` as true.
    found["on"] = found.pop(True)
    return found


def steps(workflow: dict[str, Any], job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow["jobs"][job]["steps"]
    return found


def test_it_is_a_workflow() -> None:
    check = [
        str(Path(sys.executable).with_name("check-jsonschema")),
        "--builtin-schema",
        "vendor.github-workflows",
        str(WORKFLOW),
    ]
    done = subprocess.run(check, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_can_do_no_harm(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["on"]) == {"push", "pull_request", "workflow_dispatch"}
    assert set(workflow["on"]["workflow_dispatch"]["inputs"]) == {"rate", "wait_p95"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "what somebody typed would become a part of the script"
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_the_report_is_kept_also_on_failure(workflow: dict[str, Any]) -> None:
    places = {
        step.get("uses", step.get("run", "")).split("@")[0].split()[0]: step
        for step in steps(workflow, "report")
    }
    keep = places["actions/upload-artifact"]
    assert (keep["if"], keep["with"]["path"]) == ("always()", "reports")
    assert places["if"]["if"] == "always()"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project with one small notebook, and with this environment where `make` would install one."""
    folder = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "fuze_bench", folder / "fuze_bench", ignore=ignored)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "notebooks").mkdir()
    measuring = SYNTHETIC.format(workers=[1, 2], jobs=30)
    write_notebook(folder / "notebooks" / "small.ipynb", measuring, "answers.how_many_workers(run)")
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "fuze-bench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fuze_bench.cli "$@"\n')
    (binaries / "fuze-bench").chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    return folder


def run_step(step: dict[str, Any], checkout: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """As GitHub's runner does it: the script as a file, to bash with -e and pipefail."""
    script = checkout.parent / "step.sh"
    script.write_text(step["run"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
        cwd=checkout,
        env=environment(checkout)
        | {"PYTHONPATH": str(checkout), "GITHUB_STEP_SUMMARY": str(checkout.parent / "summary.md")}
        | values,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_its_steps_make_a_report_and_say_the_decision(workflow: dict[str, Any], checkout: Path) -> None:
    make, say = (step for step in steps(workflow, "report") if "run" in step)
    assert set(make["env"].values()) == {"${{ inputs.rate }}", "${{ inputs.wait_p95 }}"}
    nothing = run_step(say, checkout)
    assert nothing.returncode == 0
    made = run_step(make, checkout, RATE="0.5", WAIT_P95="20s")
    assert made.returncode == 0, made.stdout + made.stderr
    said = run_step(say, checkout)
    assert said.returncode == 0, said.stderr
    text = (checkout.parent / "summary.md").read_text()
    assert text.startswith("No report was written: see the log.\n## Which workers to run\n")
    assert "| option | meets 20 s | p95 wait at 0.5/s |" in text
    assert re.search(r"^\| 1 simple worker \| pick \|", text, re.MULTILINE), text
    assert re.search(r"^\| small \| Exploratory: .* had the highest median throughput", text, re.MULTILINE)
    assert len(text.encode()) < 2**20
    assert (checkout / "reports" / "index.html").is_file()


@pytest.mark.parametrize(
    "typed", ["$(touch hacked)", "2; touch hacked", "$(shell touch hacked)", '" --full "']
)
def test_what_is_typed_as_the_rate_is_no_command(
    workflow: dict[str, Any], checkout: Path, typed: str
) -> None:
    make = next(step for step in steps(workflow, "report") if "run" in step)
    done = run_step(make, checkout, RATE=typed, WAIT_P95="")
    assert done.returncode != 0
    assert "is not a valid float" in done.stderr
    assert not list(checkout.rglob("hacked"))


def test_the_tests_step_is_a_target_of_make(workflow: dict[str, Any], checkout: Path) -> None:
    [test] = [step["run"] for step in steps(workflow, "test") if "run" in step]
    assert test == "make test"
    planned = subprocess.run(
        ["make", "-n", "test"], cwd=checkout, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert "pytest" in planned.stdout
