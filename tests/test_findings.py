"""What a report reads from executed notebooks and run folders, without running any; and its text for a CI job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from backlog_runs import backlog_run

from fuze_bench.cli import main
from fuze_bench.lab.judgement.checks import CONCLUSION_MIME_TYPE
from fuze_bench.lab.report import findings, report_summary
from fuze_bench.lab.report.findings import Executed, Findings
from fuze_bench.lab.runs.hidden_paths import HiddenPaths
from fuze_bench.lab.runs.results import RUN_MIME_TYPE, load_run

MEANS_S = {"simple": 0.5, "fork": 0.6}


def executed(path: Path, *outputs: dict[str, Any]) -> Executed:
    """A notebook that has been run, with a cell for each output."""
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# A question")]
    for data in outputs:
        cells.append(v4.new_code_cell("x", outputs=[v4.new_output("execute_result", data=data)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells), path)
    return Executed(path.stem, path, None)


def says(sentence: str) -> dict[str, Any]:
    return {CONCLUSION_MIME_TYPE: {"sentence": sentence, "doubts": []}, "text/plain": sentence}


def reads(folder: Path) -> dict[str, Any]:
    return {RUN_MIME_TYPE: {"folder": str(folder)}, "text/plain": f"the run in {folder}"}


@pytest.fixture
def found(tmp_path: Path) -> Findings:
    """A notebook that read two runs of the same name, one with trials that failed, and one that read none."""
    first = backlog_run(
        tmp_path / "a" / "run",
        factors={"workers": [1, 2]},
        mean_service_s=MEANS_S,
        blocks=2,
        broken={
            "1 simple worker": {
                "status": "failed",
                "problem": f"no file {tmp_path}/x",
                "throughput_per_s": None,
            }
        },
    )
    second = backlog_run(
        tmp_path / "b" / "run", factors={"kind": ["simple", "fork"]}, mean_service_s=MEANS_S, blocks=1
    )
    notebooks = tmp_path / "reports" / "notebooks"
    return findings.read(
        [
            executed(notebooks / "other.ipynb", says("Nothing.")),
            executed(
                notebooks / "worker_counts.ipynb",
                *(reads(first.folder), reads(second.folder), reads(first.folder)),
                *(says("A first thought."), says("The answer.")),
            ),
        ],
        tmp_path / "reports",
    )


def test_every_run_of_a_notebook_is_kept_once(found: Findings, tmp_path: Path) -> None:
    assert [run.folder.name for run in found.runs] == ["run", "run-2"]
    assert [load_run(run.folder).planned_trials for run in found.runs] == [6, 3]
    text = (tmp_path / "reports" / "notebooks" / "worker_counts.ipynb").read_text()
    assert str(tmp_path) not in text
    assert text.count('"folder": "../data/run"') == 2
    assert text.count('"folder": "../data/run-2"') == 1
    problems = set(found.runs[0].trials["problem"].dropna())
    assert len(problems) == 1
    assert str(tmp_path) not in problems.pop()


def test_the_last_conclusion_is_the_answer_and_worker_counts_decides(found: Findings) -> None:
    other, counts = found.notebooks
    assert other.answer is not None
    assert counts.answer is not None
    assert (other.answer.sentence, counts.answer.sentence) == ("Nothing.", "The answer.")
    assert found.decision is not None
    assert found.decision.run == "run"
    assert found.failed == ()


def test_the_table_holds_every_trial_those_that_failed_too(found: Findings) -> None:
    table = findings.trials_table(found)
    assert len(table) == 6 + 3
    assert list(table["status"]).count("failed") == 4
    assert table[table["status"] == "failed"]["jobs/s"].isna().all()
    assert table["configuration"].str.endswith(" (again)").sum() == 3


def test_a_run_that_is_gone_makes_its_notebook_fail_and_no_other(tmp_path: Path) -> None:
    notebooks = tmp_path / "reports" / "notebooks"
    found = findings.read(
        [
            executed(notebooks / "gone.ipynb", reads(tmp_path / "nowhere")),
            executed(notebooks / "other.ipynb", says("Nothing.")),
        ],
        tmp_path / "reports",
    )
    assert [each.name for each in found.failed] == ["gone"]
    failure = found.notebooks[0].failure
    assert failure is not None
    assert "a run cannot be read" in failure
    assert str(tmp_path) not in failure
    assert found.undecided.startswith("no notebook measured a backlog")


def test_the_text_for_a_job_is_short_and_nothing_in_it_is_markup(
    found: Findings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = report_summary.mapping(found, level="quick", written_at="2026-01-01 00:00 UTC")
    summary["notebooks"][0] |= {"ok": False, "failure": "a | b\n<img src=x> `c` " + "long " * 100_000}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary))
    assert main(["summary", str(path)]) == 0
    text = capsys.readouterr().out
    assert len(text.encode()) < 20_000
    [line] = [line for line in text.splitlines() if line.startswith("| other |")]
    assert line.startswith(r"| other | **failed:** a \| b \<img src=x\> \`c\` long")
    rows = [row for row in text.splitlines() if row.startswith(("| option", "| 1 simple", "| 2 simple"))]
    assert len({row.count(" | ") for row in rows}) == 1
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), ("[]", "format version None"), ("{", "cannot be read")]
)
def test_what_is_no_summary_is_said_in_a_line(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    assert main(["summary", str(path)]) == 1
    errors = capsys.readouterr().err.strip()
    assert words in errors
    assert len(errors.splitlines()) == 1


def test_only_whole_paths_are_hidden() -> None:
    hidden = HiddenPaths({Path("/srv/bench"): "../data"})
    assert hidden.text("in /srv/bench/a and '/srv/bench'") == "in ../data/a and '../data'"
    assert hidden.text("/srv/benchmark /other/srv/bench") == "/srv/benchmark /other/srv/bench"
    assert hidden.value({"a": ["/srv/bench"], "image/png": "/srv/bench"}) == {
        "a": ["../data"],
        "image/png": "/srv/bench",
    }
