"""Runs a notebook of the project through papermill, as `make report` does, with tiny parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat


def run_notebook(notebook: Path, tmp_path: Path, parameters: str) -> str:
    """What the last cell showed. `parameters` as YAML; the runs go to `tmp_path`/data, without the model."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FUZE_", "REDIS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-y", parameters],
        env=kept | {"FUZE_EMBEDDING_MODEL": "off", "FUZE_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1]
    return str(last.outputs[0]["data"]["text/plain"]) + str(last.outputs[0]["data"].get("text/html"))
