"""Runs a notebook of the project through papermill, as `make report` does, with tiny parameters."""

from __future__ import annotations

from pathlib import Path

import nbformat
from report_runs import papermill

from fuze_bench.lab.judgement.checks import CONCLUSION_MIME_TYPE


def run_notebook(notebook: Path, tmp_path: Path, parameters: str) -> str:
    """Its answer. `parameters` as YAML; the runs go to `tmp_path`/data, without the model."""
    done = papermill(tmp_path, notebook, "-y", parameters)
    assert done.returncode == 0, done.stderr[-2000:]
    return answer_in(tmp_path / "out.ipynb")


def answer_in(executed: Path) -> str:
    """What an executed notebook concluded, as text and as HTML. Below it stands every verdict of its run."""
    *_, conclusion, _, verdicts = nbformat.read(executed, as_version=4).cells
    shown = verdicts.outputs[0]["data"]["text/html"]
    assert all(name in shown for name in ("too few blocks", "lost", "trend inside the window")), shown
    data = conclusion.outputs[0]["data"]
    assert CONCLUSION_MIME_TYPE in data
    return str(data["text/plain"]) + str(data["text/html"])
