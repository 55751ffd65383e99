"""Notebooks under papermill as people run it by hand: wrong parameters are said, and logs stay short."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from backlog_runs import backlog_run
from report_runs import SYNTHETIC, papermill, write_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WORKER_COUNTS = Path(__file__).parents[1] / "notebooks" / "worker_counts.ipynb"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "worker_count", "4"], "no parameter 'worker_count': did you mean 'worker_counts'?"),
        (["-p", "worker_counts", "[1, 2]"], "give it to papermill as -y '{worker_counts: [1, 2]}'"),
    ],
    ids=["misspelt", "list as text"],
)
def test_a_wrong_parameter_stops_before_anything_is_measured(tmp_path: Path, arguments, words) -> None:
    done = papermill(tmp_path, WORKER_COUNTS, *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_list_given_as_yaml_is_one(tmp_path: Path) -> None:
    """It reads an earlier run, and so gets to its end without measuring."""
    run = backlog_run(
        tmp_path / "run", factors={"workers": [1, 2]}, mean_service_s={"simple": 0.1}, blocks=1, jobs=10
    )
    done = papermill(
        tmp_path, WORKER_COUNTS, "-y", f"{{worker_counts: [1, 2], run_dir: {json.dumps(str(run.folder))}}}"
    )
    assert done.returncode == 0, done.stderr
    assert "had the highest median throughput" in (tmp_path / "out.ipynb").read_text()


def test_a_notebook_without_its_tag_stops_before_anything_is_measured(tmp_path: Path) -> None:
    node = nbformat.read(WORKER_COUNTS, as_version=4)
    for cell in node.cells:
        cell.metadata.pop("tags", None)
    nbformat.write(node, tmp_path / "no_tag.ipynb")
    done = papermill(tmp_path, tmp_path / "no_tag.ipynb", "-y", "{worker_counts: [1]}")
    assert done.returncode != 0
    assert "tag their cell «parameters»" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_parameters(path: Path) -> None:
    node = nbformat.read(path, as_version=4)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in node.cells) == 1


def test_hundreds_of_jobs_flood_neither_the_log_nor_the_notebook(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "many.ipynb", SYNTHETIC.format(workers=[4], jobs=400))
    done = papermill(tmp_path, notebook, "--log-output")
    assert done.returncode == 0, done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 100
    assert (tmp_path / "out.ipynb").stat().st_size <= 2 * 2**20
    node = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    bars = [
        output.data["text/html"]
        for cell in node.cells
        for output in cell.get("outputs", [])
        if "<progress" in output.get("data", {}).get("text/html", "")
    ]
    assert len(bars) == 1, "each update of the bar is an output of its own"
    value, most = re.findall(r"(?:value|max)='([\d.]+)'", bars[0])
    assert float(value) == float(most) == 1
