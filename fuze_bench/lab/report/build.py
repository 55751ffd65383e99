"""The report: notebooks through papermill, then pages, an index that says the decision first, and a summary."""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillException, PapermillExecutionError

from fuze_bench.errors import LabError, one_line
from fuze_bench.lab.report import findings, index_page, pages, report_summary, speed_page
from fuze_bench.lab.report.findings import Executed, Findings
from fuze_bench.lab.report.report_levels import Level, parameters
from fuze_bench.lab.report.speed_page import Speed

_START_TIMEOUT_S = 120

#: Tells the person who waits; given whole lines.
Say = Callable[[str], None]


def build_report(
    notebooks: Sequence[Path],
    out: Path,
    *,
    level: Level = "quick",
    rate_per_s: float | None = None,
    wait_p95_s: float | None = None,
    benchmarks: Path | None = None,
    say: Say = print,
) -> Findings:
    """Run the notebooks into `out/notebooks`, and write pages, index and summary of what they found.

    `benchmarks`: the folder of recorded benchmark results, of which the page on speed is made.

    A notebook that fails leaves its executed part and a page that says so; the others still run. `rate_per_s` and
    `wait_p95_s` are what the decision is made for: see `decision.decide`. Raises LabError if `out` cannot be written.
    """
    _make(out / "notebooks")
    start_s = time.monotonic()
    executed = []
    for place, path in enumerate(notebooks, start=1):
        say(f"notebook {place} of {len(notebooks)}: {path.stem}")
        executed.append(execute(path, out / "notebooks" / path.name, parameters(path, level), say))
    found = findings.read(executed, out, rate_per_s=rate_per_s, wait_p95_s=wait_p95_s)
    write_pages(found, out, level, benchmarks)
    minutes, seconds = divmod(round(time.monotonic() - start_s), 60)
    say(f"{out / 'index.html'} written after {minutes} min {seconds} s")
    return found


def execute(path: Path, executed_path: Path, given: Mapping[str, Any], say: Say) -> Executed:
    """Run one notebook, passing on what it prints; a failure is in the result, not raised."""
    failure: str | None = None
    start_s = time.monotonic()
    # What an earlier report left must not pass for this one's.
    executed_path.unlink(missing_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        papermill.execute_notebook(
            str(path),
            str(executed_path),
            parameters=dict(given),
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
    return Executed(path.stem, executed_path, failure, time.monotonic() - start_s)


def write_pages(found: Findings, out: Path, level: Level, benchmarks: Path | None) -> None:
    """A page for every executed notebook, the page on speed, the index, and the summary. Raises LabError."""
    written_at = _now()
    for each in found.notebooks:
        _write(out / "notebooks" / f"{each.name}.html", pages.notebook_page(each))
    speed = write_speed(out, benchmarks, has_index=True)
    _write(out / "index.html", index_page.index_page(found, speed=speed.in_short(), written_at=written_at))
    summary = report_summary.mapping(found, level=level, written_at=written_at)
    _write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_speed(out: Path, benchmarks: Path | None, *, has_index: bool) -> Speed:
    """The page on speed, of the results in the folder, with a link to the index if there is one; what it says.

    Raises LabError if `out` cannot be written."""
    speed = speed_page.read(benchmarks)
    _make(out)
    _write(out / "speed.html", speed_page.page(speed, written_at=_now(), has_index=has_index))
    _write(out / "speed.json", speed_page.data(speed))
    return speed


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, "made", error) from None


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise _unusable(path, "written", error) from None


def _unusable(path: Path, what: str, error: OSError) -> LabError:
    return LabError(f"{path} cannot be {what} ({one_line(error)}): choose another folder with --out")


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
