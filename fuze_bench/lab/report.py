"""The report: notebooks through papermill, then pages and an index that says the answer first."""

from __future__ import annotations

import base64
import io
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillException, PapermillExecutionError

from fuze_bench.errors import FuzeError, LabError, one_line
from fuze_bench.lab import checks, pages, plots, summaries
from fuze_bench.lab.results import RUN_MIME_TYPE, Run, load_run

TITLE = "Which workers to run: measured"
_START_TIMEOUT_S = 120

#: Tells the person who waits; given whole lines.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Executed:
    """A notebook that was run: its file in the report, and why it failed, if it did."""

    name: str
    path: Path
    failure: str | None


def build_report(
    notebooks: Sequence[Path], out: Path, *, parameters: Mapping[str, Any] | None = None, say: Say = print
) -> list[Executed]:
    """Run the notebooks into `out/notebooks` and write the pages; what ran, in order.

    A notebook that fails leaves its executed part and a page that says so; the others still run. Raises LabError
    if `out` cannot be written.
    """
    try:
        (out / "notebooks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"{out} cannot be made ({one_line(error)}): choose another folder with --out"
        ) from None
    start_s = time.monotonic()
    executed = []
    for place, path in enumerate(notebooks, start=1):
        say(f"notebook {place} of {len(notebooks)}: {path.stem}")
        executed.append(execute(path, out / "notebooks" / path.name, parameters or {}, say))
    write_pages(executed, out)
    minutes, seconds = divmod(round(time.monotonic() - start_s), 60)
    say(f"{out / 'index.html'} written after {minutes} min {seconds} s")
    return executed


def execute(path: Path, executed_path: Path, parameters: Mapping[str, Any], say: Say) -> Executed:
    """Run one notebook, passing on what it prints; a failure is in the result, not raised."""
    failure: str | None = None
    # What an earlier report left must not pass for this one's.
    executed_path.unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        papermill.execute_notebook(
            str(path),
            str(executed_path),
            parameters=dict(parameters),
            kernel_name="python3",
            progress_bar=False,
            start_timeout=_START_TIMEOUT_S,
            stdout_file=_Lines(say),
            # The kernel otherwise warns of its sockets, which do not leave this machine, and of being ended.
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as error:
        failure = f"{error.ename}: {one_line(Exception(error.evalue))}"
    except (
        PapermillException,
        DeadKernelError,
        CellTimeoutError,
        RuntimeError,
        ValueError,
        OSError,
    ) as error:
        failure = f"{type(error).__name__}: {one_line(error)}"
    if failure is not None:
        say(f"{path.stem} failed: {failure}")
    if not executed_path.is_file():
        shutil.copyfile(path, executed_path)
    return Executed(path.stem, executed_path, failure)


def write_pages(executed: Sequence[Executed], out: Path) -> None:
    """A page for every executed notebook, and the index; from what is on the disk alone."""
    sections = []
    for each in executed:
        node = nbformat.read(each.path, as_version=4)  # type: ignore[no-untyped-call]
        page = pages.notebook_page(node, notebook_file=each.path.name, failure=each.failure)
        _write(each.path.with_suffix(".html"), page)
        sections.append(_section(each, node, out))
    written_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    _write(out / "index.html", pages.index_page(sections, title=TITLE, written_at=written_at))


def _section(each: Executed, node: Any, out: Path) -> pages.Section:
    links: dict[str, Any] = {
        "name": each.name,
        "title": pages.title_of(node),
        "page": f"notebooks/{each.name}.html",
        "notebook_file": f"notebooks/{each.path.name}",
    }
    folder = _run_folder(node)
    if each.failure is not None or folder is None:
        return pages.Section(**links, failure=each.failure)
    try:
        run = load_run(each.path.parent / folder)
        section = pages.Section(**links, **_findings(run, out))
    except FuzeError as error:
        return pages.Section(**links, failure=one_line(error))
    _hide_paths(node, f"../data/{run.folder.name}")
    nbformat.write(node, each.path)  # type: ignore[no-untyped-call]
    return section


def _findings(run: Run, out: Path) -> dict[str, Any]:
    plot = plots.throughput_plot(run)
    experiment = run.experiment
    table = summaries.throughput_table(run.good_trials(), experiment.configurations, experiment.baseline)
    packages = run.machine.get("packages", {})
    versions = {
        "Python": run.machine.get("python"),
        "redis-server": run.machine.get("redis_server"),
        **packages,
        "git commit": run.machine.get("git_commit"),
    }
    return {
        "answer": checks.conclude(run),
        "plot": base64.b64encode(plot.png()).decode("ascii"),
        "plot_description": plot.description,
        "table": pages.figures_table(table),
        "facts": pages.facts_table(run.describe()),
        "versions": pages.facts_table({name: "–" if v is None else v for name, v in versions.items()}),
        "data_files": _copy_data(run, out),
    }


def _copy_data(run: Run, out: Path) -> list[tuple[str, str]]:
    """The run folder's files into the report, so that it can be moved; their names and links."""
    target = out / "data" / run.folder.name
    target.mkdir(parents=True, exist_ok=True)
    links = []
    for path in sorted(run.folder.iterdir()):
        if path.suffix in (".json", ".parquet"):
            shutil.copyfile(path, target / path.name)
            links.append((path.name, f"data/{run.folder.name}/{path.name}"))
    return links


def _hide_paths(node: Any, folder: str) -> None:
    """The notebook in the report names the copy of its run, and not where anything was on this machine."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            if RUN_MIME_TYPE in output.get("data", {}):
                output["data"][RUN_MIME_TYPE] = {"folder": folder}
    for name in ("input_path", "output_path"):
        node.metadata.get("papermill", {}).pop(name, None)


def _run_folder(node: Any) -> str | None:
    """The run folder that the notebook says it read."""
    for cell in node.cells:
        for output in cell.get("outputs", []):
            found = output.get("data", {}).get(RUN_MIME_TYPE)
            if found is not None:
                return str(found["folder"])
    return None


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class _Lines(io.TextIOBase):
    """A file that passes every whole line on."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)
