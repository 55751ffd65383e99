"""The installed JupyterLab on a copy of a notebook, with settings, workspaces and runs of the test's own."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from api_server import Client
from report_runs import environment

from fuze_bench.processes import Child, free_port

#: Whether to be told of news and updates is asked of everybody who comes for the first time.
_NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: `address` opens the notebook, whose runs go to `runs`."""

    address: str
    runs: Path


@contextmanager
def running_lab(folder: Path, notebook: Path, changes: Mapping[str, int]) -> Iterator[Lab]:
    """JupyterLab on a copy of `notebook` in which the parameters `changes` have other values.

    Whatever it has started is gone afterwards; a kernel is in no process group of its server's.
    """
    (folder / "notebooks").mkdir()
    node = nbformat.read(notebook, as_version=4)
    for cell in node.cells:
        for name, value in changes.items() if "parameters" in cell.metadata.get("tags", []) else ():
            cell.source, found = re.subn(
                rf"^{name} = \S+", f"{name} = {value}", cell.source, flags=re.MULTILINE
            )
            assert found, f"{notebook} has no parameter {name}"
    nbformat.write(node, folder / "notebooks" / notebook.name)
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "MPLCONFIGDIR": str(folder / "matplotlib")}
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(_NO_NEWS))
    port, token = free_port(), secrets.token_hex(16)
    argv = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        f"--notebook-dir={folder / 'notebooks'}",
    ]
    client = Client(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        try:
            return client.get("/api").status == 200
        except OSError:
            return False

    log, variables = folder / "jupyter.log", environment(folder) | own
    with Child("jupyter", argv, log, environment=variables, stop_timeout_s=60) as child:
        child.wait_ready(answers, timeout_s=60)
        yield Lab(f"{client.base_url}/lab/tree/{notebook.name}?token={token}", runs=folder / "data" / "runs")
        began = psutil.Process(child.pid).children(recursive=True)
    _, alive_still = psutil.wait_procs(began, timeout=20)
    assert alive_still == []
