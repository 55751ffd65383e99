"""Reports made by the command, and small notebooks to make them of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat

#: A run of synthetic jobs that take no time to speak of.
SYNTHETIC = """
from fuze_bench.lab.questions import answers, notebook, plots
from fuze_bench.lab.experiments.spec import Experiment
experiment = Experiment(
    name="worker_counts",
    workload={{"kind": "synthetic", "mean_ms": 1}},
    factors={{"workers": {workers}}},
    jobs={jobs},
    blocks=1,
    baseline_copy=False,
)
run = notebook.measure_or_load(experiment, None)
run
"""


def environment(folder: Path) -> dict[str, str]:
    """Nothing of a developer's own settings; no model, which takes seconds to load, and as quick a start as in `conftest`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FUZE_", "REDIS_"))}
    quick = folder / "quick-start"
    quick.mkdir(exist_ok=True)
    (quick / "sitecustomize.py").write_text("import sys\nsys.modules.setdefault('rfc3987_syntax', None)\n")
    path = os.pathsep.join(filter(None, [str(quick), kept.get("PYTHONPATH", "")]))
    return kept | {"PYTHONPATH": path, "FUZE_EMBEDDING_MODEL": "off", "FUZE_DATA_DIR": str(folder / "data")}


def papermill(folder: Path, notebook: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The notebook, executed into `folder`/out.ipynb; its runs go to `folder`/data."""
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(folder / "out.ipynb"), *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "fuze_bench.cli", "report", "--out", str(folder / "reports"), *arguments]


def run_report(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def write_notebook(path: Path, *sources: str) -> Path:
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# A question"), *(v4.new_code_cell(source) for source in sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path
