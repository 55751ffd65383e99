"""How much a report measures: what each notebook is given for a tiny, the quick, and the full one."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import nbformat

Level = Literal["tiny", "quick", "full"]

#: All notebooks together take at most so long in the quick report, on two idle cores: see their `budget_s`.
QUICK_BUDGET_S = 8 * 60
#: To see that everything works; far too little to conclude from.
TINY: dict[str, Any] = {
    "blocks": 1,
    "jobs": 10,
    "pool_jobs": 0,
    "duration_s": 1,
    "budget_s": 30,
    "origin_latencies_ms": [20],
}
#: The quick report is what the notebooks do by themselves. The full one has so many times their time, …
_FULL_TIMES = 8
#: … at least so many blocks, …
_FULL_BLOCKS = 12
#: … and where that is worth more than blocks, other values.
_FULL: Mapping[str, Mapping[str, Any]] = {
    "worker_counts": {"worker_counts": [1, 2, 4], "jobs": 40, "pool_jobs": 10},
    # Its search ends after so many trials, however much time is left.
    "quick_save_load": {"most_trials": 20, "window_s": 5},
    "capacity_plan": {"base_blocks": _FULL_BLOCKS},
    # Which takes seconds to start in each trial.
    "threading_fallback": {"sender": "locust"},
}


def parameters(notebook: Path, level: Level) -> dict[str, Any]:
    """What to give a notebook; only names that it has."""
    known = defaults(notebook)
    if level == "quick":
        return {}
    if level == "tiny":
        return {name: value for name, value in TINY.items() if name in known}
    given = {
        name: value * _FULL_TIMES
        for name, value in known.items()
        if name.endswith("budget_s") and isinstance(value, int | float)
    }
    if isinstance(known.get("blocks"), int):
        given["blocks"] = max(_FULL_BLOCKS, known["blocks"])
    own = _FULL.get(notebook.stem, {})
    return given | {name: value for name, value in own.items() if name in known}


def defaults(notebook: Path) -> dict[str, Any]:
    """The parameters of a notebook and their plain values; none where it has no cell tagged `parameters`."""
    node = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {}
    for cell in node.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            for statement in ast.parse(cell.source).body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    found[statement.targets[0].id] = _plain(statement.value)
    return found


def _plain(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
