"""What a notebook needs before it measures: parameters that exist, and a run, measured or read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from fuze_bench.errors import LabError, nearest
from fuze_bench.lab.results import Run, load_run
from fuze_bench.lab.spec import Experiment

#: What a notebook on worker counts can be given.
WORKER_COUNT_PARAMETERS = (*(field.name for field in dataclasses.fields(Experiment)), "run_dir")


class ParameterWatch:
    """Finds misspelt parameters: made before the parameters cell, asked after it.

    papermill writes every `-p` and `-y` as an assignment into a cell of its own, and only warns of names that the
    notebook does not know; the notebook would measure for minutes with its defaults. The names that are new between
    making and asking are the parameters, in Jupyter as under papermill. When the cell that asks is run again, the
    names of later cells are no longer taken for parameters.
    """

    def __init__(self, namespace: Mapping[str, Any], known: Iterable[str] = WORKER_COUNT_PARAMETERS) -> None:
        self._namespace = namespace
        self._known = tuple(known)
        self._before = frozenset(namespace)
        self._was_asked = False

    def check(self) -> None:
        """Raises LabError for a parameter that the notebook does not have, naming the nearest that it has."""
        if self._was_asked:
            return
        for name, value in self._namespace.items():
            is_ours = name.startswith("_") or isinstance(value, ModuleType | ParameterWatch)
            if name not in self._before and name not in self._known and not is_ours:
                raise LabError(
                    f"this notebook has no parameter {name!r}: {nearest(name, self._known)}"
                    " (nothing was measured)"
                )
        self._was_asked = True


def measure_or_load(experiment: Experiment, run_dir: str | None) -> Run:
    """The run recorded in the folder `run_dir`; where that is None, measure `experiment` first.

    The run is always read back from its folder, so that an analysis made later sees the same.
    """
    if run_dir is not None:
        if not isinstance(run_dir, str) or not run_dir:
            raise LabError(f"run_dir is {run_dir!r}, not a folder: name a run's, or leave it None to measure")
        return load_run(run_dir)
    # Only here: an analysis needs neither Redis nor the pipeline.
    from fuze_bench.lab.run import run_experiment

    return run_experiment(experiment)
