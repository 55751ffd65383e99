"""The notebooks as committed, and as papermill runs them."""

import ast
from pathlib import Path

import nbformat
import pytest
from notebook_runs import answer_in
from report_runs import papermill

from fuze_bench.errors import LabError
from fuze_bench.lab.questions.notebook import ParameterWatch, as_list
from fuze_bench.lab.runs.results import load_run

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WORKER_COUNTS = Path(__file__).parents[1] / "notebooks" / "worker_counts.ipynb"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean(path: Path):
    node = nbformat.read(path, as_version=4)
    nbformat.validate(node)
    assert node.metadata.kernelspec.name == "python3"
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in node.cells) == 1
    assert node.cells[0].cell_type == "markdown"
    for cell in code:
        for part in ast.walk(ast.parse(cell.source)):
            assert not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)


def test_a_real_run_and_its_analysis_from_the_run_folder_alone(tmp_path: Path):
    done = papermill(
        tmp_path,
        WORKER_COUNTS,
        "-y",
        "{worker_counts: [1], kinds: [simple, fork], jobs: 6, blocks: 1, origin_latencies_ms: [20], pool_jobs: 0}",
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "data" / "runs").iterdir()
    run = load_run(folder)
    assert list(run.trials["status"]) == ["ok"] * 3
    assert len(run.events) == 18
    assert run.settings["FUZE_EMBEDDING_MODEL"] == "off"
    assert not list((folder / "trials").iterdir()), "good trials leave no files behind"
    first = answer_in(tmp_path / "out.ipynb")

    again = papermill(tmp_path, WORKER_COUNTS, "-p", "run_dir", str(folder))
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "data" / "runs").iterdir())) == 1, "it measured again"
    assert "had the highest median throughput" in first
    assert answer_in(tmp_path / "out.ipynb") == first


def namespace_of(*cells: str) -> dict[str, object]:
    """What IPython has when the last of the cells makes the watch."""
    return {"In": ["", *cells], "Out": {}}


def test_names_of_later_cells_are_no_parameters_when_a_cell_is_run_again():
    namespace = namespace_of("watch = …")
    watch = ParameterWatch(namespace)
    namespace["In"] += ["worker_counts = [1]", "watch.check()"]  # type: ignore[operator]
    namespace |= {"worker_counts": [1], "_i3": "what IPython keeps"}
    watch.check()
    namespace["total"] = 3
    watch.check()


def test_an_unknown_name_is_named_with_the_nearest():
    namespace = namespace_of("watch = …")
    watch = ParameterWatch(namespace)
    namespace["In"] += ["worker_counts = [1]", "# Parameters\nworker_count = 4"]  # type: ignore[operator]
    namespace |= {"worker_counts": [1], "worker_count": 4}
    with pytest.raises(LabError, match="no parameter 'worker_count': did you mean 'worker_counts'"):
        watch.check()


def test_a_list_is_one_and_text_is_none():
    assert as_list("kinds", ("fork",)) == ["fork"]
    for text in ("fork", "[1, 2]"):
        with pytest.raises(LabError, match=r"give it to papermill as -y '\{kinds: \[1, 2\]\}'"):
            as_list("kinds", text)
