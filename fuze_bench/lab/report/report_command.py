"""The command line of the report: `fuze-bench report`, `fuze-bench speed` and `fuze-bench summary`."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fuze_bench.errors import LabError, nearest

NOTEBOOKS_DIRECTORY = Path(__file__).resolve().parents[3] / "notebooks"
#: Shows how to begin, with a run of another machine: in a report only if it is named.
_INTRODUCTION = "start_here"

_out_option = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for what is written.",
)


@click.command()
@_out_option
@click.option(
    "--notebook",
    "names",
    multiple=True,
    help="A notebook to run, by its name or path; repeatable.  [default: all but start_here]",
)
@click.option(
    "--rate", type=float, help="Decide for so many jobs a second.  [default: 70 % of the most measured]"
)
@click.option("--wait-p95", help="95 % must be taken up within this time: 30s.  [default: 5s]")
@click.option("--full", is_flag=True, help="More blocks and far more time: for a claim, not a first look.")
@click.option("--tiny", is_flag=True, help="Few and short trials, to see that everything works.")
def report(
    out: Path, names: tuple[str, ...], rate: float | None, wait_p95: str | None, full: bool, tiny: bool
) -> None:
    """Run the notebooks and write reports/index.html, which begins with the decision, and reports/summary.json.

    Takes at most 8 minutes on a machine of two cores that does nothing else. Exits with 1 if a notebook fails; its page
    then says why, and holds what it had done.
    """
    from fuze_bench.lab.planning.plan_wanted import parse_duration_s

    if full and tiny:
        raise LabError("--full and --tiny are both given: choose one")
    if rate is not None and not 0 < rate < math.inf:
        raise LabError(f"rate={rate:g}: give jobs a second above 0")
    wait_p95_s = None if wait_p95 is None else parse_duration_s(wait_p95)
    if wait_p95_s == 0:
        raise LabError(f"wait-p95={wait_p95}: give a time above 0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    notebooks = [find_notebook(name) for name in names] or reported_notebooks()
    with _a_home():
        # Only now: a wrong option is refused before papermill and pandas are imported.
        from fuze_bench.lab.benchmarks.running import results_folder
        from fuze_bench.lab.report.build import build_report

        found = build_report(
            notebooks,
            out,
            level="full" if full else "tiny" if tiny else "quick",
            rate_per_s=rate,
            wait_p95_s=wait_p95_s,
            benchmarks=results_folder(),
            say=_say,
        )
    if found.failed:
        raise LabError(f"{', '.join(each.name for each in found.failed)} failed: see {out / 'index.html'}")


@click.command()
@_out_option
def speed(out: Path) -> None:
    """Write the report's page on speed alone, reports/speed.html, from what `fuze-bench bench` has recorded."""
    with _a_home():
        from fuze_bench.lab.benchmarks.running import results_folder
        from fuze_bench.lab.report.build import write_speed

        found = write_speed(out, results_folder(), has_index=(out / "index.html").is_file())
    for problem in found.problems:
        click.echo(problem, err=True)
    click.echo(f"{out / 'speed.html'}: {found.in_short()}")


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("reports/summary.json"))
def summary(path: Path) -> None:
    """Print the decision and how the notebooks ended, as Markdown, from a report's summary.json."""
    from fuze_bench.lab.report import report_summary

    click.echo(report_summary.markdown(report_summary.load(path)), nl=False)


@contextmanager
def _a_home() -> Iterator[None]:
    """Jupyter and matplotlib keep files in the home folder: where there is none to write to, in a temporary one."""
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="fuze-home-", ignore_cleanup_errors=True) as temporary:
        before = os.environ.get("HOME")
        os.environ["HOME"] = temporary
        try:
            yield
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before


def known_notebooks() -> dict[str, Path]:
    """The notebooks of this checkout by their names. Raises LabError if there are none."""
    found = {path.stem: path for path in sorted(NOTEBOOKS_DIRECTORY.glob("*.ipynb"))}
    if not found:
        raise LabError("there are no notebooks beside the package: work in a checkout of the repository")
    return found


def reported_notebooks() -> list[Path]:
    """The notebooks that a report runs where none is named: those with a question about this machine."""
    return [path for name, path in known_notebooks().items() if name != _INTRODUCTION]


def find_notebook(name: str) -> Path:
    """A notebook by its name in `notebooks/` or by its path. Raises LabError if there is none."""
    if name.endswith(".ipynb"):
        if Path(name).is_file():
            return Path(name)
        raise LabError(f"there is no notebook {name}: give the path of one, or one of the known names")
    known = known_notebooks()
    if name not in known:
        raise LabError(f"there is no notebook {name!r}: {nearest(name, known)}")
    return known[name]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
