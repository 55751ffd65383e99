"""What a notebook needs before it measures: parameters that exist, and a run, measured or read back."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.experiments.spec import Experiment
from fuze_bench.lab.runs.results import Run, load_run

#: The run that comes with a checkout: the real pipeline, by number and kind of workers.
EXAMPLE_RUN = Path(__file__).resolve().parents[3] / "data" / "example-run"
_DATA = (int, float, str, list, dict, tuple, type(None))
_OF_IPYTHON = ("In", "Out")


class ParameterWatch:
    """Finds misspelt parameters: made in the cell before the parameters, asked after them.

    papermill writes every `-p` and `-y` as an assignment into a cell of its own after the one tagged `parameters`, and
    only warns of names that this does not have: the notebook would measure for minutes with its defaults. Without
    the tag, its cell comes first of all, and the defaults undo it. The names that the parameters' cell assigns are the
    known ones; IPython's own record of the cells tells.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        """Raises LabError where values were given before: the parameters' cell has lost its tag."""
        self._namespace = namespace
        self._cells = namespace["In"]
        self._next_cell = len(self._cells)
        self._before = frozenset(namespace)
        self._was_asked = False
        if self._next_cell <= 3:  # a notebook that is run again knows its names from the first time
            early = [name for name in namespace if _is_parameter(name, namespace[name])]
            if early:
                raise LabError(
                    f"{early[0]} was set before the notebook's own parameters, which would undo it: tag their cell"
                    " «parameters» (nothing was measured)"
                )

    def check(self) -> None:
        """Raises LabError for a parameter that the notebook does not have, naming the nearest that it has."""
        if self._was_asked:
            return
        known = _assigned(self._cells[self._next_cell])
        for name, value in self._namespace.items():
            if name not in self._before and name not in known and _is_parameter(name, value):
                raise LabError(
                    f"this notebook has no parameter {name!r}: {nearest(name, known)} (nothing was measured)"
                )
        self._was_asked = True


def _is_parameter(name: str, value: object) -> bool:
    return not name.startswith("_") and name not in _OF_IPYTHON and isinstance(value, _DATA)


def _assigned(source: str) -> set[str]:
    """The names that a cell gives values."""
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def as_list(name: str, value: object) -> list[Any]:
    """A parameter that is a list. Raises LabError for text, which papermill's `-p` makes of one."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        given = "the text " if isinstance(value, str) else ""
        raise LabError(
            f"{name} is {given}{value!r}, not a list: give it to papermill as -y '{{{name}: [1, 2]}}'"
        )
    return list(value)


def measure_or_load(
    experiment: Experiment,
    run_dir: str | None,
    *,
    budget_s: float | None = None,
    precision: float | None = None,
) -> Run:
    """The run recorded in the folder `run_dir`; where that is None, measure `experiment` first (see `run_experiment`).

    The run is always read back from its folder, so that an analysis made later sees the same.
    """
    if run_dir is not None:
        return _recorded("run_dir", run_dir, "to measure")
    # Only here: an analysis needs neither Redis nor the pipeline.
    from fuze_bench.lab.experiments.run import run_experiment

    return run_experiment(experiment, budget_s=budget_s, precision=precision)


def earlier_run(old_run_dir: str | None) -> Run:
    """The run recorded in the folder `old_run_dir`; where that is None, EXAMPLE_RUN. Raises LabError for no run."""
    if old_run_dir is None:
        return load_run(EXAMPLE_RUN)
    return _recorded("old_run_dir", old_run_dir, "for the one that comes with the project")


def _recorded(name: str, folder: object, what_none_is_for: str) -> Run:
    if not isinstance(folder, str | Path) or not str(folder):
        raise LabError(
            f"{name} is {folder!r}, not a folder: name a run's, or leave it None {what_none_is_for}"
        )
    return load_run(folder)
