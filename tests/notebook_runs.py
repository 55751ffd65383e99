"""Runs a notebook of the project through papermill, as `make report` does, with tiny parameters."""

from __future__ import annotations

from pathlib import Path

import nbformat
from report_runs import papermill


def run_notebook(notebook: Path, tmp_path: Path, parameters: str) -> str:
    """What the last cell showed. `parameters` as YAML; the runs go to `tmp_path`/data, without the model."""
    done = papermill(tmp_path, notebook, "-y", parameters)
    assert done.returncode == 0, done.stderr[-2000:]
    last = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1]
    return str(last.outputs[0]["data"]["text/plain"]) + str(last.outputs[0]["data"].get("text/html"))
